"""Problems and estimator variants that the estimator suites share."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from skte.estimators import (
    CCFV,
    GBC,
    KNN,
    LEEP,
    NCE,
    NLEEP,
    PARC,
    SFDA,
    CrossCaseProbe,
    HScore,
    TransferabilityEstimator,
    TransRate,
    all_estimators,
)
from skte.features import FeatureBlock, FeatureSet

#: The registry, without what other packages may have added.
ESTIMATORS = {
    cls.__name__: cls for cls in all_estimators().values() if cls.__module__.startswith("skte.")
}
#: Scored relative to a bank, so not by the suites that score a model alone.
RELATIVE_NAMES = [name for name, cls in ESTIMATORS.items() if cls().tags.relative_to_bank]
ESTIMATOR_NAMES = [name for name in ESTIMATORS if name not in RELATIVE_NAMES]

#: Every exported estimator as it comes, and the parameters that change its mathematics.
VARIANTS: dict[str, TransferabilityEstimator] = {
    **{name: ESTIMATORS[name]() for name in ESTIMATOR_NAMES},
    "CCFV-literal": CCFV(normalize=None, min_distance=1e-9),
    "CCFV-kl": CCFV(distance="kl"),
    "CCFV-bhattacharyya": CCFV(distance="bhattacharyya"),
    "CCFV-all-classes": CCFV(background=None, s=2.0),
    "CrossCaseProbe-dice": CrossCaseProbe(reading="dice"),
    "CrossCaseProbe-auc": CrossCaseProbe(reading="auc", ridge=0.1, background=None),
    "GBC-full": GBC(covariance="full", log=True),
    "GBC-spherical": GBC(covariance="spherical", n_components=3),
    "GBC-axes": GBC(n_components=None),
    "HScore-shrunk": HScore(shrinkage="ledoit-wolf"),
    "KNN-cosine": KNN(metric="cosine", n_neighbors=3),
    "KNN-by-voxel": KNN(balanced=False),
    "LEEP-logits": LEEP(input="logits"),
    "NCE-logits": NCE(input="logits"),
    "NLEEP-diag": NLEEP(covariance="diag", variance=0.95, n_components_per_class=2),
    "PARC-part": PARC(max_samples=60, random_state=1),
    "SFDA-trace": SFDA(normalize="trace"),
    "TransRate-trace": TransRate(normalize="trace"),
}


@dataclass(frozen=True)
class Problem:
    """What the array door takes."""

    X: NDArray[np.floating]
    y: NDArray[np.generic]
    groups: NDArray[np.generic]

    def of(self, **changes: NDArray[np.generic]) -> Problem:
        return replace(self, **changes)

    def score(self, estimator: TransferabilityEstimator) -> float:
        return estimator.score(self.X, self.y, groups=self.groups)

    def block(self, name: str = "") -> FeatureBlock:
        return FeatureBlock(self.X, self.y, self.groups, name=name)


def make_problem(
    estimator: TransferabilityEstimator | None = None,
    *,
    seed: int = 0,
    n_classes: int = 3,
    n_cases: int = 4,
    n_channels: int = 5,
    n_rows: int = 8,
    separation: float = 1.5,
) -> Problem:
    """Class- and case-dependent Gaussian features, each class `n_rows` times in each case.

    Channels have distinct spreads, so that principal axes are well defined. For
    scores of probabilities, rows are the softmax of these.
    """
    rng = np.random.default_rng(seed)
    y = np.tile(np.repeat(np.arange(n_classes), n_rows), n_cases)
    groups = np.repeat(np.arange(n_cases), n_classes * n_rows)
    centres = separation * rng.normal(size=(n_classes, n_channels))
    shifts = 0.5 * rng.normal(size=(n_cases, n_channels))
    X = rng.normal(size=(len(y), n_channels)) * np.linspace(0.5, 1.5, n_channels)
    X += centres[y] + shifts[groups] + 1.0
    if estimator is not None and wants_probabilities(estimator):
        X = softmax(X, axis=1)
    return Problem(X, y, groups)


def wants_probabilities(estimator: TransferabilityEstimator) -> bool:
    return estimator.tags.source_head and estimator.input == "probabilities"


def as_feature_set(estimator: TransferabilityEstimator, *problems: Problem) -> FeatureSet:
    """One layer per problem; for a source head the (last) problem is its posterior."""
    blocks = [problem.block(f"up{i}") for i, problem in enumerate(problems)]
    if estimator.tags.source_head:
        return FeatureSet.from_blocks(blocks, posterior=blocks[-1])
    return FeatureSet.from_blocks(blocks)
