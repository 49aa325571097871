"""From a model and cases to labelled features at sampled voxels."""

from __future__ import annotations

import functools
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from contextvars import ContextVar
from dataclasses import asdict
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.utils import Tags, check_random_state
from sklearn.utils.validation import check_is_fitted
from torch import nn

from skte._isolation import isolated
from skte._registry import LAYER_SETS
from skte._sklearn import Interval, StrOptions, fit_context
from skte.bank import BankEntry, LayerInfo
from skte.datasets import Case, DatasetLike, load_dataset
from skte.exceptions import GuessedLayersWarning, SkteWarning
from skte.extraction._cache import CaseCache, FeatureCache
from skte.extraction._prepare import CaseStore, PreparedCase, ahead, prepare_case
from skte.extraction._reader import inference_ready
from skte.extraction._runner import (
    CaseRunner,
    entry_window,
    examine_model,
    label_window,
    memory_kept,
    resolve_device,
    whole_float32,
)
from skte.extraction._sampler import SamplePlan, VoxelSample
from skte.features import FeatureSet

Watcher = Callable[[str, int, int], None]
_watcher: ContextVar[Watcher | None] = ContextVar("skte_progress", default=None)


@contextmanager
def watch_progress(watcher: Watcher) -> Iterator[None]:
    """Have a function called for every case that is done."""
    token = _watcher.set(watcher)
    try:
        yield
    finally:
        _watcher.reset(token)


def tell_progress(model: str, n_done: int, n_cases: int) -> None:
    """Tell whoever watches that a case is done."""
    watcher = _watcher.get()
    if watcher is not None:
        watcher(model, n_done, n_cases)


class SegmentationFeatureExtractor(  # type: ignore[call-arg]
    TransformerMixin, BaseEstimator, auto_wrap_output_keys=None
):
    """Sample decoder features of a segmentation network, case by case.

    A window slides over each case; the outputs of layers are read at sampled voxels only. The
    voxels depend on ``random_state``, case id and label alone, so all models are compared at
    the same places.

    Parameters
    ----------
    entry : BankEntry
        The model's recipe, ``BankEntry.from_module(name, network)`` for a network
        at hand.
    layers : str or sequence of str, default="auto"
        Names of modules, as in ``network.named_modules()``, coarse to fine; or "auto", the
        entry's layers or else the decoder's stages; or, for entries that name none, a set of
        stages: "decoder", "encoder" (with the bottleneck), "all" or "bottleneck+decoder".
    window_size : int or tuple of int, optional
        Edges of the window in voxels (of the preprocessed image). Default: the
        entry's, or else one fitted to the volume, at most 96.
    overlap : float, default=0.375
        Share of a window's edge that neighbours share, in [0, 1). A grid of windows lies over the
        sampled voxels. Each belongs to the window in which it lies deepest, about ``overlap / 2``
        of the edge or more from its faces unless the volume ends there; windows that own none are
        not run.
    samples : {"all", "roi", "foreground"}, default="all"
        "all": voxels of every class and of the whole case, which `CCFV` (unless it has
        ``feature_variety=False``) and `RankMe` need. "roi": voxels of every class, those of class
        0 from the region of interest: the box around all other classes, as large as the windows
        (`window_size`, or one fitted to the label map) that it takes anyway. "foreground": voxels
        of the other classes only. Voxels of those are the same with all three.
    source_head : bool, default=True
        Whether to read the source head's probabilities, which `LEEP` and `NCE` need.
        Without, passes end after the last layer.
    n_class_samples : int, default=500
        Most voxels of one class in one case. A class gives a quarter of its
        voxels, but no fewer than 50 (or all it has) and no more than this.
    n_case_samples : int, default=500
        Voxels of the whole-case sample.
    taper : bool, default=True
        Whether layers near the bottleneck keep a prefix of the sample: half as many voxels for
        every doubling of the stride, but at least 50 of a class. Scores that look at all
        layers at once (`CrossCaseProbe`) need False.
    batch_size : int, default=1
        Windows in one forward pass. It changes the time only.
    device : str or torch.device, optional
        Default: CUDA where there is one, else the CPU.
    cache : path-like or FeatureCache, optional
        Folder where features are kept, by the content of model and case and by settings.
    random_state : int, RandomState instance or None, default=0
        Seed of the voxels.

    Attributes
    ----------
    layers_ : list of LayerInfo
        Name, stride, channels and certainty of each layer, coarse to fine.
    layers_certainty_ : {"known", "checked", "guess"}
        That of the least certain layer. Of a "guess" a `GuessedLayersWarning` tells.
    window_size_ : tuple of int or None
        Edges of the window; None when it is fitted to each volume.
    n_axes_ : int
        Spatial axes of the network, 2 or 3.
    n_parameters_ : int
        Parameters of the network.
    random_state_ : int
        The seed in use.

    See Also
    --------
    ModelBankSelector : Extracts and scores a whole bank.

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
        "layers": [StrOptions({"auto", *LAYER_SETS}), "array-like"],
        "window_size": [Interval(Integral, 1, None, closed="left"), "array-like", None],
        "overlap": [Interval(Real, 0, 1, closed="left")],
        "samples": [StrOptions({"all", "roi", "foreground"})],
        "source_head": ["boolean"],
        "n_class_samples": [Interval(Integral, 1, None, closed="left")],
        "n_case_samples": [Interval(Integral, 1, None, closed="left")],
        "taper": ["boolean"],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "device": [str, torch.device, None],
        "cache": [str, os.PathLike, FeatureCache, None],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        entry: BankEntry | None = None,
        *,
        layers: str | Sequence[str] = "auto",
        window_size: int | Sequence[int] | None = None,
        overlap: float = 0.375,
        samples: str = "all",
        source_head: bool = True,
        n_class_samples: int = 500,
        n_case_samples: int = 500,
        taper: bool = True,
        batch_size: int = 1,
        device: str | torch.device | None = None,
        cache: str | os.PathLike[str] | FeatureCache | None = None,
        random_state: int | np.random.RandomState | None = 0,
    ) -> None:
        self.entry = entry
        self.layers = layers
        self.window_size = window_size
        self.overlap = overlap
        self.samples = samples
        self.source_head = source_head
        self.n_class_samples = n_class_samples
        self.n_case_samples = n_case_samples
        self.taper = taper
        self.batch_size = batch_size
        self.device = device
        self.cache = cache
        self.random_state = random_state

    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: DatasetLike, y: None = None) -> Self:
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
            Without the network.

        Raises
        ------
        SkteError
            If model, layers or cases are unusable; the message names them.
        """
        subjects = self._prepare_fit(X)
        with isolated(self._recipe.name):
            self._fit(subjects, self._recipe.load, CaseStore(0))
        return self

    def transform(self, X: DatasetLike) -> FeatureSet:
        """Extract the features of every case.

        Parameters
        ----------
        X
            As for `fit`.

        Returns
        -------
        FeatureSet
            One element per case, in order.
        """
        check_is_fitted(self, "layers_")
        subjects = load_dataset(X)
        with isolated(self._recipe.name):
            return self._transform(subjects, self._recipe.load, CaseStore(0))

    @fit_context(prefer_skip_nested_validation=True)
    def fit_transform(self, X: DatasetLike, y: None = None) -> FeatureSet:
        """Fit and extract, loading the model once; see `fit` and `transform`."""
        return self.extract(X, CaseStore(0))

    def extract(self, X: DatasetLike, store: CaseStore) -> FeatureSet:
        """Do what `fit_transform` does, with cases that an extractor of another model prepared."""
        self._validate_params()
        subjects, load = self._prepare_fit(X), functools.cache(self._recipe.load)
        with isolated(self._recipe.name):
            self._fit(subjects, load, store)
            return self._transform(subjects, load, store)

    def _validate_params(self) -> None:
        if isinstance(self.entry, nn.Module):  # the general message would print all of it
            raise TypeError(
                "entry is a network; give BankEntry.from_module(name, network), which clones "
                "without a copy of the weights."
            )
        super()._validate_params()

    @property
    def _recipe(self) -> BankEntry:
        if self.entry is None:  # fit checks it; this is for readers and mypy
            raise ValueError("The 'entry' parameter is None; pass a BankEntry.")
        return self.entry

    def _prepare_fit(self, X: DatasetLike) -> Sequence[Any]:
        """Do what comes before the model's code: what is drawn here must not be drawn again."""
        subjects = load_dataset(X)
        self.random_state_: int = draw_seed(self.random_state)
        return subjects

    def _fit(
        self, subjects: Sequence[Any], load: Callable[[], nn.Module], store: CaseStore
    ) -> None:
        cache = self._case_cache()
        facts = cache.load_facts(subjects[0])
        if facts is None:
            network, device = load(), resolve_device(self.device)
            case = self._prepare(store)(0, subjects[0])
            facts = examine_model(
                self._recipe, network, case, self.layers, self.window_size, device
            )
            cache.store_facts(subjects[0], facts)
        self.layers_: list[LayerInfo] = facts.layers
        self.n_axes_: int = facts.n_axes
        self.n_parameters_: int = facts.n_parameters
        self._output = facts.output
        if facts.on_slice:
            warnings.warn(
                f"Entry {self._recipe.name!r}: a 3-D network runs on 2-D images of one slice, "
                "which it was not trained on.",
                SkteWarning,
                stacklevel=3,
            )
        self._warn_of_guesses()
        self.window_size_: tuple[int, ...] | None = entry_window(
            self._recipe, self.window_size, self.n_axes_
        )

    def _transform(
        self, subjects: Sequence[Any], load: Callable[[], nn.Module], store: CaseStore
    ) -> FeatureSet:
        cache = self._case_cache()
        cases = [cache.load(subject) for subject in subjects]
        missing = [i for i, case in enumerate(cases) if case is None]
        if missing:
            network, device = load(), resolve_device(self.device)
            runner = self._runner(network, device)
            prepare = self._prepare(store)
            with (
                memory_kept(device),
                whole_float32(device),
                inference_ready(network, device),
                # Closed at once, not when memory is collected: it owns a thread.
                closing(ahead(prepare, [(i, subjects[i]) for i in missing])) as prepared,
            ):
                for i, (case, waited) in zip(missing, prepared, strict=True):
                    features = runner.run(case, waited)
                    cache.store(subjects[i], features)
                    cases[i] = features
                    n_done = sum(case is not None for case in cases)
                    tell_progress(self._recipe.name, n_done, len(cases))
        return FeatureSet([c for c in cases if c is not None], name=self._recipe.name)

    def _prepare(self, store: CaseStore) -> Callable[[int, Any], PreparedCase]:
        return functools.partial(
            prepare_case, entry=self._recipe, plan=self._sample_plan(), store=store
        )

    def _runner(self, network: nn.Module, device: torch.device) -> CaseRunner:
        return CaseRunner(
            entry=self._recipe,
            network=network,
            layers=self.layers_,
            n_axes=self.n_axes_,
            device=device,
            batch_size=self.batch_size,
            window_size=self.window_size_,
            overlap=self.overlap,
            output=self._output,
            source_head=self.source_head and self._recipe.source_head,
            taper=self.taper,
        )

    def _case_cache(self) -> CaseCache:
        layers, size = self.layers, self.window_size
        settings = {
            **asdict(self._sample_plan()),
            "layers": layers if isinstance(layers, str) else [str(name) for name in layers],
            # As JSON can hold it: arrays become lists of numbers.
            "window_size": size if isinstance(size, Integral | None) else np.asarray(size).tolist(),
            "source_head": self.source_head,
            "taper": self.taper,
        }
        return CaseCache(self.cache, self._recipe, settings)

    def _sample_plan(self) -> SamplePlan:
        return SamplePlan(
            n_class_samples=self.n_class_samples,
            n_case_samples=self.n_case_samples,
            samples=self.samples,
            random_state=self.random_state_,
            overlap=self.overlap,
            roi_window=label_window(self.window_size) if self.samples == "roi" else None,
        )

    @property
    def layers_certainty_(self) -> str:
        """That of the least certain layer."""
        check_is_fitted(self, "layers_")
        return max((a.certainty for a in self.layers_), key=("known", "checked", "guess").index)

    def _warn_of_guesses(self) -> None:
        guessed = [layer.name for layer in self.layers_ if layer.certainty == "guess"]
        if guessed:
            few = ", ".join(map(repr, guessed[:3])) + (", ..." if len(guessed) > 3 else "")
            warnings.warn(
                f"Entry {self._recipe.name!r}: it is not certain that {few} are maps of the image: "
                "where the image changes, they do not. Look at them with skte inspect, and name "
                "others with layers=[...] in the entry.",
                GuessedLayersWarning,
                stacklevel=3,
            )

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        return tags


def draw_seed(random_state: int | np.random.RandomState | None) -> int:
    """Return a seed, drawn once where a generator or None is given."""
    if isinstance(random_state, Integral):
        return int(random_state)
    return int(check_random_state(random_state).randint(2**31 - 1))


def sampled_voxels(extractor: SegmentationFeatureExtractor, case: Case) -> VoxelSample:
    """Draw the voxels of a case that an extractor reads features at.

    Parameters
    ----------
    extractor : SegmentationFeatureExtractor
        Fitted or not.
    case : Case
        As `skte.datasets.read_case` returns it.

    Returns
    -------
    VoxelSample
        The finest layers use all voxels, layers near the bottleneck ``sample.rows(share)``.

    Raises
    ------
    ValueError
        If the extractor is not fitted and its ``random_state`` is not a number: the voxels are
        then decided at fit.

    Examples
    --------
    >>> from skte import SegmentationFeatureExtractor
    >>> from skte.datasets import make_phantoms, read_case
    >>> from skte.extraction import sampled_voxels
    >>> case = read_case(make_phantoms(1, size=(16, 16, 16))[0])
    >>> extractor = SegmentationFeatureExtractor(n_class_samples=60, n_case_samples=40)
    >>> sample = sampled_voxels(extractor, case)
    >>> x, y, z = sample.voxels[: len(sample.labels)].T
    >>> bool((case.label.numpy()[x, y, z] == sample.labels).all())
    True
    """
    if not hasattr(extractor, "random_state_"):
        seed = extractor.random_state
        if not isinstance(seed, Integral):
            raise ValueError(
                f"The extractor is not fitted and has random_state={seed!r}, so its voxels are not "
                "decided yet: give an integer, or fit it first."
            )
        extractor = clone(extractor)
        extractor.random_state_ = int(seed)
    return extractor._sample_plan().draw(case)
