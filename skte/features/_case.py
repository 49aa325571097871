"""What one case contributes: its sampled voxels in every layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skte.features._moments import ClassMoments

__all__ = ["CaseFeatures", "LayerSample"]


@dataclass(frozen=True, eq=False)
class LayerSample:
    """Features of one layer at the sampled voxels of one case.

    Parameters
    ----------
    X : ndarray of shape (n_voxels, n_channels)
        Features at the class sample.
    y : ndarray of shape (n_voxels,)
        Label of each row of `X`.
    X_case : ndarray of shape (n_case_voxels, n_channels)
        Features at the whole-case sample.
    moments : ClassMoments, optional
        Of *all* labelled voxels of the case, where the extraction computed them.
    """

    X: NDArray[np.floating]
    y: NDArray[np.integer]
    X_case: NDArray[np.floating]
    moments: ClassMoments | None = None


@dataclass(frozen=True, eq=False)
class CaseFeatures:
    """Sampled features of one case: an element of a `FeatureSet`.

    Parameters
    ----------
    case_id : str
        Name of the case.
    layers : mapping of str to LayerSample
        Layers in order from coarse to fine.
    posterior : LayerSample, optional
        The source head's class probabilities at the class sample (``X``, whose
        rows sum to one). None where the model has no source head, or one whose
        output is unusable.
    info : mapping, optional
        What the extraction cost: windows run, seconds.
    no_posterior : str, default=""
        Why there is no posterior, where the model does have a source head.

    Raises
    ------
    ValueError
        If a layer has NaN or infinite features or disagreeing shapes; the
        message names case and layer.
    """

    case_id: str
    layers: Mapping[str, LayerSample]
    posterior: LayerSample | None = None
    info: Mapping[str, Any] = field(default_factory=dict)
    no_posterior: str = ""

    def __post_init__(self) -> None:
        if not self.layers:
            raise ValueError(f"Case {self.case_id!r} has no layers.")
        samples = dict(self.layers)
        if self.posterior is not None:
            samples["source posterior"] = self.posterior
        for name, sample in samples.items():
            where = f"case {self.case_id!r}, layer {name!r}"
            if sample.X.ndim != 2 or sample.X_case.ndim != 2:
                raise ValueError(f"Features of {where} must be 2-D (voxels, channels).")
            if len(sample.X) != len(sample.y):
                raise ValueError(
                    f"Features of {where}: {len(sample.X)} rows but {len(sample.y)} labels."
                )
            if sample.X.shape[1] != sample.X_case.shape[1]:
                raise ValueError(
                    f"Features of {where}: class sample has {sample.X.shape[1]} channels, "
                    f"whole-case sample {sample.X_case.shape[1]}."
                )
            for X in (sample.X, sample.X_case):
                if not np.isfinite(X).all():
                    raise ValueError(
                        f"Features of {where} contain NaN or Inf. Check the model's "
                        "weights and the preprocessing of its input."
                    )
