"""From a model and cases to features: windows, voxels, hooks."""

from skte.extraction._extractor import SegmentationFeatureExtractor
from skte.extraction._settings import resolve_device

__all__ = ["SegmentationFeatureExtractor", "resolve_device"]
