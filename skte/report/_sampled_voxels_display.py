"""What was compared: sampled voxels over slices of a case."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skte.datasets import Case, DatasetLike, load_dataset, read_case
from skte.estimators import CrossCaseProbe
from skte.extraction import SegmentationFeatureExtractor, VoxelSample, sampled_voxels
from skte.report._drawing import COLORS, MARKERS, plot_name, width_of

# Voxels of a slab this thick, as a share of the volume, are drawn on its middle slice.
_SLAB = 1 / 20

_MOST_COVERED = 0.1  # of a slice by markers


class SampledVoxelsDisplay:
    """Slices of a case with the voxels that features were read at.

    Slices are cut through the labelled structures, across the axis with the largest voxels, and
    oriented as radiologists view them: head or front up, patient's right at the left. Each shows
    the voxels of a thin slab around it: the sample of each class in a colour and marker of its own,
    the whole-case sample as light dots, and where classes meet a white line.

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
        foreground = (label != 0) & (label != self.case.ignore_label)
        counts = foreground.sum(axis=self._others(self.axis))
        if not counts.any():
            return [label.shape[self.axis] // 2]
        shares = np.cumsum(counts) / counts.sum()
        wanted = (np.arange(n_slices) + 0.5) / n_slices
        return sorted({int(np.searchsorted(shares, share)) for share in wanted})

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
        n_slices, ax
            As for `SampledVoxelsDisplay` and `plot`.
        """
        case = read_case(subject)
        return cls(case, sampled_voxels(extractor, case), n_slices=n_slices).plot(ax)

    def points(self, position: int) -> tuple[dict[int, NDArray[np.intp]], NDArray[np.intp]]:
        """Voxels drawn on the slice at a position along ``axis``, by class and of the whole case.

        Each array holds indices along the other two axes, shape (n_voxels, 2).
        """
        voxels, labels = self.sample.voxels, self.sample.labels
        near = np.abs(voxels[:, self.axis] - position) <= self.thickness
        plane = voxels[:, self._others(self.axis)]
        n = len(labels)
        classes = {int(k): plane[:n][near[:n] & (labels == k)] for k in np.unique(labels).tolist()}
        return classes, plane[n:][near[n:]]

    def plot(self, ax: Any = None) -> Self:
        """Draw the slices and return the display.

        Parameters
        ----------
        ax : sequence of matplotlib Axes, optional
            One per slice, or more; a new figure by default.
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
        first, second = self._others(self.axis)
        image = self.case.image[0].numpy().take(position, axis=self.axis)
        low, high = np.percentile(image, [1, 99])
        aspect = self.case.spacing[second] / self.case.spacing[first]
        ax.imshow(image.T, "gray", aspect=aspect, origin="lower", vmin=low,
                  vmax=max(high, low + 1e-9))  # fmt: skip
        label = self.case.label.numpy().take(position, axis=self.axis)
        if label.min() < label.max():
            edges = np.unique(label)
            levels = (edges[1:] + edges[:-1]) / 2
            ax.contour(label.T, levels=levels, colors="white", linewidths=0.8)
        self._draw_voxels(ax, position)
        ax.set(xticks=[], yticks=[], xlim=(-0.5, image.shape[0] - 0.5),
               ylim=(-0.5, image.shape[1] - 0.5))  # fmt: skip
        if self._grows(first) in ("R", "A", "I"):
            ax.invert_xaxis()
        if self._grows(second) in ("P", "I"):
            ax.invert_yaxis()
        ax.set_title(f"{'xyz'[self.axis]} = {position}", fontsize="small")

    def _draw_voxels(self, ax: Any, position: int) -> None:
        classes, whole = self.points(position)
        edge = {"edgecolors": "black", "linewidths": 0.2}
        share = self._share_of_area(len(whole) + sum(map(len, classes.values())))
        ax.scatter(*whole.T, 4 * share, "#F0E442", label="whole case", **edge)
        if 0 in classes:
            style = {"marker": "x", "linewidths": 0.7, "label": self._class_name(0)}
            ax.scatter(*classes[0].T, 9 * share, "#56B4E9", **style)
        colors = ("#E69F00", *COLORS[1:4], COLORS[0])
        for i, k in enumerate(k for k in classes if k != 0):
            style = {"marker": MARKERS[i % len(MARKERS)], "label": self._class_name(k)}
            ax.scatter(*classes[k].T, 12 * share, colors[i % len(colors)], **edge, **style)

    def _share_of_area(self, n_markers: int) -> float:
        """Share of their usual area that markers may have, for the image to stay visible."""
        slice_area = (3.0 * 72) ** 2 * min(1.0, self._tallness())  # in square points
        return min(1.0, _MOST_COVERED * slice_area / (10 * max(1, n_markers)))

    def _class_name(self, label: int) -> str:
        name = self.case.label_names.get(label, "background" if label == 0 else "")
        return plot_name(f"class {label}" + (f" ({name})" if name else ""), 28)


class ProbeDisplay(SampledVoxelsDisplay):
    """What a cross-case probe predicts for a case that it was not fitted on, over slices.

    Each sampled voxel has the colour of the class that the probe predicts for it: a dot where that
    is its label, a cross where it is not. White lines are the outlines of the labels.
    """

    def __init__(
        self, case: Case, sample: VoxelSample, predicted: ArrayLike, *, n_slices: int = 3
    ) -> None:
        super().__init__(case, sample, n_slices=n_slices)
        self.predicted = np.asarray(predicted)
        if len(self.predicted) != len(sample.labels):
            raise ValueError(
                f"Case {case.case_id!r} has {len(sample.labels)} voxels of classes but "
                f"{len(self.predicted)} predictions. Extract with taper=False, so that all layers "
                "hold all voxels."
            )

    @classmethod
    def from_probe(
        cls,
        probe: CrossCaseProbe,
        extractor: SegmentationFeatureExtractor,
        dataset: DatasetLike,
        shown: Sequence[int] | None = None,
    ) -> list[Self]:
        """Plot cases whose features a probe was fitted on, all or those at positions `shown`."""
        cases = [read_case(subject) for subject in load_dataset(dataset)]
        samples = [sampled_voxels(extractor, case) for case in cases]
        ends = np.cumsum([len(sample.labels) for sample in samples])
        predicted = probe.classes_[probe.predictions_.argmax(axis=1)]
        if len(predicted) != ends[-1]:
            raise ValueError(
                f"The probe was fitted on {len(predicted)} voxels, but the cases have {ends[-1]}. "
                "Use the extractor and the cases that it was fitted with, and taper=False."
            )
        parts = np.split(predicted, ends[:-1])
        chosen = range(len(cases)) if shown is None else shown
        return [cls(cases[i], samples[i], parts[i]).plot() for i in chosen]

    def _draw_voxels(self, ax: Any, position: int) -> None:
        voxels, labels = self.sample.voxels[: len(self.predicted)], self.sample.labels
        near = np.abs(voxels[:, self.axis] - position) <= self.thickness
        plane = voxels[:, self._others(self.axis)]
        colors = ("#56B4E9", "#E69F00", *COLORS[1:4], COLORS[0])
        area = 10 * self._share_of_area(int(near.sum()))
        for i, k in enumerate(np.unique([*labels, *self.predicted]).tolist()):
            for right, marker in ((True, "o"), (False, "x")):
                at = near & (self.predicted == k) & ((labels == k) == right)
                name = f"{self._class_name(int(k))}: {'right' if right else 'wrong'}"
                if at.any():
                    style = {"marker": marker, "linewidths": 0.7 if marker == "x" else 0}
                    ax.scatter(*plane[at].T, area, colors[i % len(colors)], label=name, **style)
