"""What notebooks show: everything, and names as text."""

import pickle

import numpy as np
import pytest
from torch import nn

from skte import BankEntry, FeatureBlock, FeatureSet, ModelBank
from skte.datasets import CaseList, inspect_dataset, load_dataset
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


def cases(n=2):
    label = np.zeros((4, 5, 6), dtype=np.uint8)
    label[0] = 7
    rng = np.random.default_rng(0)
    return load_dataset(
        [
            {
                "id": f"{EVIL}{i}",
                "image": rng.normal(size=label.shape),
                "label": label,
                "affine": np.diag([0.5, 1, 2, 1]),
                "label_names": {0: "background", 7: EVIL},
                "ignore_label": 9,
            }
            for i in range(n)
        ]
    )


@pytest.mark.parametrize(
    "value",
    [features(), bank(), Ranking([EVIL], [1.5]), inspect_dataset(cases(1))],
    ids=["features", "bank", "ranking", "inspected"],
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


def test_a_list_of_cases_is_a_list():
    found = cases(7)
    assert isinstance(found, list)
    assert isinstance(found[1:3], CaseList)
    assert found[1] is list(found)[1]
    assert repr(found).endswith(f"{EVIL}4, ...)")
    assert repr(CaseList()) == "CaseList(0 cases)"
    assert list(pickle.loads(pickle.dumps(found))[0].keys()) == list(found[0].keys())


def test_what_was_inspected_lists_classes_and_problems():
    html = inspect_dataset(cases(1))._repr_html_()
    assert f"<td>7</td><td>{SHOWN}</td><td>1</td><td>30</td>" in html
    assert "<caption>cases: 1, usable: 1</caption>" in html
    assert "The dataset holds one case" in html
