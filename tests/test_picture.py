"""README's picture belongs to its result file."""

from __future__ import annotations

import copy
import json
from xml.etree import ElementTree

import numpy as np
import pytest

# Benchmarks are not part of a source distribution.
picture = pytest.importorskip("benchmarks.picture.__main__")
draw_picture, PICTURE, RESULT = picture.draw_picture, picture.PICTURE, picture.RESULT


@pytest.fixture(scope="module")
def result():
    return json.loads(RESULT.read_text())


def test_the_picture_is_that_of_the_result_file(result):
    remedy = "run python -m benchmarks.picture"
    assert draw_picture(result) == PICTURE.read_text(encoding="utf-8"), remedy


def test_rows_are_in_the_order_of_scores_and_points_at_the_mean_dice(result):
    root = ElementTree.fromstring(draw_picture(result))
    circles = root.findall("{*}circle[@fill='#D55E00']")
    assert len(circles) == len(result["models"])
    drawn = np.array([float(circle.get("cx")) for circle in circles])
    scores = np.array(result["scores"]["CCFV"]["scores"], dtype=float)
    dice = np.array([np.mean(model["dice"]) for model in result["models"]])
    expected = dice[np.argsort(-scores, kind="stable")]
    # Places are a straight line of the Dice values; rounded to a tenth of a pixel.
    slope, offset = np.polyfit(expected, drawn, 1)
    assert slope > 0
    np.testing.assert_allclose(slope * expected + offset, drawn, atol=0.1)


def test_another_result_gives_another_picture(result):
    other = copy.deepcopy(result)
    other["models"][3]["dice"][0] = [0.9] * len(other["models"][3]["dice"][0])
    assert draw_picture(other) != draw_picture(result)
