"""What was compared: sampled voxels over slices of a case."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from skte.datasets import Case, read_case
from skte.extraction import SegmentationFeatureExtractor, VoxelSample, sampled_voxels
from skte.report._drawing import COLORS, MARKERS, plot_name, width_of

__all__ = ["SampledVoxelsDisplay"]

# Voxels of a slab this thick, as a share of the volume, are drawn on its middle slice.
_SLAB = 1 / 20


class SampledVoxelsDisplay:
    """Slices of a case with the voxels that features were read at.

    Slices are cut through the labelled structures, across the axis with the largest voxels.
    Each shows the voxels of a thin slab around it: the sample of each class in a colour and
    marker of its own, the whole-case sample as light dots, and where classes meet a white line.
    Slices are oriented as radiologists view them: head or front up, patient's right at the left.

    Parameters
    ----------
    case : Case
        Image and label map.
    sample : VoxelSample
        The voxels.
    n_slices : int, default=3
        At most; a 2-D case has one.

    Attributes
    ----------
    axis, slices : int, list of int
        The axis across which slices are cut, and their positions along it, increasing.
    thickness : int
        A voxel is drawn on slices at most this many voxels away.
    ax_, figure_ : list of matplotlib Axes, and Figure
        One pair of axes per slice; set by `plot`.

    Examples
    --------
    >>> from skte import SegmentationFeatureExtractor
    >>> from skte.datasets import make_phantoms
    >>> from skte.report import SampledVoxelsDisplay
    >>> cases = make_phantoms(1, size=(24, 24, 12), spacing=(1, 1, 3))
    >>> display = SampledVoxelsDisplay.from_case(SegmentationFeatureExtractor(), cases[0])
    >>> display.axis, len(display.ax_)
    (2, 3)
    """

    def __init__(self, case: Case, sample: VoxelSample, *, n_slices: int = 3) -> None:
        if n_slices < 1:
            raise ValueError(f"n_slices must be at least 1, got {n_slices!r}.")
        self.case = case
        self.sample = sample
        shape = case.label.shape
        # The last axis wins ties: z is across in most scans.
        thick = [s if n > 1 else -1.0 for s, n in zip(case.spacing, shape, strict=True)]
        flat = [i for i, n in enumerate(shape) if n == 1]
        self.axis: int = flat[-1] if flat else max(range(3), key=lambda i: (round(thick[i], 3), i))
        self.slices: list[int] = self._choose(n_slices)
        self.thickness: int = int(shape[self.axis] * _SLAB / 2)

    def _choose(self, n_slices: int) -> list[int]:
        """Middles of parts of the structures with equally many labelled voxels."""
        label = self.case.label.numpy()
        at = np.flatnonzero(self._foreground(label).sum(axis=self._others(self.axis)))
        if len(at) == 0:
            return [label.shape[self.axis] // 2]
        counts = self._foreground(label).sum(axis=self._others(self.axis))
        shares = np.cumsum(counts) / counts.sum()
        wanted = (np.arange(n_slices) + 0.5) / n_slices
        return sorted({int(np.searchsorted(shares, share)) for share in wanted})

    def _foreground(self, label: NDArray[np.int64]) -> NDArray[np.bool_]:
        chosen = label != 0
        if self.case.ignore_label is not None:
            chosen &= label != self.case.ignore_label
        return np.asarray(chosen)

    def _tallness(self) -> float:
        """Height of a slice over its width, within what a page can show."""
        first, second = self._others(self.axis)
        mm = np.multiply(self.case.spacing, self.case.label.shape)
        return float(np.clip(mm[second] / mm[first], 0.2, 2.0))

    def _grows(self, axis: int) -> str:
        """Where in the patient an axis of the array leads to, as a letter."""
        direction = self.case.affine[:3, axis]
        world = int(np.abs(direction).argmax())
        return ("RAS" if direction[world] > 0 else "LPI")[world]

    @staticmethod
    def _others(axis: int) -> tuple[int, int]:
        first, second = (i for i in range(3) if i != axis)
        return first, second

    @classmethod
    def from_case(
        cls,
        extractor: SegmentationFeatureExtractor,
        subject: Any,
        *,
        n_slices: int = 3,
        ax: Any = None,
    ) -> Self:
        """Read a case, draw its sample and plot both.

        Parameters
        ----------
        extractor : SegmentationFeatureExtractor
            Whose voxels are shown; see `skte.extraction.sampled_voxels`.
        subject : Subject
            The case.
        n_slices : int, default=3
            At most this many slices.
        ax : sequence of matplotlib Axes, optional
            One per slice; a new figure by default.

        Returns
        -------
        Self
            Plotted.
        """
        case = read_case(subject)
        return cls(case, sampled_voxels(extractor, case), n_slices=n_slices).plot(ax)

    def points(self, position: int) -> tuple[dict[int, NDArray[np.intp]], NDArray[np.intp]]:
        """Voxels drawn on the slice at a position along ``axis``.

        Returns
        -------
        classes : dict of int to ndarray of shape (n_voxels, 2)
            Of each class's sample, indices along the other two axes.
        whole : ndarray of shape (n_voxels, 2)
            Of the whole-case sample.
        """
        voxels, labels = self.sample.voxels, self.sample.labels
        near = np.abs(voxels[:, self.axis] - position) <= self.thickness
        plane = voxels[:, self._others(self.axis)]
        n = len(labels)
        classes = {int(k): plane[:n][near[:n] & (labels == k)] for k in np.unique(labels).tolist()}
        return classes, plane[n:][near[n:]]

    def plot(self, ax: Any = None) -> Self:
        """Draw the slices.

        Parameters
        ----------
        ax : sequence of matplotlib Axes, optional
            One per slice, or more; a new figure by default.

        Returns
        -------
        Self
            This display, with ``ax_`` and ``figure_``.
        """
        figure = None
        if ax is None:
            from matplotlib.figure import Figure

            size = (0.4 + 3.0 * len(self.slices), 0.6 + 3.0 * self._tallness())
            figure = Figure(figsize=size, layout="constrained")
            axes = list(figure.subplots(1, len(self.slices), squeeze=False)[0])
        else:
            axes = list(np.atleast_1d(ax))
        if len(axes) < len(self.slices):
            raise ValueError(f"{len(self.slices)} slices need as many axes, got {len(axes)}.")
        for one, position in zip(axes, self.slices, strict=False):
            self._draw(one, position)
        handles = {
            text: handle
            for one in axes
            for handle, text in zip(*one.get_legend_handles_labels(), strict=True)
        }
        self.ax_, self.figure_ = axes, axes[0].figure
        if handles:
            width, height = self.figure_.get_size_inches()
            n_columns = int(np.clip(width // (0.5 + width_of(handles)), 1, 4))
            self.figure_.legend(
                handles.values(), handles, loc="outside lower center", ncols=n_columns,
                fontsize="small", frameon=False, markerscale=2.5,
            )  # fmt: skip
            if figure is not None:  # slices stay as large
                figure.set_size_inches(width, height + 0.2 * ((len(handles) - 1) // n_columns))
        return self

    def _draw(self, ax: Any, position: int) -> None:
        image = self.case.image[0].numpy().take(position, axis=self.axis)
        label = self.case.label.numpy().take(position, axis=self.axis)
        low, high = np.percentile(image, [1, 99])
        first, second = self._others(self.axis)
        aspect = self.case.spacing[second] / self.case.spacing[first]
        ax.imshow(image.T, "gray", aspect=aspect, origin="lower", vmin=low,
                  vmax=max(high, low + 1e-9))  # fmt: skip
        if label.min() < label.max():
            edges = np.unique(label)
            levels = (edges[1:] + edges[:-1]) / 2
            ax.contour(label.T, levels=levels, colors="white", linewidths=0.8)
        classes, whole = self.points(position)
        edge = {"edgecolors": "black", "linewidths": 0.2}
        ax.scatter(*whole.T, 4, "#F0E442", label="whole case", **edge)
        if 0 in classes:
            style = {"marker": "x", "linewidths": 0.7, "label": self._class_name(0)}
            ax.scatter(*classes[0].T, 9, "#56B4E9", **style)
        colors = ("#E69F00", *COLORS[1:4], COLORS[0])
        for i, k in enumerate(k for k in classes if k != 0):
            style = {"marker": MARKERS[i % len(MARKERS)], "label": self._class_name(k)}
            ax.scatter(*classes[k].T, 12, colors[i % len(colors)], **edge, **style)
        ax.set(xticks=[], yticks=[], xlim=(-0.5, image.shape[0] - 0.5),
               ylim=(-0.5, image.shape[1] - 0.5))  # fmt: skip
        if self._grows(first) in ("R", "A", "I"):
            ax.invert_xaxis()
        if self._grows(second) in ("P", "I"):
            ax.invert_yaxis()
        ax.set_title(f"{'xyz'[self.axis]} = {position}", fontsize="small")

    def _class_name(self, label: int) -> str:
        name = self.case.label_names.get(label, "background" if label == 0 else "")
        return plot_name(f"class {label}" + (f" ({name})" if name else ""), 28)
