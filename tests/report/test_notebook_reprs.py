"""What notebooks show: everything, and names as text."""

import numpy as np
import pytest
from torch import nn

from skte import BankEntry, FeatureBlock, FeatureSet, ModelBank
from skte.selection import Ranking

EVIL = "<script>alert('x')</script>"
SHOWN = "&lt;script&gt;alert(&#x27;x&#x27;)&lt;/script&gt;"


def features():
    block = FeatureBlock(np.ones((6, 3)), [0, 1, 1] * 2, np.repeat([0, 1], 3), name=EVIL)
    return FeatureSet.from_blocks([block], name=EVIL)


def bank():
    entry = BankEntry.from_module(
        EVIL, nn.Conv3d(1, 2, 1), layers=[EVIL], provenance={EVIL: EVIL}, window_size=(8, 8, 8)
    )
    return ModelBank([entry])


@pytest.mark.parametrize(
    "value", [features(), bank(), Ranking([EVIL], [1.5])], ids=["features", "bank", "ranking"]
)
def test_names_are_shown_as_text(value):
    html = value._repr_html_()
    assert html.startswith("<table>")
    assert SHOWN in html
    assert "<script" not in html


def test_what_is_shown():
    assert "<td>3</td><td>6</td><td>6</td>" in features()._repr_html_()
    assert "2 cases, without source head" in features()._repr_html_()
    assert "<td>(8, 8, 8)</td><td>0</td>" in bank()._repr_html_()
    assert "<td>1.5</td>" in Ranking([EVIL], [1.5])._repr_html_()
