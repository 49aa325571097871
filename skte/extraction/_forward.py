"""Running a network over the windows of one case and reading its layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from skte.exceptions import ExtractionError
from skte.extraction._taps import capture_outputs, first_tensor, gather_points
from skte.extraction._windows import WindowPlan

__all__ = ["OUTPUT", "WindowReader"]

#: Key of the network's own output beside its layers.
OUTPUT = ""


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
        self, image: torch.Tensor, plan: WindowPlan, n_output: int
    ) -> dict[str, NDArray[np.float32]]:
        """Features at every point of the plan.

        Parameters
        ----------
        image : Tensor of shape (n_channels, x, y, z)
            The preprocessed image, unpadded.
        plan : WindowPlan
            Windows and the points they own.
        n_output : int
            The first so many points are read from the network's output as well
            (key ``OUTPUT``); 0 where it has no source head. The key is missing
            when the output is not a map over the window.

        Returns
        -------
        dict of str to ndarray of shape (n_points, n_channels)
            One array a layer, rows in the order of the points.
        """
        pads = [edge for pair in reversed(plan.padding) for edge in pair]
        image = functional.pad(image, pads)
        results: dict[str, NDArray[np.float32]] = {}
        n_points = len(plan.positions)
        with capture_outputs(self.network, self.layers) as outputs:
            for batch in plan.batches(self.batch_size):
                outputs.clear()
                whole = first_tensor(self.network(self._windows(image, plan, batch)))
                for name in self.layers:
                    feature = self._checked(outputs, name)
                    self._read_batch(results, name, feature, plan, batch, n_points)
                if n_output and self._is_map(whole):
                    self._read_batch(results, OUTPUT, whole, plan, batch, n_output)
        return results

    def _windows(self, image: torch.Tensor, plan: WindowPlan, batch: range) -> torch.Tensor:
        crops = []
        for start in plan.starts[batch.start : batch.stop]:
            x, y, z = (slice(a, a + w) for a, w in zip(start, plan.window_size, strict=True))
            crop = image[:, x, y, z]
            crops.append(crop[..., 0] if self.n_axes == 2 else crop)
        return torch.stack(crops).to(self.device)

    def _checked(self, outputs: dict[str, object], name: str) -> torch.Tensor:
        if name not in outputs:
            raise ExtractionError(
                f"layer {name!r} did not run in the forward pass; choose another layer"
            )
        feature = outputs[name]
        if not isinstance(feature, torch.Tensor):
            raise ExtractionError(
                f"layer {name!r} returns a {type(feature).__name__}, not a tensor; choose a "
                "module inside it, or the one after it"
            )
        if feature.ndim != self.n_axes + 2:
            raise ExtractionError(
                f"layer {name!r} returns shape {tuple(feature.shape)}, not a feature map of "
                f"{self.n_axes} spatial axes; choose a convolutional layer"
            )
        return feature

    def _is_map(self, output: torch.Tensor | None) -> bool:
        return output is not None and output.ndim == self.n_axes + 2

    def _read_batch(
        self,
        results: dict[str, NDArray[np.float32]],
        name: str,
        feature: torch.Tensor | None,
        plan: WindowPlan,
        batch: range,
        n_points: int,
    ) -> None:
        assert feature is not None
        if name not in results:
            results[name] = np.empty((n_points, feature.shape[1]), dtype=np.float32)
        for window, one in zip(batch, feature, strict=True):
            points = plan.owned[window]
            points = points[points < n_points]
            if len(points):
                at = (plan.positions[points] - plan.starts[window])[:, : self.n_axes]
                values = gather_points(one, at, plan.window_size[: self.n_axes])
                results[name][points] = values.float().cpu().numpy()
