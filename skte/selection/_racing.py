"""Who is out of the race: models that a few cases already show to be behind."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from skte.metrics import rank_scores

__all__ = ["RaceStep", "outpaced", "rung_sizes"]


class RaceStep(NamedTuple):
    """What one rung says of its models.

    Attributes
    ----------
    gap : ndarray of shape (n_models,)
        How far each is behind the last model that would be kept; 0 for those.
    gap_error : ndarray of shape (n_models,)
        Standard error of the gap, as an estimate of that of all cases.
    dropped : ndarray of shape (n_models,)
        Whether the gap is too large for chance.
    """

    gap: NDArray[np.float64]
    gap_error: NDArray[np.float64]
    dropped: NDArray[np.bool_]


def rung_sizes(n_cases: int, min_cases: int, factor: float) -> list[int]:
    """Cases of each rung: `min_cases`, then `factor` times as many, up to all.

    Parameters
    ----------
    n_cases : int
        Labelled cases.
    min_cases : int
        Of the first rung.
    factor : float
        Above 1.

    Returns
    -------
    list of int
        Increasing; the last is `n_cases`.

    Examples
    --------
    >>> from skte.selection._racing import rung_sizes
    >>> rung_sizes(30, 4, 2)
    [4, 8, 16, 30]
    """
    sizes = []
    size = float(min_cases)
    # A last rung of hardly more cases than the one before would decide nothing.
    while size * np.sqrt(factor) <= n_cases:
        sizes.append(round(size))
        size *= factor
    return [*dict.fromkeys(sizes), n_cases]


def outpaced(
    scores: NDArray[np.float64],
    jackknife: NDArray[np.float64],
    *,
    n_total: int | None,
    n_keep: int,
    confidence_level: float,
) -> RaceStep:
    """Find the models that are out of the race for the best `n_keep`.

    Parameters
    ----------
    scores : ndarray of shape (n_models,)
        On the cases of the rung; NaN for failed models.
    jackknife : ndarray of shape (n_models, n_cases)
        Without each case.
    n_total : int or None
        Cases of the full evaluation, of which those of the rung are a random part. None: it
        is about cases without end.
    n_keep : int
        Models looked for.
    confidence_level : float
        Of each comparison.

    Returns
    -------
    RaceStep
        Failed models are dropped; collapsed ones where enough finite scores are there.

    Notes
    -----
    A model is compared with the `n_keep`-th best, in pairs: both saw the same cases. The
    question is not who would win on cases without end but who wins the full evaluation,
    whose cases are seen in part already. Of the variance of a mean over n cases that
    leaves the share ``1 - n / n_total``. With Student's t of ``n - 1`` degrees of freedom, a
    model is dropped where the gap exceeds its one-sided quantile.

    Examples
    --------
    >>> import numpy as np
    >>> from skte.selection._racing import outpaced
    >>> scores = np.array([0.9, 0.8, 0.1])
    >>> without = scores[:, None] + np.array([[0.1, -0.1, 0.0], [0.0, 0.1, -0.1], [0.0, 0.1, -0.1]])
    >>> outpaced(scores, without, n_total=9, n_keep=1, confidence_level=0.9).dropped
    array([False, False,  True])
    """
    n_models, n_cases = jackknife.shape
    order = np.argsort(rank_scores(scores))
    failed, collapsed = np.isnan(scores), scores == -np.inf
    n_keep = min(n_keep, n_models)
    last = int(order[n_keep - 1])
    gap, gap_error = np.zeros(n_models), np.zeros(n_models)
    dropped = failed.copy()
    if not np.isfinite(scores[last]):
        return RaceStep(gap, gap_error, dropped)
    dropped |= collapsed
    behind = order[n_keep:]
    with np.errstate(invalid="ignore"):
        gap[behind] = scores[last] - scores[behind]
        paired = jackknife[last] - jackknife[behind]
        squares = np.square(paired - paired.mean(axis=1, keepdims=True)).sum(axis=1)
    unseen = 1.0 if n_total is None else 1 - n_cases / n_total
    share = (n_cases - 1) / n_cases * unseen
    gap_error[behind] = np.sqrt(share * squares)
    critical = student.ppf(confidence_level, n_cases - 1)
    with np.errstate(invalid="ignore"):  # an error that is unknown drops no model
        dropped |= gap > critical * gap_error
    dropped[order[:n_keep]] = failed[order[:n_keep]]
    return RaceStep(gap, gap_error, np.asarray(dropped))
