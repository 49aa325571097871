"""From a model and cases to features: windows, voxels, hooks."""

from skte.extraction._extractor import SegmentationFeatureExtractor

__all__ = ["SegmentationFeatureExtractor"]
