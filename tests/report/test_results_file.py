"""Result files: everything in them, whole or not at all."""

import csv
import json

import numpy as np
import pytest

from skte.report import results_rows, write_results


@pytest.fixture
def results():
    layers = np.empty(2, dtype=object)
    layers[:] = [("up1", "up2"), ()]
    layer_scores = np.empty(2, dtype=object)
    for i, value in enumerate((np.array([-1.0, -np.inf]), np.array([]))):
        layer_scores[i] = value
    return {
        "name": np.array(["b,ad", "a"], dtype=object),
        "score": np.array([np.nan, -1.5]),
        "rank": np.array([np.nan, 1.0]),
        "n_parameters": np.array([0, 50]),
        "layers": layers,
        "layer_scores": layer_scores,
        "error": np.array(['it "broke"\nbadly', ""], dtype=object),
    }


def test_rows_are_plain_and_sorted(results):
    rows = results_rows(results)
    assert [row["name"] for row in rows] == ["a", "b,ad"]
    assert rows[1]["layers"] == ["up1", "up2"]
    assert type(rows[0]["rank"]) is int
    assert rows[1]["rank"] is None
    assert [row["n_parameters"] for row in rows] == [50, None]


def test_csv_reads_back(results, tmp_path):
    write_results(results, tmp_path / "r.csv")
    with (tmp_path / "r.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == ["a", "b,ad"]
    assert [row["rank"] for row in rows] == ["1", ""]
    assert float(rows[0]["score"]) == -1.5
    assert np.isnan(float(rows[1]["score"]))
    assert rows[1]["error"] == 'it "broke" badly'
    assert [float(v) for v in rows[1]["layer_scores"].split(";")] == [-1.0, -np.inf]


def test_json_is_strict_json(results, tmp_path):
    write_results(results, tmp_path / "r.JSON")

    def refuse(word):
        raise AssertionError(word)

    rows = json.loads((tmp_path / "r.JSON").read_text(), parse_constant=refuse)
    assert rows[0]["score"] == -1.5
    assert rows[1]["score"] == "nan"
    assert rows[1]["rank"] is None
    assert rows[1]["layer_scores"] == [-1.0, "-inf"]


def test_unknown_ending_is_refused_and_nothing_written(results, tmp_path):
    with pytest.raises(ValueError, match=r"r\.txt.*\.csv or \.json"):
        write_results(results, tmp_path / "r.txt")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_old_file(results, tmp_path, monkeypatch):
    path = tmp_path / "r.csv"
    path.write_text("old")
    monkeypatch.setattr("pathlib.Path.replace", lambda *a: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        write_results(results, path)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["r.csv"]
