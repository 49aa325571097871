"""The catalogue of published models: every row is whole, and says what was tried."""

import json
from pathlib import Path

import pytest

from skte.bank import all_readers, catalogue
from skte.cli import main

yaml = pytest.importorskip("yaml")


def test_every_row_is_whole():
    rows = catalogue()
    assert len({row.name for row in rows}) == len(rows) >= 7
    for row in rows:
        values = vars(row)
        assert all(isinstance(value, str) for value in values.values()), row.name
        assert all(value for key, value in values.items() if key != "spacing"), row.name
        assert row.where.startswith("https://")
        assert "not loaded here" in row.checked or "random weights" in row.checked


def test_readers_and_pages_that_rows_name_exist():
    text = " ".join(row.read for row in catalogue())
    named = [part.partition('"')[0] for part in text.split('reader "')[1:]]
    assert named
    assert set(named) <= set(all_readers())
    docs = (Path(__file__).parents[2] / "docs/how-to/banks.md").read_text("utf-8")
    assert "skte bank catalogue" in docs


def test_the_shell_lists_it(capsys):
    assert main(["bank", "catalogue"]) == 0
    out = capsys.readouterr().out
    assert all(row.name in out and row.where in out for row in catalogue())
    assert main(["bank", "catalogue", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)["collections"]
    assert listed == [vars(row) for row in catalogue()]
