"""From a model and cases to features: windows, voxels, hooks."""

from skte.extraction._cache import FeatureCache
from skte.extraction._cache_files import make_key as make_key
from skte.extraction._extractor import SegmentationFeatureExtractor, sampled_voxels
from skte.extraction._extractor import draw_seed as draw_seed
from skte.extraction._extractor import tell_progress as tell_progress
from skte.extraction._extractor import watch_progress as watch_progress
from skte.extraction._prepare import CaseStore as CaseStore
from skte.extraction._runner import resolve_device as resolve_device
from skte.extraction._sampler import VoxelSample

__all__ = ["FeatureCache", "SegmentationFeatureExtractor", "VoxelSample", "sampled_voxels"]
