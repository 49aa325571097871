"""H-score: its limits, and the warning at its ceiling."""

import numpy as np
import pytest

from skte.estimators import HScore


def test_h_score_limits():
    y = np.repeat([0, 2, 7], 20)
    points = np.eye(3)[np.repeat([0, 1, 2], 20)]
    assert HScore().score(points, y) == pytest.approx(2.0)
    assert HScore().score(np.ones((60, 3)), y) == 0.0
    noise = np.random.default_rng(0).normal(size=(60, 100))
    assert HScore().score(noise, y) == pytest.approx(2.0)  # more channels than voxels
    assert HScore(shrinkage="ledoit-wolf").score(noise, y) < 1.0
    assert 0 < HScore().score(noise[:, :3], y) < 2.0


def test_h_score_warns_at_its_ceiling():
    y = np.repeat([0, 1], 10)
    noise = np.random.default_rng(0).normal(size=(20, 50))
    with pytest.warns(UserWarning, match=r"ceiling C - 1 = 1.*ledoit-wolf"):
        HScore().fit(noise, y)
