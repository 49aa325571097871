"""What must be known of a model before it is run over cases: its layers and axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from skte.bank import BankEntry, LayerInfo, find_layers, model_spatial_dims
from skte.datasets import read_case
from skte.exceptions import BankError, ExtractionError
from skte.extraction._preprocess import preprocess_case
from skte.extraction._run import check_channels
from skte.extraction._settings import window_edges
from skte.extraction._taps import inference_ready
from skte.extraction._windows import default_window_size

__all__ = ["LazyNetwork", "ModelFacts", "entry_window", "examine_model"]


class ModelFacts(NamedTuple):
    """What running a model once on an example told.

    Attributes
    ----------
    layers : list of LayerInfo
        Name, stride and channels of each layer, coarse to fine.
    n_axes : {2, 3}
        Spatial axes of the network.
    """

    layers: list[LayerInfo]
    n_axes: int


class LazyNetwork:
    """A network that is loaded when it is needed first, and once.

    Parameters
    ----------
    entry : BankEntry
        Its recipe.
    """

    def __init__(self, entry: BankEntry) -> None:
        self.entry = entry
        self._network: nn.Module | None = None

    def load(self) -> nn.Module:
        """Return the network."""
        if self._network is None:
            self._network = self.entry.load()
        return self._network


def examine_model(
    lazy: LazyNetwork,
    subject: Any,
    layers: str | Sequence[str],
    window_size: Any,
    device: torch.device,
) -> ModelFacts:
    """Run a model once, on an example of the size of its windows.

    Parameters
    ----------
    lazy : LazyNetwork
        The model.
    subject : Subject
        A case of the dataset, for the size and channels of its preprocessed image.
    layers : str or sequence of str
        As the user gives them.
    window_size : int, sequence of int or None
        As the user gives it.
    device : torch.device
        Where to run.

    Returns
    -------
    ModelFacts
        Layers and axes.

    Raises
    ------
    SkteError
        If model, layers or case are unusable; the message names them.
    """
    entry, network = lazy.entry, lazy.load()
    case = read_case(subject)
    n_axes = entry.spatial_dims or model_spatial_dims(network) or 3
    size = entry_window(entry, window_size, n_axes)
    image, _ = preprocess_case(case, entry)
    check_channels(entry, network, image, case.case_id)
    window = (size or default_window_size(tuple(image.shape[1:])))[:n_axes]
    # Where only the encoder was pre-trained, no set of stages holds more than that.
    own = isinstance(layers, str) and (layers == "auto" or entry.layers == "encoder")
    names = entry.layers if own else layers
    with inference_ready(network, device):
        example = torch.zeros(1, image.shape[0], *window, device=device)
        try:
            return ModelFacts(find_layers(network, names, example), n_axes)
        except BankError as error:
            raise BankError(f"Entry {entry.name!r}: {error}") from error


def entry_window(entry: BankEntry, window_size: Any, n_axes: int) -> tuple[int, ...] | None:
    """Return the edges of a model's window: the user's, or the entry's own.

    Parameters
    ----------
    entry : BankEntry
        The model's recipe.
    window_size : int, sequence of int or None
        As the user gives it.
    n_axes : {2, 3}
        Spatial axes of the network.

    Returns
    -------
    tuple of int or None
        Three edges; None where neither names any.

    Raises
    ------
    ExtractionError
        If they are no edges of a window; it names the entry.
    """
    try:
        return window_edges(entry.window_size if window_size is None else window_size, n_axes)
    except ExtractionError as error:
        raise ExtractionError(f"Entry {entry.name!r}: {error}.") from error
