"""`skte cache`: what it prints, what it removes, and its exit codes."""

import json
import os
import time

import numpy as np
import pytest

from skte.cli import main
from skte.extraction import FeatureCache, make_key
from skte.features import CaseFeatures, LayerSample

KEYS = [make_key(case=i) for i in range(3)]


@pytest.fixture
def folder(tmp_path):
    """A cache of three entries, used 0, 10 and 20 days ago, and one record."""
    cache = FeatureCache(tmp_path / "cache")
    sample = LayerSample(np.ones((10, 4)), np.zeros(10, dtype=int), np.ones((2, 4)))
    for i, key in enumerate(KEYS):
        assert cache.store(key, CaseFeatures(str(i), {"up": sample}))
        used = time.time() - 86_400 * 10 * i
        os.utime(entry(cache.root, key), (used, used))
    cache.store_record(KEYS[0], {"layers": ["up"]})
    return cache.root


def entry(root, key):
    return root / key[:2] / f"{key}.skf"


def test_info(folder, capsys):
    assert main(["cache", "info", str(folder), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["n_entries"], found["n_records"], found["n_leftovers"]) == (3, 1, 0)
    files = [path for path in folder.rglob("*") if path.is_file() and path.parent != folder]
    assert found["n_bytes"] == sum(path.stat().st_size for path in files)
    assert found["oldest"] < found["newest"]
    assert main(["cache", "info", str(folder)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert ["entries", "3"] in [line.split() for line in lines]


def test_verify_names_the_damaged_and_leaves_them(folder, capsys):
    assert main(["cache", "verify", str(folder)]) == 0
    assert capsys.readouterr().out == "4 files, 0 of them damaged\n"
    path = entry(folder, KEYS[1])
    path.write_bytes(path.read_bytes()[:-1])
    assert main(["cache", "verify", str(folder), "--json"]) == 1
    shown = capsys.readouterr()
    assert json.loads(shown.out) == {"n_files": 4, "damaged": [str(path)]}
    assert shown.err.startswith(f"skte: problem: {path} is damaged")
    assert path.exists()


@pytest.mark.parametrize(
    ("limit", "left"),
    [
        (["--max-age", "15d"], [0, 1]),
        (["--max-age", "1w"], [0]),
        (["--max-age", "300h"], [0, 1]),
        (["--max-size", "1GB"], [0, 1, 2]),
        (["--max-size", "0"], []),
        (["--max-size", "1GB", "--max-age", "5"], [0]),
    ],
)
def test_prune(limit, left, folder, capsys):
    assert main(["cache", "prune", str(folder), *limit]) == 0
    assert [i for i, key in enumerate(KEYS) if entry(folder, key).exists()] == left
    assert capsys.readouterr().out.startswith(f"removed {3 - len(left) + (left == [])} files")


def test_prune_needs_a_limit(folder, capsys):
    assert main(["cache", "prune", str(folder)]) == 2
    assert "--max-size" in capsys.readouterr().err


@pytest.mark.parametrize("size", ["-1", "2XB", "GB", "nan", "1e99", ""])
def test_sizes_are_checked_as_they_are_parsed(size, folder, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["cache", "prune", str(folder), f"--max-size={size}"])
    assert stop.value.code == 2
    assert "must be a size" in capsys.readouterr().err
    assert entry(folder, KEYS[2]).exists()


def test_clear_removes_what_is_ours_and_nothing_else(folder, capsys):
    other = folder / KEYS[0][:2] / "notes.txt"
    other.write_text("mine")
    assert main(["cache", "clear", str(folder), "--json"]) == 0
    removed = json.loads(capsys.readouterr().out)
    assert (removed["n_files"], removed["n_failed"], removed["n_bytes_left"]) == (4, 0, 0)
    assert other.read_text() == "mine"
    assert main(["cache", "info", str(folder)]) == 0


def test_files_that_cannot_be_removed_need_attention(folder, monkeypatch, capsys):
    def refuse(path, missing_ok=False):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.unlink", refuse)
    assert main(["cache", "clear", str(folder)]) == 1
    assert "4 files" in capsys.readouterr().err


@pytest.mark.parametrize("action", ["info", "verify", "clear"])
def test_other_folders_are_refused(action, tmp_path, capsys):
    (tmp_path / "thesis.tex").write_text("years of work")
    assert main(["cache", action, str(tmp_path)]) == 2
    assert "holds no cache of skte" in capsys.readouterr().err
    assert main(["cache", action, str(tmp_path / "none")]) == 2
    assert "The cache folder" in capsys.readouterr().err
    assert main(["cache", action, str(tmp_path / "thesis.tex")]) == 2
    assert "is a file" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
