"""Every estimator against independent oracles: loops, closed forms, other libraries.

An oracle follows the definition literally and shares no code with skte. A new
estimator needs a row in `ORACLES`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.linalg import eigh, sqrtm
from scipy.optimize import minimize
from scipy.special import softmax
from scipy.stats import gmean, spearmanr
from sklearn.covariance import ledoit_wolf
from sklearn.decomposition import PCA
from sklearn.linear_model import BayesianRidge, Ridge
from sklearn.metrics import f1_score, roc_auc_score
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import LeaveOneGroupOut
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler, normalize

from skte.estimators import (
    CCFV,
    GBC,
    KNN,
    LEEP,
    NCE,
    NLEEP,
    PARC,
    RCFV,
    SFDA,
    CrossCaseProbe,
    HScore,
    LogME,
    RankMe,
    TransferabilityEstimator,
    TransRate,
)
from tests.estimator_problems import ESTIMATOR_NAMES, Problem, make_problem

Array = NDArray[np.float64]
Gaussian = tuple[Array, Array]
Oracle = Callable[[Array, NDArray[np.generic], NDArray[np.generic]], float]


def gaussian(X: Array, ddof: int = 1) -> Gaussian:
    d = X.shape[1]
    S = np.cov(X, rowvar=False, ddof=ddof).reshape(d, d) if len(X) > 1 else np.zeros((d, d))
    return X.mean(axis=0), S


def wasserstein(p: Gaussian, q: Gaussian) -> float:
    (m, S), (o, T) = p, q
    if min(np.linalg.matrix_rank(S), np.linalg.matrix_rank(T)) == len(m):
        cross = np.trace(sqrtm(S @ T)).real
    else:  # sqrtm is ill-posed there, the symmetric form S^1/2 T S^1/2 is not
        values, vectors = np.linalg.eigh(S)
        root = vectors @ np.diag(np.sqrt(np.maximum(values, 0))) @ vectors.T
        cross = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ T @ root), 0)).sum()
    squared = (m - o) @ (m - o) + np.trace(S) + np.trace(T) - 2 * cross
    return float(np.sqrt(max(squared, 0.0)))


def kullback_leibler(p: Gaussian, q: Gaussian) -> float:
    def one_way(p: Gaussian, q: Gaussian) -> float:
        (m, S), (o, T) = p, q
        inverse = np.linalg.inv(T)
        logdets = np.linalg.slogdet(T)[1] - np.linalg.slogdet(S)[1]
        return float(np.trace(inverse @ S) + (o - m) @ inverse @ (o - m) - len(m) + logdets) / 2

    return (one_way(p, q) + one_way(q, p)) / 2


def bhattacharyya(p: Gaussian, q: Gaussian) -> float:
    (m, S), (o, T) = p, q
    middle = (S + T) / 2
    logdets = np.linalg.slogdet(S)[1] + np.linalg.slogdet(T)[1]
    volume = np.linalg.slogdet(middle)[1] - logdets / 2
    return float((m - o) @ np.linalg.inv(middle) @ (m - o) / 8 + volume / 2)


def energy(V: Array, s: float = 1.0, floor: float = 0.0) -> float:
    terms = []
    for a in range(len(V)):
        for b in range(len(V)):
            if a != b:
                gap = max(floor, float(np.linalg.norm(V[a] - V[b])))
                terms.append(np.log(1 / gap) if s == 0 else gap**-s)
    return float(np.mean(terms))


def ccfv(
    *,
    sphere: bool = True,
    s: float = 1.0,
    distance: Callable[[Gaussian, Gaussian], float] = wasserstein,
    background: int | None = 0,
    by_case: bool = True,
) -> Oracle:
    """Equations (1) to (5), voxel by voxel and pair by pair."""

    def score(X: Array, y: NDArray[np.generic], groups: NDArray[np.generic]) -> float:
        X = normalize(X) if sphere else X
        cases = groups if by_case else np.arange(len(X))
        consistency = 0.0
        for k in set(y.tolist()) - {background}:
            fits = [gaussian(X[(y == k) & (cases == i)]) for i in np.unique(cases[y == k])]
            pairs = [distance(p, q) for p in fits for q in fits if p is not q]
            consistency += float(np.mean(pairs))
        samples = [X[groups == i] for i in np.unique(groups)] if by_case else [X]
        variety = np.mean([1 / energy(V, s) for V in samples])
        return float(np.log(variety / consistency))

    return score


def logme_brute_force(X: Array, y: NDArray[np.generic], groups: object) -> float:
    """The evidence as printed, with all d terms, maximised by a simplex search."""
    n, d = X.shape

    def loss(logs: Array, target: Array) -> float:
        alpha, beta = np.exp(logs)
        A = alpha * np.eye(d) + beta * X.T @ X
        m = beta * np.linalg.solve(A, X.T @ target)
        evidence = n / 2 * np.log(beta) + d / 2 * np.log(alpha) - n / 2 * np.log(2 * np.pi)
        evidence -= beta / 2 * np.sum((X @ m - target) ** 2) + alpha / 2 * m @ m
        return float(-(evidence - np.linalg.slogdet(A)[1] / 2) / n)

    options = {"xatol": 1e-9, "fatol": 1e-13, "maxiter": 4000, "maxfev": 4000}
    best = []
    for k in np.unique(y):
        target = (y == k).astype(float)
        searches = [
            minimize(
                loss, (a, 1.0), (target,), "Nelder-Mead", bounds=[(-14, 14)] * 2, options=options
            )
            for a in (-2.0, 4.0)
        ]
        best.append(-min(search.fun for search in searches))
    return float(np.mean(best))


def logme_bayesian_ridge(X: Array, y: NDArray[np.generic], groups: object) -> float:
    best = []
    flat = {"alpha_1": 0, "alpha_2": 0, "lambda_1": 0, "lambda_2": 0}
    for k in np.unique(y):
        model = BayesianRidge(
            **flat, fit_intercept=False, compute_score=True, tol=1e-13, max_iter=20000
        )
        best.append(model.fit(X, (y == k).astype(float)).scores_[-1] / len(X))
    return float(np.mean(best))


def leep(X: Array, y: NDArray[np.generic], groups: object) -> float:
    """Voxel by voxel, with dictionaries."""
    n, n_source = X.shape
    joint = {(k, z): 0.0 for k in set(y.tolist()) for z in range(n_source)}
    for row, k in zip(X, y.tolist(), strict=True):
        for z in range(n_source):
            joint[k, z] += row[z] / n
    total = 0.0
    for row, k in zip(X, y.tolist(), strict=True):
        expected = 0.0
        for z in range(n_source):
            marginal = sum(joint[c, z] for c in set(y.tolist()))
            expected += joint[k, z] / marginal * row[z]
        total += np.log(expected)
    return float(total / n)


def leep_of_logits(X: Array, y: NDArray[np.generic], groups: object) -> float:
    return leep(softmax(X, axis=1), y, groups)


def gbc(shape: Callable[[Array], Array], n_components: int | None) -> Oracle:
    def score(X: Array, y: NDArray[np.generic], groups: object) -> float:
        if n_components is not None:
            X = PCA(min(n_components, *X.shape), svd_solver="full").fit_transform(X)
        fits = [gaussian(X[y == k], ddof=0) for k in np.unique(y)]
        fits = [(m, shape(S)) for m, S in fits]
        return float(-sum(np.exp(-bhattacharyya(p, q)) for p in fits for q in fits if p is not q))

    return score


def logarithm(oracle: Oracle) -> Oracle:
    return lambda X, y, groups: float(-np.log(-oracle(X, y, groups)))


def spherical(S: Array) -> Array:
    return np.eye(len(S)) * np.trace(S) / len(S)


def h_score(shrunk: bool = False) -> Oracle:
    """A trace of matrices as printed, with scikit-learn's shrinkage."""

    def score(X: Array, y: NDArray[np.generic], groups: object) -> float:
        expected = np.stack([X[y == label].mean(axis=0) for label in y])
        S, between = gaussian(X, ddof=0)[1], gaussian(expected, ddof=0)[1]
        if not shrunk:
            return float(np.trace(np.linalg.pinv(S, rcond=1e-12) @ between))
        S, amount = ledoit_wolf(X)
        return float((1 - amount) * np.trace(np.linalg.inv(S) @ between))

    return score


def transrate(*, eps: float = 1e-4, trace: bool = False) -> Oracle:
    def rate(Z: Array) -> float:
        return float(np.linalg.slogdet(np.eye(Z.shape[1]) + Z.T @ Z / (len(Z) * eps))[1] / 2)

    def score(X: Array, y: NDArray[np.generic], groups: object) -> float:
        Z = X - X.mean(axis=0)
        if trace:
            Z = Z / np.sqrt(np.trace(Z @ Z.T) / len(Z))
        within = sum(np.mean(y == k) * rate(Z[y == k]) for k in np.unique(y))
        return float(rate(Z) - within)

    return score


def nce(X: Array, y: NDArray[np.generic], groups: object) -> float:
    """Voxel by voxel, with dictionaries."""
    decided = [max(range(X.shape[1]), key=row.__getitem__) for row in X]
    pairs = list(zip(y.tolist(), decided, strict=True))
    joint, marginal = Counter(pairs), Counter(decided)
    return sum(m * np.log(m / marginal[z]) for (_, z), m in joint.items()) / len(y)


def nce_of_logits(X: Array, y: NDArray[np.generic], groups: object) -> float:
    return nce(softmax(X, axis=1), y, groups)


def nleep(*, variance: float = 0.8, per_class: int = 5, covariance: str = "full") -> Oracle:
    """PCA, mixture and LEEP one after the other; signs and order by content, 8 decimals."""

    def score(X: Array, y: NDArray[np.generic], groups: object) -> float:
        T = X / np.sqrt(X.var(axis=0).sum())
        T = PCA(variance, svd_solver="full").fit_transform(T)
        for axis in T.T:
            axis *= np.sign(np.mean(axis**3))
        T = np.round(T, 8)
        order = sorted(range(len(T)), key=lambda i: tuple(T[i]))
        mixture = GaussianMixture(
            per_class * len(np.unique(y)), covariance_type=covariance, random_state=0
        )
        return leep(mixture.fit(T[order]).predict_proba(T[order]), y[order], groups)

    return score


def parc(X: Array, y: NDArray[np.generic], groups: object) -> float:
    """Label distances take two values; corrcoef's rounding would make more of them."""
    onehot = (y[:, None] == np.unique(y)).astype(float)
    pairs = np.triu_indices(len(X), 1)
    labels = np.round(1 - np.corrcoef(onehot), 9)[pairs]
    return float(spearmanr((1 - np.corrcoef(X))[pairs], labels)[0])


def knn(*, k: int = 5, metric: str = "euclidean", balanced: bool = True) -> Oracle:
    """A search of its own for each left-out case."""

    def score(X: Array, y: NDArray[np.generic], groups: NDArray[np.generic]) -> float:
        hits = np.zeros(len(X))
        for case in np.unique(groups):
            own = groups == case
            search = NearestNeighbors(n_neighbors=k, metric=metric, algorithm="brute")
            found = search.fit(X[~own]).kneighbors(X[own], return_distance=False)
            hits[own] = (y[~own][found] == y[own, None]).mean(axis=1)
        parts = [hits[y == c] for c in np.unique(y)] if balanced else [hits]
        return float(np.mean([part.mean() for part in parts]))

    return score


def rankme(X: Array, y: object, groups: object) -> float:
    values = np.linalg.svd(X, compute_uv=False)
    p = values / values.sum()
    return float(np.exp(-(p * np.log(p)).sum()))


def sfda(*, a: float = 5.0, trace: bool = False) -> Oracle:
    """Both discriminant analyses by a generalised eigenproblem, equations as printed."""

    def scatters(X: Array, y: NDArray[np.generic]) -> tuple[Array, Array]:
        within, between = np.zeros((2, X.shape[1], X.shape[1]))
        for k in np.unique(y):
            within += np.mean(y == k) * np.cov(X[y == k], rowvar=False, ddof=0)
            gap = X[y == k].mean(axis=0) - X.mean(axis=0)
            between += np.mean(y == k) * np.outer(gap, gap)
        return within, between

    def posterior(X: Array, y: NDArray[np.generic], shrinkage: float) -> Array:
        classes, d = np.unique(y), X.shape[1]
        within, between = scatters(X, y)
        S = (1 - shrinkage) * within + shrinkage * np.trace(within) / d * np.eye(d)
        U = eigh(between, S)[1][:, ::-1][:, : min(d, len(classes) - 1)]
        delta = []
        for k in classes:
            mu = X[y == k].mean(axis=0) @ U
            delta.append(X @ U @ mu - mu @ mu / 2 + np.log(np.mean(y == k)))
        return softmax(np.stack(delta, axis=1), axis=1)[
            np.arange(len(y)), np.searchsorted(classes, y)
        ]

    def score(X: Array, y: NDArray[np.generic], groups: object) -> float:
        if trace:
            X = X / np.sqrt(X.var(axis=0).sum())
        shrinkage = max(np.exp(-a * np.linalg.eigvalsh(scatters(X, y)[0])[-1]), 1e-10)
        p = posterior(X, y, shrinkage)[:, None]
        others = np.stack([X[y != k].mean(axis=0) for k in y])
        return float(np.log(posterior(p * X + (1 - p) * others, y, shrinkage)).mean())

    return score


class Row(NamedTuple):
    """An estimator and what it must agree with."""

    estimator: TransferabilityEstimator
    oracle: Oracle
    rel: float = 1e-9
    problem: Mapping[str, float] = {}
    abs: float = 1e-12


LITERAL = {"normalize": None, "min_distance": 1e-12}


def rcfv(floor: float = 0.0) -> Oracle:
    """Loops over classes and pairs of cases; classes that share no case do not occur."""

    def score(X: Array, y: NDArray[np.generic], groups: NDArray[np.generic]) -> float:
        classes, cases = np.unique(y), np.unique(groups)
        rows = {(k, i): X[(y == k) & (groups == i)] for k in classes for i in cases}
        fitted = {key: gaussian(part) for key, part in rows.items() if len(part)}
        least = floor * np.sqrt(np.trace(np.cov(X, rowvar=False, ddof=0)))
        within: dict[object, list[float]] = {}
        between: dict[object, list[float]] = {}
        for (k, i), p in fitted.items():
            for (m, j), q in fitted.items():
                if k == m and i < j:
                    within.setdefault(k, []).append(wasserstein(p, q))
                if i == j and k < m:
                    between.setdefault((k, m), []).append(wasserstein(p, q))
        W = gmean([max(least, np.mean(values)) for values in within.values()])
        B = gmean([max(least, np.mean(values)) for values in between.values()])
        variety = np.mean([1 / energy(normalize(X[groups == i]), floor=floor) for i in cases])
        return float(np.log(variety * B / W))

    return score


def probe(reading: str, *, ridge: float = 1.0, background: int | None = 0) -> Oracle:
    """scikit-learn's Ridge with weights of rows, one pipeline of folds by case."""

    def score(X: Array, y: NDArray[np.generic], groups: NDArray[np.generic]) -> float:
        classes = np.unique(y)
        T = (y[:, None] == classes).astype(float)
        w = (T / T.mean(axis=0)).mean(axis=1)
        Z = StandardScaler().fit_transform(X)
        values: dict[object, list[float]] = {}
        for fitted, held in LeaveOneGroupOut().split(Z, groups=groups):
            model = Ridge(alpha=ridge * w[fitted].sum(), solver="svd")
            model.fit(Z[fitted], T[fitted], sample_weight=w[fitted])
            P, Q = model.predict(Z[held]), model.predict(Z[fitted])
            for k in range(len(classes)):
                if classes[k] == background or not T[held, k].any():
                    continue
                p, t = P[:, k], T[held, k]
                if reading == "auc":
                    value = roc_auc_score(t, p)
                elif reading == "dice":
                    p = p.clip(0, 1)
                    value = 2 * np.minimum(p, t).sum() / (p.sum() + t.sum())
                else:
                    cuts = np.unique(Q[:, k])
                    cuts = np.append(-np.inf, (cuts[1:] + cuts[:-1]) / 2)
                    best = max(cuts, key=lambda c: f1_score(T[fitted, k], Q[:, k] > c))
                    value = f1_score(t, p > best)
                values.setdefault(groups[held][0], []).append(float(value))
        return float(np.mean([np.mean(found) for found in values.values()]))

    return score


TALL = {"n_rows": 30}  # more voxels than channels in every class and case
WIDE = {"n_channels": 150}  # more channels than voxels
NOISE = {"n_channels": 60, "n_rows": 4, "separation": 0.0}  # optimum is not at beta -> inf
# A ridge of 1e-6 of the mean variance makes covariances invertible.
RIDGE = 1e-4

ORACLES: dict[str, dict[str, Row]] = {
    "CCFV": {
        "default": Row(CCFV(min_distance=1e-12), ccfv(), 1e-7),
        "literal": Row(CCFV(**LITERAL), ccfv(sphere=False), 1e-7),
        "more-channels-than-voxels": Row(CCFV(), ccfv(), 1e-6, {"n_channels": 20}),
        "power-2": Row(CCFV(s=2.0, min_distance=1e-12), ccfv(s=2.0), 1e-7),
        "power-1.5-literal": Row(CCFV(s=1.5, **LITERAL), ccfv(s=1.5, sphere=False), 1e-7),
        "every-class-counts": Row(CCFV(background=None), ccfv(background=None), 1e-7),
        "kl": Row(CCFV(distance="kl"), ccfv(distance=kullback_leibler), RIDGE, TALL, RIDGE),
        "kl-literal": Row(
            CCFV(distance="kl", **LITERAL),
            ccfv(distance=kullback_leibler, sphere=False),
            RIDGE,
            TALL,
            RIDGE,
        ),
        "bhattacharyya": Row(
            CCFV(distance="bhattacharyya"), ccfv(distance=bhattacharyya), RIDGE, TALL, RIDGE
        ),
    },
    "CrossCaseProbe": {
        "threshold": Row(CrossCaseProbe(), probe("threshold"), 1e-8),
        "threshold-noise": Row(CrossCaseProbe(), probe("threshold"), 1e-8, NOISE),
        "dice": Row(CrossCaseProbe(reading="dice"), probe("dice"), 1e-8),
        "dice-loose": Row(
            CrossCaseProbe(reading="dice", ridge=1e-3), probe("dice", ridge=1e-3), 1e-8
        ),
        "dice-wide": Row(CrossCaseProbe(reading="dice"), probe("dice"), 1e-8, WIDE),
        "auc-every-class": Row(
            CrossCaseProbe(reading="auc", background=None), probe("auc", background=None), 1e-8
        ),
        "auc-wide": Row(CrossCaseProbe(reading="auc"), probe("auc"), 1e-8, WIDE),
    },
    "GBC": {
        "diagonal": Row(GBC(), gbc(lambda S: np.diag(np.diag(S)), 64)),
        "few-components": Row(GBC(n_components=2), gbc(lambda S: np.diag(np.diag(S)), 2)),
        "no-components": Row(GBC(n_components=None), gbc(lambda S: np.diag(np.diag(S)), None)),
        "full": Row(GBC(covariance="full"), gbc(lambda S: S, 64)),
        "spherical": Row(GBC(covariance="spherical", n_components=3), gbc(spherical, 3)),
        "logarithm": Row(GBC(log=True), logarithm(gbc(lambda S: np.diag(np.diag(S)), 64))),
        "more-channels-than-voxels": Row(
            GBC(n_components=4), gbc(lambda S: np.diag(np.diag(S)), 4), 1e-8, WIDE
        ),
    },
    "KNN": {
        "default": Row(KNN(), knn()),
        "one-neighbour": Row(KNN(n_neighbors=1), knn(k=1)),
        "cosine": Row(KNN(metric="cosine", n_neighbors=3), knn(metric="cosine", k=3)),
        "by-voxel": Row(KNN(balanced=False, n_neighbors=20), knn(balanced=False, k=20)),
        "more-channels-than-voxels": Row(KNN(), knn(), 1e-9, {**WIDE, "separation": 0.3}),
    },
    "HScore": {
        "pinv": Row(HScore(), h_score()),
        "pinv-rank-deficient": Row(HScore(), h_score(), 1e-7, {"n_channels": 30, "n_rows": 2}),
        "ledoit-wolf": Row(HScore(shrinkage="ledoit-wolf"), h_score(shrunk=True)),
        "ledoit-wolf-wide": Row(HScore(shrinkage="ledoit-wolf"), h_score(shrunk=True), 1e-9, WIDE),
    },
    "LEEP": {
        "probabilities": Row(LEEP(), leep, 1e-12),
        "logits": Row(LEEP(input="logits"), leep_of_logits, 1e-12),
    },
    "LogME": {
        "brute-force": Row(LogME(), logme_brute_force, 1e-9),
        "brute-force-wide": Row(LogME(), logme_brute_force, 1e-8, NOISE),
        "bayesian-ridge": Row(LogME(), logme_bayesian_ridge, 1e-9),
        "bayesian-ridge-wide": Row(LogME(), logme_bayesian_ridge, 1e-9, WIDE),
        "bayesian-ridge-square": Row(LogME(), logme_bayesian_ridge, 1e-9, {"n_channels": 96}),
    },
    "NCE": {
        "probabilities": Row(NCE(), nce, 1e-12),
        "logits": Row(NCE(input="logits"), nce_of_logits, 1e-12),
    },
    "NLEEP": {
        "default": Row(NLEEP(), nleep(), 1e-7),
        "diagonal": Row(NLEEP(covariance="diag"), nleep(covariance="diag"), 1e-7),
        "two-components-a-class": Row(
            NLEEP(variance=0.95, n_components_per_class=2), nleep(variance=0.95, per_class=2), 1e-7
        ),
        "more-channels-than-voxels": Row(
            NLEEP(covariance="diag", n_components_per_class=1),
            nleep(covariance="diag", per_class=1),
            1e-7,
            {**WIDE, "separation": 0.3},
        ),
    },
    "PARC": {
        "default": Row(PARC(), parc),
        "one-channel-more-than-two": Row(PARC(), parc, 1e-9, {"n_channels": 3}),
        "more-channels-than-voxels": Row(PARC(), parc, 1e-9, WIDE),
        "noise": Row(PARC(), parc, 1e-9, NOISE),
    },
    "RankMe": {
        "singular-values": Row(RankMe(), rankme),
        "more-channels-than-voxels": Row(RankMe(), rankme, 1e-9, WIDE),
    },
    "RCFV": {
        "default": Row(RCFV(min_distance=0.0), rcfv(), 1e-7),
        "more-channels-than-voxels": Row(RCFV(min_distance=0.0), rcfv(), 1e-6, {"n_channels": 20}),
        "floored": Row(RCFV(min_distance=0.45), rcfv(floor=0.45), 1e-7, {"n_rows": 12}),
    },
    "SFDA": {
        "default": Row(SFDA(), sfda()),
        "loose": Row(SFDA(a=0.2), sfda(a=0.2)),
        "trace": Row(SFDA(normalize="trace"), sfda(trace=True)),
        "noise": Row(SFDA(a=0.1), sfda(a=0.1), 1e-8, NOISE),
        "more-channels-than-voxels": Row(
            SFDA(a=0.1), sfda(a=0.1), 1e-8, {**WIDE, "separation": 0.3}
        ),
        "more-channels-than-voxels-trace": Row(
            SFDA(a=0.1, normalize="trace"),
            sfda(a=0.1, trace=True),
            1e-8,
            {**WIDE, "separation": 0.3},
        ),
    },
    "TransRate": {
        "slogdet": Row(TransRate(), transrate()),
        "slogdet-wide": Row(TransRate(), transrate(), 1e-9, WIDE),
        "distortion": Row(TransRate(eps=0.3), transrate(eps=0.3)),
        "trace": Row(TransRate(normalize="trace"), transrate(trace=True)),
        "trace-wide": Row(TransRate(normalize="trace"), transrate(trace=True), 1e-9, WIDE),
    },
}


def test_every_estimator_has_an_oracle() -> None:
    assert set(ORACLES) == set(ESTIMATOR_NAMES)
    assert all(ORACLES.values())


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(
    "row",
    [pytest.param(row, id=f"{n}-{i}") for n, rows in ORACLES.items() for i, row in rows.items()],
)
def test_score_equals_oracle(row: Row, seed: int) -> None:
    problem = make_problem(row.estimator, seed=seed, **row.problem)
    expected = row.oracle(problem.X, problem.y, problem.groups)
    assert problem.score(row.estimator) == pytest.approx(expected, rel=row.rel, abs=row.abs)


@pytest.mark.slow
@pytest.mark.parametrize(
    "row",
    [pytest.param(row, id=f"{n}-{i}") for n, rows in ORACLES.items() for i, row in rows.items()],
)
def test_score_equals_oracle_on_unequal_classes(row: Row) -> None:
    """Classes and cases of different size, and a class that one case lacks."""
    whole = make_problem(row.estimator, seed=2, **row.problem)
    kept = np.random.default_rng(2).random(len(whole.y)) < np.array([0.9, 0.7, 0.5])[whole.y]
    kept &= ~((whole.y == 2) & (whole.groups == 1))
    problem = Problem(whole.X[kept], whole.y[kept], whole.groups[kept])
    expected = row.oracle(problem.X, problem.y, problem.groups)
    assert problem.score(row.estimator) == pytest.approx(expected, rel=row.rel, abs=row.abs)


def test_ccfv_without_groups_takes_rows_as_cases() -> None:
    problem = make_problem(n_rows=5)
    expected = ccfv(by_case=False)(problem.X, problem.y, problem.groups)
    assert CCFV(min_distance=1e-12).score(problem.X, problem.y) == pytest.approx(expected, rel=1e-9)


def test_ccfv_with_logarithmic_energy() -> None:
    """Distances below one, where the logarithmic energy is positive."""
    problem = make_problem(separation=0.1)
    problem = problem.of(X=0.01 * problem.X)
    expected = ccfv(s=0.0, sphere=False)(problem.X, problem.y, problem.groups)
    assert problem.score(CCFV(s=0.0, **LITERAL)) == pytest.approx(expected, rel=1e-9)
