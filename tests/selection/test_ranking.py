"""Ranks and the table they print as."""

import json
import pickle
import re

import numpy as np
import pandas as pd
import pytest

from skte.metrics import best_first, rank_scores
from skte.selection import Ranking


def test_equal_scores_share_a_rank_and_failed_models_have_none():
    scores = [np.nan, 1.0, -np.inf, 2.0, 1.0, np.nan, -np.inf, np.inf]
    np.testing.assert_array_equal(rank_scores(scores), [np.nan, 3, 5, 2, 3, np.nan, 5, 1])
    assert best_first(scores).tolist() == [7, 3, 1, 4, 2, 6, 0, 5]
    ranking = Ranking.from_scores(["a", "b", "c"], [1.0, 2.0, 2.0])
    assert [row.split()[0] for row in repr(ranking).splitlines()] == ["rank", "1", "1", "3"]


def test_ranking_is_a_sequence_of_names_best_first():
    ranking = Ranking.from_scores(["a", "b", "c"], [1.0, np.nan, 2.0])
    assert ranking == ["c", "a", "b"]
    assert ranking != ["a", "b", "c"]
    assert (ranking[0], ranking[:2], len(ranking)) == ("c", ("c", "a"), 3)
    assert "a" in ranking
    assert ranking.index("b") == 2
    assert pickle.loads(pickle.dumps(ranking)) == ranking
    assert hash(ranking) == hash(Ranking(["c", "a", "b"], [0, 0, 0]))
    assert ranking != 3


def test_repr_and_frame_are_the_table():
    ranking = Ranking.from_scores(["a", "<b>"], [1.0, -np.inf])
    lines = repr(ranking).splitlines()
    assert lines[0].split() == ["rank", "model", "score"]
    assert lines[2].split() == ["2", "<b>", "-inf"]
    assert "&lt;b&gt;" in ranking._repr_html_()
    assert ranking.to_frame()["model"].tolist() == ["a", "<b>"]


def test_pandas_makes_a_table_of_it():
    ranking = Ranking.from_scores(["a", "b", "c"], [1.0, np.nan, 2.0])
    frame = pd.DataFrame(ranking)
    assert frame["model"].tolist() == ["c", "a", "b"]
    np.testing.assert_array_equal(frame["score"], [2.0, 1.0, np.nan])
    np.testing.assert_array_equal(frame["rank"], [1, 2, np.nan])
    assert ranking.to_frame()["rank"].isna().tolist() == [False, False, True]
    assert pickle.loads(pickle.dumps(ranking[0])).score == 2.0
    assert json.dumps(list(ranking)) == '["c", "a", "b"]'


def test_lengths_must_agree():
    with pytest.raises(ValueError, match="one score per name"):
        Ranking(["a"], [1.0, 2.0])


def test_failed_models_have_neither_rank_nor_score():
    ranking = Ranking(["a", "b"], [0.3, np.nan], facts={"parameters": [12, "-"]})
    assert repr(ranking).splitlines() == [
        "rank  model  score  (parameters)",
        "   1  a        0.3            12",
        "   -  b          -             -",
    ]


def test_several_estimators_show_their_ranks_and_only_the_first_its_confidence():
    columns = {"probe": [0.9, 0.5], "logme": [-2.0, -1.0]}
    ranking = Ranking(["a", "b"], columns["probe"], columns=columns)
    assert [re.split(r"\s{2,}", line)[-2:] for line in repr(ranking).splitlines()] == [
        ["probe", "logme"], ["0.9 (1)", "-2 (2)"], ["0.5 (2)", "-1 (1)"],
    ]  # fmt: skip
    assert ranking.sure_table() is None
