"""From a model and cases to features: windows, voxels, hooks."""

from skte.extraction._cache import FeatureCache
from skte.extraction._cache_files import make_key
from skte.extraction._extractor import SegmentationFeatureExtractor, sampled_voxels
from skte.extraction._model import resolve_device
from skte.extraction._prepare import CaseStore
from skte.extraction._progress import tell_progress, watch_progress
from skte.extraction._sampler import VoxelSample

__all__ = [
    "CaseStore",
    "FeatureCache",
    "SegmentationFeatureExtractor",
    "VoxelSample",
    "make_key",
    "resolve_device",
    "sampled_voxels",
    "tell_progress",
    "watch_progress",
]
