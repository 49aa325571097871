"""Random arrays at every estimator."""

import re
import warnings

import numpy as np

from skte import estimators
from skte.exceptions import SkteError
from tests.reliability.mutate import pick
from tests.reliability.outcome import require

ESTIMATORS = [name for name in estimators.__all__ if name != "TransferabilityEstimator"]
ODD = [
    None, 3, "text", [], [[]], {}, np.zeros((0, 3)), np.zeros((3, 0)), np.zeros(5),
    np.zeros((2, 2, 2)), np.array([[1, "a"]], dtype=object), np.array([["a", "b"]] * 9),
    np.full((9, 3), np.nan), np.full((9, 3), np.inf), np.full((9, 3), 1e308),
    np.full((9, 3), 1e-320), np.zeros((9, 3)), np.ones((9, 3), complex), np.ones((9, 3), bool),
    np.eye(9, 3, dtype="f2") * 60_000, np.ones((9, 3), "datetime64[s]"), np.ma.masked_all((9, 3)),
]  # fmt: skip


def prepare_arrays(folder):
    """Use every estimator once: libraries are loaded at the first use, and not by an input."""
    rng = np.random.default_rng(0)
    X = np.abs(rng.normal(size=(60, 3)))
    X /= X.sum(axis=1, keepdims=True)
    y, groups = rng.integers(0, 2, 60), rng.integers(0, 3, 60)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in ESTIMATORS:
            if name != "Ensemble":
                getattr(estimators, name)().fit(X, y, groups=groups)


def attempt_arrays(rng, folder, sound):
    estimator = getattr(estimators, pick(rng, ESTIMATORS))()
    n, d, k = (int(v) for v in (rng.integers(1, 60), rng.integers(1, 12), rng.integers(1, 5)))
    X = rng.normal(size=(n, d)) * 10.0 ** rng.integers(-160, 160)
    if rng.random() < 0.3:  # what estimators of the source head take
        X = np.abs(X) / np.abs(X).sum(axis=1, keepdims=True)
    y = rng.integers(-1, k, n).astype(pick(rng, ["i8", "i2", "f8", "u1", "O", "U"]))
    groups = pick(rng, [None, rng.integers(0, 4, n), np.arange(n).astype(str)])
    kind = rng.integers(9)
    if kind == 0:
        X = pick(rng, ODD)
    elif kind == 1:
        y = pick(rng, ODD)
    elif kind == 2:
        groups = pick(rng, ODD)
    elif kind == 3:
        X.flat[int(rng.integers(X.size))] = pick(rng, [np.nan, np.inf, -np.inf, 1e308, 0])
    elif kind == 4:
        y = y[: int(rng.integers(n + 1))]
    elif kind == 5:
        X = np.repeat(X[:1], n, axis=0)  # all alike
    elif kind == 6:
        X = X.astype(pick(rng, ["f2", "f4", "i4", "u1", "g", "O", ">f8"]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            fitted = estimator.fit(X, y, groups=groups)
            score = None if estimator.tags.relative_to_bank else fitted.score()
        except (SkteError, ValueError, TypeError) as error:
            require(len(str(error)) > 15, f"an error that says nothing: {error!r}")
            require(
                not re.match(r"array must not contain|SVD did|operands", str(error)), str(error)
            )
            return "named error"
    if estimator.tags.relative_to_bank:
        return "result"
    require(isinstance(score, float), f"{score!r} is no number")
    require(score == score and score != np.inf, f"{type(estimator).__name__} scores {score}")
    return "result"
