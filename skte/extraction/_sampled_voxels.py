"""Which voxels an extractor looks at, without running a model."""

from __future__ import annotations

from numbers import Integral

from sklearn.base import clone

from skte.datasets import Case
from skte.extraction._extractor import SegmentationFeatureExtractor
from skte.extraction._sampler import VoxelSample

__all__ = ["sampled_voxels"]


def sampled_voxels(extractor: SegmentationFeatureExtractor, case: Case) -> VoxelSample:
    """Draw the voxels of a case that an extractor reads features at.

    Parameters
    ----------
    extractor : SegmentationFeatureExtractor
        Fitted or not; with ``max_windows`` it needs its entry or ``cell_size``.
    case : Case
        As `skte.datasets.read_case` returns it.

    Returns
    -------
    VoxelSample
        ``voxels``, indices into the label map, shape (n_voxels, 3): first the class sample,
        whose labels are ``labels``, then the whole-case sample. The finest layers use all of
        them, layers near the bottleneck ``sample.rows(share)``.

    Raises
    ------
    ValueError
        If the extractor is not fitted and its ``random_state`` is no number: the voxels are
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
