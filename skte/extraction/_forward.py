"""Running a network over the windows of one case and reading its layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from skte.exceptions import ExtractionError
from skte.extraction._all_voxels import LabelBox, MomentAccumulator
from skte.extraction._taps import Taps, first_tensor, gather_points
from skte.extraction._windows import WindowPlan
from skte.features import ClassMoments

__all__ = ["OUTPUT", "Reading", "WindowReader"]

#: Key of the network's own output beside its layers.
OUTPUT = ""


class Reading(NamedTuple):
    """What was read of one case, by layer.

    Attributes
    ----------
    features : dict of str to ndarray of shape (n_points, n_channels)
        Rows in the order of the points.
    moments : dict of str to ClassMoments
        Of all labelled voxels, where they were asked for.
    seconds : float
        Spent reading layers, within the forward passes.
    """

    features: dict[str, NDArray[np.float32]]
    moments: dict[str, ClassMoments]
    seconds: float


@dataclass(frozen=True, eq=False)
class WindowReader:
    """Reads layers of a network at the points of a window plan.

    Parameters
    ----------
    network : nn.Module
        Ready for inference, on `device`.
    layers : sequence of str
        Module names, as in ``named_modules()``.
    n_axes : {2, 3}
        Spatial axes of the network. A 2-D network gets windows of depth one.
    device : torch.device
        Where the network is.
    batch_size : int
        Windows in one forward pass.
    """

    network: nn.Module
    layers: Sequence[str]
    n_axes: int
    device: torch.device
    batch_size: int

    def read(
        self,
        image: torch.Tensor,
        plan: WindowPlan,
        n_output: int | None,
        boxes: Sequence[LabelBox | None] | None = None,
    ) -> Reading:
        """Features at every point of the plan, and moments of all labelled voxels.

        Parameters
        ----------
        image : Tensor of shape (n_channels, x, y, z)
            The preprocessed image, unpadded.
        plan : WindowPlan
            Windows and the points they own.
        n_output : int
            The first so many points are read from the network's output as well
            (key ``OUTPUT``); None where it has no source head. The key is missing
            when the output is not a map over the window.
        boxes : sequence of LabelBox or None, optional
            The labelled voxels that each window of the plan owns.

        Returns
        -------
        Reading
            One array a layer, rows in the order of the points; moments with `boxes`.
        """
        pads = [edge for pair in reversed(plan.padding) for edge in pair]
        if any(pads):
            image = functional.pad(image, pads)
        n_points = len(plan.positions)
        results: dict[str, NDArray[np.float32]] = {}
        moments: dict[str, ClassMoments] = {}
        batch = range(0)

        def take(name: str, output: Any) -> tuple[list[torch.Tensor] | str, list[ClassMoments]]:
            values = self._take(output, plan, batch, n_points)
            if boxes is None or isinstance(values, str):
                return values, []
            return values, [
                _moments_of(name, one, box)
                for one, box in zip(output, boxes[batch.start : batch.stop], strict=True)
                if box is not None
            ]

        taps = Taps(self.network, self.layers, take, stop=n_output is None)
        for batch in plan.batches(self.batch_size):
            whole = first_tensor(taps.run(self._windows(image, plan, batch)))
            for name in self.layers:
                values, parts = self._checked(taps.taken, name)
                self._store(results, name, values, plan, batch, n_points)
                for part in parts:
                    moments[name] = moments[name].merge(part) if name in moments else part
            if n_output is not None:
                head = self._take(whole, plan, batch, n_output)
                if isinstance(head, str):  # no map over the windows: no class map
                    n_output = None
                    results.pop(OUTPUT, None)
                else:
                    self._store(results, OUTPUT, head, plan, batch, n_output)
        return Reading(results, moments, taps.seconds)

    def _windows(self, image: torch.Tensor, plan: WindowPlan, batch: range) -> torch.Tensor:
        crops = []
        for start in plan.starts[batch.start : batch.stop]:
            x, y, z = (slice(a, a + w) for a, w in zip(start, plan.window_size, strict=True))
            crop = image[:, x, y, z]
            crops.append(crop[..., 0] if self.n_axes == 2 else crop)
        return torch.stack(crops).to(self.device)

    def _take(
        self, output: object, plan: WindowPlan, batch: range, n_points: int
    ) -> list[torch.Tensor] | str:
        """Features at the points of each window, or why there are none."""
        if not isinstance(output, torch.Tensor):
            return (
                f"returns a {type(output).__name__}, not a tensor; choose a module inside it, or "
                "the one after it"
            )
        if output.ndim != self.n_axes + 2:
            return (
                f"returns shape {tuple(output.shape)}, not a feature map of {self.n_axes} "
                "spatial axes; choose a convolutional layer"
            )
        if len(output) != len(batch):
            return (
                f"returns shape {tuple(output.shape)} for a batch of {len(batch)} windows; "
                "choose a layer that keeps them apart, or batch_size=1"
            )
        size = plan.window_size[: self.n_axes]
        values = []
        for window, one in zip(batch, output, strict=True):
            points = _owned(plan, window, n_points)
            at = (plan.positions[points] - plan.starts[window])[:, : self.n_axes]
            values.append(gather_points(one, at, size))
        return values

    def _checked(
        self, taken: dict[str, Any], name: str
    ) -> tuple[list[torch.Tensor], list[ClassMoments]]:
        if name not in taken:
            raise ExtractionError(
                f"layer {name!r} did not run in the forward pass; choose another layer"
            )
        values, moments = taken[name]
        if isinstance(values, str):
            raise ExtractionError(f"layer {name!r} {values}")
        return values, moments

    def _store(
        self,
        results: dict[str, NDArray[np.float32]],
        name: str,
        values: Sequence[torch.Tensor],
        plan: WindowPlan,
        batch: range,
        n_points: int,
    ) -> None:
        for window, one in zip(batch, values, strict=True):
            n_channels = one.shape[1]
            if name not in results:
                results[name] = np.empty((n_points, n_channels), dtype=np.float32)
            rows = results[name]
            if n_channels != rows.shape[1]:
                raise ExtractionError(
                    f"{f'layer {name!r}' if name else 'the output'} has {n_channels} channels in "
                    f"one window and {rows.shape[1]} in another; choose another layer"
                )
            rows[_owned(plan, window, n_points)] = one.float().cpu().numpy()


def _moments_of(name: str, feature: torch.Tensor, box: LabelBox) -> ClassMoments:
    """Moments of one window's voxels, made while the layer returns."""
    accumulator = MomentAccumulator([name])
    accumulator.add(name, feature, box)
    return accumulator.moments(name)


def _owned(plan: WindowPlan, window: int, n_points: int) -> NDArray[np.intp]:
    points = plan.owned[window]
    return points[points < n_points]
