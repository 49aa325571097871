"""The contract between extraction and estimators: labelled features by case."""

from skte.features._moments import ClassMoments as ClassMoments
from skte.features._set import CaseFeatures, FeatureBlock, FeatureSet, LayerSample
from skte.features._storage import pack_case as pack_case
from skte.features._storage import unpack_case as unpack_case

__all__ = ["CaseFeatures", "FeatureBlock", "FeatureSet", "LayerSample"]
