"""README's picture belongs to its result file."""

from __future__ import annotations

import copy
from xml.etree import ElementTree

import numpy as np
import pytest

# Benchmarks are not part of a source distribution.
picture = pytest.importorskip("benchmarks.picture.__main__")
draw_picture, PICTURE, SCORE = picture.draw_picture, picture.PICTURE, picture.SCORE


@pytest.fixture(scope="module")
def target():
    return picture.target()


def test_the_picture_is_that_of_the_result_file(target):
    remedy = "run python -m benchmarks.picture"
    assert draw_picture(target, SCORE) == PICTURE.read_text(encoding="utf-8"), remedy


def test_rows_are_in_the_order_of_scores_and_points_at_the_mean_dice(target):
    root = ElementTree.fromstring(draw_picture(target, SCORE))
    circles = root.findall("{*}circle[@fill='#D55E00']")
    assert len(circles) == len(target.models)
    drawn = np.array([float(circle.get("cx")) for circle in circles])
    expected = target.dice[np.argsort(-np.array(target.scores[SCORE]), kind="stable")]
    # Places are a straight line of the Dice values; rounded to a tenth of a pixel.
    slope, offset = np.polyfit(expected, drawn, 1)
    assert slope > 0
    np.testing.assert_allclose(slope * expected + offset, drawn, atol=0.1)


def test_another_result_gives_another_picture(target):
    other = copy.deepcopy(target)
    other.runs[3] = [0.6]
    assert draw_picture(other, SCORE) != draw_picture(target, SCORE)
