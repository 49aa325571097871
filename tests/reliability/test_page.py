"""Pages on trust show what was measured, and nothing was lost."""

import json
from pathlib import Path

import pytest

# Benchmarks are not part of a source distribution.
pytest.importorskip("benchmarks")
ROOT = Path(__file__).parents[2]
RESULT = ROOT / "benchmarks" / "reliability" / "results" / "reliability.json"


@pytest.fixture
def result():
    return json.loads(RESULT.read_text())


def test_tables_are_those_of_the_result_file(result):
    from benchmarks.reliability._page import tables

    page = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    for table in tables(result).values():
        assert table in page


def test_the_table_of_attacks_is_that_of_the_result_files():
    from benchmarks.reliability._doors import results
    from benchmarks.reliability._page import attack_table

    page = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    assert attack_table(results()) in page
    for found in results().values():
        for row in found["rows"]:
            assert row["problems"] == []
            assert row["held"] == row["tried"] > 0


def test_table_of_growth_is_that_of_the_result_file(result):
    from benchmarks.scale._page import table

    grown = json.loads((ROOT / "benchmarks/scale/results/scale.json").read_text())
    assert table(grown) in (ROOT / "docs/how-to/clusters.md").read_text(encoding="utf-8")
    for growth in grown["exponents"].values():
        assert growth["seconds"] < 1.2
        assert growth["files"] < 1.2
    assert grown["command_line"]["rank"]["code"] == grown["command_line"]["bank list"]["code"] == 0


def test_table_of_compatibility():
    from benchmarks.compatibility._page import table

    runs = json.loads((ROOT / "benchmarks/compatibility/results/compatibility.json").read_text())
    assert table(runs) in (ROOT / "docs/compatibility.md").read_text(encoding="utf-8")
    assert {run["dependencies"] for run in runs["runs"]} == {"lowest", "pinned"}
    assert {run["installed"] for run in runs["runs"]} == {"sdist", "wheel"}
    for run in runs["runs"]:
        assert run["failed"] == []
        assert run["passed"] > 4000
        assert not run["uncommitted_changes"]


def test_nothing_was_lost(result):
    found = [row for part in ("kills", "faults", "fuzz") for row in result[part].values()]
    rows = [row for row in found if isinstance(row, dict)]
    assert len(rows) == 18
    assert [row["problems"] for row in rows] == [[]] * len(rows)
    assert not result["uncommitted_changes"]
