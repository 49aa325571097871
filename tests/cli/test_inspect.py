import json
import shutil

import pytest
import torch

from skte import SegmentationFeatureExtractor
from skte.bank import load_bank
from skte.cli import main
from skte.datasets import make_phantoms
from skte.demo import write_msd


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")  # tables wrap as the terminal wants


def rows_of(text):
    return [line.split() for line in text.splitlines()]


def test_layers_of_a_bank_mark_those_that_are_read(write_bank, data, capsys):
    bank = write_bank("a", "b", window_size=16)
    assert main(["inspect", "--bank", str(bank), "--entry", "b"]) == 0
    shown = capsys.readouterr().out
    assert "b: 3-D, input channels: 1," in shown
    assert "\na: " not in shown
    marked = [row[1:] for row in rows_of(shown) if row and row[0] == "*"]
    entry = load_bank(bank)["b"]
    # As skte rank does where no estimators are chosen, and the decoder alone for others.
    read = SegmentationFeatureExtractor(entry, layers="all").fit(data).layers_
    assert "which skte rank reads unless it is given estimators that score layer by layer" in shown
    assert sorted(marked) == sorted(
        [i.name, *" x ".join(f"{s:g}" for s in i.stride).split(), str(i.channels), i.certainty]
        for i in read
    )
    assert ["head", "1", "x", "1", "x", "1", "2"] in rows_of(shown)
    assert "encoder.1.0" not in shown


def test_all_shows_nested_modules(write_bank, capsys):
    assert main(["inspect", "--bank", str(write_bank("a", window_size=16)), "--all"]) == 0
    assert "encoder.1.0" in capsys.readouterr().out


def test_named_layers_are_said_to_be_named(write_bank, capsys):
    bank = write_bank("a", layers=["encoder.1.0", "head"], window_size=[8, 8, 8])
    assert main(["inspect", "--bank", str(bank)]) == 0
    shown = capsys.readouterr().out
    assert "named by the entry" in shown
    assert [row[1] for row in rows_of(shown) if row[:1] == ["*"]] == ["encoder.1.0", "head"]


def test_a_broken_entry_is_a_problem_and_the_others_are_shown(write_bank, capsys):
    bank = write_bank("good", "bad", broken=["bad"], window_size=16)
    assert main(["inspect", "--bank", str(bank)]) == 1
    shown = capsys.readouterr()
    assert "good: 3-D" in shown.out
    assert "bad: cannot be used" in shown.out
    assert "skte: problem: " in shown.err
    assert "'bad'" in shown.err


@pytest.mark.slow
def test_entry_that_does_not_fit_the_data(write_bank, data, capsys):
    bank = write_bank("two", arguments={"widths": [4, 8], "in_channels": 2})
    assert main(["inspect", "--bank", str(bank), str(data)]) == 1
    assert "'two'" in capsys.readouterr().err


def test_unknown_entry_and_missing_arguments(write_bank, data, capsys):
    bank = str(write_bank("right"))
    assert main(["inspect", "--bank", bank, "--entry", "rigth"]) == 2
    assert "right" in capsys.readouterr().err
    assert main(["inspect"]) == 2
    assert "--bank" in capsys.readouterr().err
    assert main(["inspect", str(data), "--entry", "a"]) == 2
    assert "--entry" in capsys.readouterr().err


def test_summary_classes_and_cases(data, capsys):
    assert main(["inspect", str(data)]) == 0
    shown = capsys.readouterr()
    summary, classes, cases = shown.out.split("\n\n")
    assert summary.splitlines() == [
        "3 cases, 3 of them usable",
        "channels  1",
        "size      16 x 16 x 16",
        "spacing   1 x 1 x 1 mm",
    ]
    rows = [line.split() for line in classes.splitlines()[1:]]
    assert [row[:-3] for row in rows] == [["0", "background"], ["1", "ellipsoids", "1"]]
    assert [row[-3] for row in rows] == ["3", "3"]
    assert sum(int(row[-2]) for row in rows) == 3 * 16**3
    header, *lines = cases.splitlines()
    assert header.startswith("case")
    assert len(lines) == 3
    assert "16 x 16 x 16" in lines[0]
    assert sum(int(word) for word in lines[0].split()[-2:]) == 16**3
    assert shown.err == ""


def test_many_cases_are_cut_short(tmp_path, capsys):
    data = write_msd(tmp_path, make_phantoms(22, size=(8, 8, 8)), "many")
    assert main(["inspect", str(data)]) == 0
    shown = capsys.readouterr().out
    assert "... and 2 more" in shown
    assert "--all shows every case" in shown
    assert main(["inspect", str(data), "--all"]) == 0
    shown = capsys.readouterr().out
    assert "more" not in shown
    assert "--all" not in shown
    assert "ellipsoids_021" in shown


def test_problems_of_a_dataset(broken_data, capsys):
    assert main(["inspect", str(broken_data)]) == 1
    shown = capsys.readouterr()
    assert "3 cases, 2 of them usable" in shown.out
    header, row = shown.out[shown.out.index("case ") :].splitlines()[-2:]
    assert header.split() == ["case", "problem", "what", "to", "do"]
    assert row.startswith("ellipsoids_001  the label is empty")
    assert row.endswith("  leave the case out")
    assert shown.err.count("skte: problem: ") == 1
    assert "1 problem" in shown.err


def test_long_texts_wrap_in_a_narrow_terminal(broken_data, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")  # less than the table can do with
    (broken_data / "labelsTr" / "ellipsoids_002.nii.gz").write_bytes(b"no image")
    assert main(["inspect", str(broken_data)]) == 1
    table = capsys.readouterr().out.split("problems (")[1].splitlines()[1:]
    assert max(map(len, table)) <= 80
    assert len(table) > 3


def test_json(broken_data, write_bank, capsys):
    bank = write_bank("a", window_size=16)
    assert main(["inspect", str(broken_data), "--bank", str(bank), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["data"]["n_cases"] == 3
    first, last = found["data"]["cases"]
    assert (first["case_id"], first["size"]) == ("ellipsoids_000", [16, 16, 16])
    voxels = [label["n_voxels"] for label in found["data"]["labels"]]
    assert voxels == [first["n_voxels"][k] + last["n_voxels"][k] for k in ("0", "1")]
    (problem,) = found["data"]["problems"]
    assert problem["case_id"] == "ellipsoids_001"
    assert problem["remedy"] == "leave the case out"
    (model,) = found["models"]
    assert model["name"] == "a"
    assert any(layer["is_read"] for layer in model["layers"])


def test_what_cannot_be_loaded_is_a_table_too(data, tmp_path, capsys):
    copy = shutil.copytree(data, tmp_path / "copy")
    (copy / "labelsTr" / "ellipsoids_001.nii.gz").unlink()
    assert main(["inspect", str(copy)]) == 2
    shown = capsys.readouterr()
    assert shown.out.startswith("case ")
    assert "training[1]" in shown.out
    assert "1 problem" in shown.err
    assert main(["inspect", str(copy), "--json"]) == 2
    (problem,) = json.loads(capsys.readouterr().out)["data"]["problems"]
    assert "does not exist" in problem["what"]
    assert main(["inspect", str(tmp_path / "nowhere")]) == 2
    assert "does not exist" in capsys.readouterr().err


def test_labels_by_name(data, tmp_path, capsys):
    names = tmp_path / "labels.json"
    names.write_text(json.dumps({"all": ["ellipsoids 1", "background"]}))
    assert main(["inspect", str(data), "--labels", str(names), "--json"]) == 1
    assert main(["inspect", str(data), "--labels", '{"blob": "ellipsoids 1"}', "--json"]) == 0
    *_, last = capsys.readouterr().out.split("\n}\n{")
    labels = json.loads("{" + last)["data"]["labels"]
    assert [label["name"] for label in labels] == ["background", "blob"]
    for text, expected in (
        ('{"a": "elipsoids 1"}', "did you mean 'ellipsoids 1'?"),
        ("{", "not valid JSON"),
        ("no/file.json", "cannot be read"),
    ):
        assert main(["inspect", str(data), "--labels", text]) == 2
        shown = capsys.readouterr()
        assert expected in " ".join((shown.out + shown.err).split())


def test_no_usable_case(broken_data, capsys):
    for path in (broken_data / "labelsTr").iterdir():
        path.write_bytes(b"no image")
    assert main(["inspect", str(broken_data)]) == 1
    assert "0 of them usable" in capsys.readouterr().out


def test_channels_that_cannot_be_told(write_bank, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr("skte.bank.model_in_channels", lambda network: None)
    assert main(["inspect", "--bank", str(write_bank("a"))]) == 1
    assert "in_channels" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("window", [24, [24, 24, 24]])
def test_window_of_the_entry_is_the_example(window, write_bank, capsys, monkeypatch):
    seen = []
    forward = torch.nn.Module.__call__
    monkeypatch.setattr(
        torch.nn.Module, "__call__", lambda m, x: (seen.append(x.shape), forward(m, x))[1]
    )
    assert main(["inspect", "--bank", str(write_bank("a", window_size=window))]) == 0
    assert seen[0] == (1, 1, 24, 24, 24)
