"""From a model and cases to features: windows, voxels, hooks."""

from skte.extraction._cache import FeatureCache
from skte.extraction._cache_entries import make_key
from skte.extraction._extractor import SegmentationFeatureExtractor
from skte.extraction._prepare import CaseStore
from skte.extraction._sampled_voxels import sampled_voxels
from skte.extraction._sampler import VoxelSample
from skte.extraction._settings import resolve_device

__all__ = [
    "CaseStore",
    "FeatureCache",
    "SegmentationFeatureExtractor",
    "VoxelSample",
    "make_key",
    "resolve_device",
    "sampled_voxels",
]
