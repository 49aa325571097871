"""From a model and cases to labelled features."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import Tags, check_random_state
from sklearn.utils.validation import check_is_fitted
from torch import nn

from skte._sklearn import Interval, StrOptions, fit_context
from skte.bank import (
    BankEntry,
    LayerInfo,
    describe_layers,
    find_decoder_layers,
    model_in_channels,
    model_spatial_dims,
)
from skte.datasets import load_dataset, read_case
from skte.exceptions import BankError, ExtractionError, SkteError, SkteWarning
from skte.extraction._forward import OUTPUT, WindowReader
from skte.extraction._posterior import source_posterior
from skte.extraction._preprocess import preprocess_case
from skte.extraction._sampler import VoxelSample, sample_case
from skte.extraction._settings import resolve_device, window_edges
from skte.extraction._taps import inference_ready
from skte.extraction._windows import WindowPlan, default_window_size, plan_windows
from skte.features import CaseFeatures, FeatureSet, LayerSample

__all__ = ["SegmentationFeatureExtractor"]


class SegmentationFeatureExtractor(  # type: ignore[call-arg]
    TransformerMixin, BaseEstimator, auto_wrap_output_keys=None
):
    """Sample decoder features of a segmentation network, case by case.

    A window slides over each case; the outputs of decoder layers are read at
    sampled voxels only. The voxels depend on ``random_state``, case id and label
    alone, so every model and every layer is looked at in the same places.

    Parameters
    ----------
    entry : BankEntry
        The model's recipe, ``BankEntry.from_module(name, network)`` for a network
        at hand.
    layers : "auto" or sequence of str, default="auto"
        Names of modules, as in ``network.named_modules()``, coarse to fine. "auto"
        takes the entry's layers, or finds the decoder's stages; ``layers_`` tells
        which.
    window_size : int or tuple of int, optional
        Edges of the window in voxels (of the preprocessed image). Default: the
        entry's, or else one fitted to the volume, at most 96.
    overlap : float, default=0.5
        Share of a window's edge that neighbours share, in [0, 1). Each voxel
        belongs to the window in which it lies deepest; windows that own no
        sampled voxel are not run.
    n_class_samples : int, default=500
        Most voxels of one class in one case. A class gives a quarter of its
        voxels, but no fewer than 50 (or all it has) and no more than this.
    n_case_samples : int, default=500
        Voxels of the whole-case sample.
    batch_size : int, default=1
        Windows in one forward pass. It changes the time only.
    device : str or torch.device, optional
        Default: CUDA where there is one, else the CPU.
    random_state : int, RandomState instance or None, default=0
        Seed of the voxels.

    Attributes
    ----------
    layers_ : list of LayerInfo
        Name, stride and channels of each layer, coarse to fine.
    window_size_ : tuple of int or None
        Edges of the window; None when it is fitted to each volume.
    n_axes_ : int
        Spatial axes of the network, 2 or 3.
    random_state_ : int
        The seed in use.

    See Also
    --------
    ModelBankSelector : Extracts and scores a whole bank.

    Notes
    -----
    Layers near the bottleneck keep a prefix of the sample, half as many voxels
    for every doubling of the stride, but at least 50 of a class.

    Examples
    --------
    >>> from torch import nn
    >>> from skte import BankEntry, SegmentationFeatureExtractor
    >>> from skte.datasets import make_phantoms
    >>> cases = make_phantoms(2, size=(16, 16, 16))
    >>> network = nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), nn.Conv3d(4, 2, 1))
    >>> entry = BankEntry.from_module("tiny", network)
    >>> extractor = SegmentationFeatureExtractor(entry, layers=("0",), n_case_samples=40)
    >>> extractor.fit(cases).transform(cases)
    FeatureSet('tiny', 2 cases, layers {0: 4})
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "entry": [BankEntry],
        "layers": [StrOptions({"auto"}), "array-like"],
        "window_size": [Interval(Integral, 1, None, closed="left"), "array-like", None],
        "overlap": [Interval(Real, 0, 1, closed="left")],
        "n_class_samples": [Interval(Integral, 1, None, closed="left")],
        "n_case_samples": [Interval(Integral, 1, None, closed="left")],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "device": [str, torch.device, None],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        entry: BankEntry | None = None,
        *,
        layers: str | Sequence[str] = "auto",
        window_size: int | Sequence[int] | None = None,
        overlap: float = 0.5,
        n_class_samples: int = 500,
        n_case_samples: int = 500,
        batch_size: int = 1,
        device: str | torch.device | None = None,
        random_state: int | np.random.RandomState | None = 0,
    ) -> None:
        self.entry = entry
        self.layers = layers
        self.window_size = window_size
        self.overlap = overlap
        self.n_class_samples = n_class_samples
        self.n_case_samples = n_case_samples
        self.batch_size = batch_size
        self.device = device
        self.random_state = random_state

    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: None = None) -> Self:
        """Load the model once, choose its layers and check that it runs.

        Parameters
        ----------
        X : list of Subject, SubjectsDataset, list of dict, or path
            The cases; the first one is looked at.
        y : None
            Ignored: cases carry their labels.

        Returns
        -------
        self : SegmentationFeatureExtractor
            The fitted extractor. It holds no network.

        Raises
        ------
        SkteError
            If model, layers or cases are unusable; the message names them.
        """
        self._fit(load_dataset(X))
        return self

    def transform(self, X: Any) -> FeatureSet:
        """Extract the features of every case.

        Parameters
        ----------
        X : list of Subject, SubjectsDataset, list of dict, or path
            The cases.

        Returns
        -------
        FeatureSet
            One element a case, in order.
        """
        check_is_fitted(self, "layers_")
        return self._transform(load_dataset(X), self._recipe.load())

    @fit_context(prefer_skip_nested_validation=True)
    def fit_transform(self, X: Any, y: None = None) -> FeatureSet:
        """Fit and extract, loading the model once.

        Parameters
        ----------
        X : list of Subject, SubjectsDataset, list of dict, or path
            The cases.
        y : None
            Ignored.

        Returns
        -------
        FeatureSet
            One element a case, in order.
        """
        subjects = load_dataset(X)
        return self._transform(subjects, self._fit(subjects))

    @property
    def _recipe(self) -> BankEntry:
        if self.entry is None:  # fit checks it; this is for readers and mypy
            raise ValueError("The 'entry' parameter is None; pass a BankEntry.")
        return self.entry

    def _fit(self, subjects: Sequence[Any]) -> nn.Module:
        device = resolve_device(self.device)
        network = self._recipe.load()
        case = read_case(subjects[0])
        self.random_state_: int = _seed(self.random_state)
        self.n_axes_: int = self._recipe.spatial_dims or model_spatial_dims(network) or 3
        size = self.window_size if self.window_size is not None else self._recipe.window_size
        try:
            self.window_size_: tuple[int, ...] | None = window_edges(size, self.n_axes_)
        except ExtractionError as error:
            raise ExtractionError(f"Entry {self._recipe.name!r}: {error}.") from error
        image, _ = preprocess_case(case, self._recipe, np.empty((0, 3), dtype=np.intp))
        self._check_channels(network, image, case.case_id)
        window = self._window(tuple(image.shape[1:]))[: self.n_axes_]
        with inference_ready(network, device):
            example = torch.zeros(1, image.shape[0], *window, device=device)
            names = self._recipe.layers if isinstance(self.layers, str) else self.layers
            try:
                self.layers_: list[LayerInfo] = (
                    find_decoder_layers(network, example)
                    if isinstance(names, str)
                    else describe_layers(network, list(names), example)
                )
            except BankError as error:
                raise BankError(f"Entry {self._recipe.name!r}: {error}") from error
        return network

    def _transform(self, subjects: Sequence[Any], network: nn.Module) -> FeatureSet:
        device = resolve_device(self.device)
        with inference_ready(network, device):
            names = [layer.name for layer in self.layers_]
            reader = WindowReader(network, names, self.n_axes_, device, self.batch_size)
            cases = [self._extract(reader, subject) for subject in subjects]
        self._warn_of_no_posterior(cases)
        return FeatureSet(cases, name=self._recipe.name)

    def _extract(self, reader: WindowReader, subject: Any) -> CaseFeatures:
        begun = time.perf_counter()
        case = read_case(subject)
        sample = sample_case(
            case,
            n_class_samples=self.n_class_samples,
            n_case_samples=self.n_case_samples,
            random_state=self.random_state_,
        )
        image, points = preprocess_case(case, self._recipe, sample.voxels)
        self._check_channels(reader.network, image, case.case_id)
        if self.n_axes_ == 2:  # a 2-D network sees one slice at a time
            points[:, 2] = np.round(points[:, 2])
        shape = tuple(image.shape[1:])
        plan = plan_windows(points, shape, self._window(shape), self.overlap)
        loaded = time.perf_counter()
        n_output = len(sample.labels) if self._recipe.source_head else 0
        where = f"Entry {self._recipe.name!r}, case {case.case_id!r}"
        try:
            read = reader.read(image, plan, n_output)
        except SkteError as error:
            raise ExtractionError(f"{where}: {error}.") from error
        except (Exception, SystemExit) as error:
            raise ExtractionError(
                f"{where}: the model failed on windows of {plan.window_size} with "
                f"{image.shape[0]} channels: {type(error).__name__}: {error}"
            ) from error
        info = _info(plan, loaded - begun, time.perf_counter() - loaded)
        try:
            return self._assemble(case.case_id, sample, read, info)
        except ValueError as error:
            raise ExtractionError(f"Entry {self._recipe.name!r}: {error}") from error

    def _assemble(
        self, case_id: str, sample: VoxelSample, read: dict[str, Any], info: dict[str, Any]
    ) -> CaseFeatures:
        strides = [math.prod(layer.stride) ** (1 / self.n_axes_) for layer in self.layers_]
        layers = {}
        for layer, stride in zip(self.layers_, strides, strict=True):
            share = 0.5 ** round(math.log2(stride / min(strides)))
            rows, case_rows = sample.rows(share)
            X = read[layer.name]
            layers[layer.name] = LayerSample(X[rows], sample.labels[rows], X[case_rows])
        posterior, reason = None, ""
        if OUTPUT in read:
            output = torch.from_numpy(read[OUTPUT]).double()
            try:
                probabilities = source_posterior(output, self._recipe.activation).numpy()
                posterior = LayerSample(probabilities, sample.labels, probabilities[:0])
            except ValueError as error:  # costs the scores of the head, no others
                reason = str(error)
        return CaseFeatures(case_id, layers, posterior, info, reason)

    def _warn_of_no_posterior(self, cases: Sequence[CaseFeatures]) -> None:
        without = [case for case in cases if case.no_posterior]
        if without:
            warnings.warn(
                f"Entry {self._recipe.name!r}: the source head gives no probabilities in "
                f"{len(without)} of {len(cases)} cases, so scores of it (LEEP, NCE) fail. In case "
                f"{without[0].case_id!r}, {without[0].no_posterior}.",
                SkteWarning,
                stacklevel=3,
            )

    def _window(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        if self.window_size_ is not None:
            return self.window_size_
        return (*default_window_size(shape[: self.n_axes_]), 1)[:3]

    def _check_channels(self, network: nn.Module, image: torch.Tensor, case_id: str) -> None:
        expected = self._recipe.in_channels or model_in_channels(network)
        n_channels = image.shape[0]
        if expected is not None and expected != n_channels:
            raise ExtractionError(
                f"Entry {self._recipe.name!r} takes {expected} channels, but case "
                f"{case_id!r} has {n_channels}. Leave the entry out, or give cases "
                "the channels it was trained on."
            )

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        return tags


def _seed(random_state: Any) -> int:
    if isinstance(random_state, Integral):
        return int(random_state)
    return int(check_random_state(random_state).randint(2**31 - 1))


def _info(plan: WindowPlan, load: float, forward: float) -> dict[str, Any]:
    return {
        "n_windows": len(plan.starts),
        "n_windows_planned": plan.n_planned,
        "seconds_load": load,
        "seconds_forward": forward,
    }
