import pytest
import torch

from skte import SegmentationFeatureExtractor
from skte.bank import load_bank
from skte.cli import main


def rows_of(text):
    return [line.split() for line in text.splitlines()]


def test_layers_of_a_bank_mark_those_that_are_read(write_bank, data, capsys):
    bank = write_bank("a", "b")
    assert main(["inspect", "--bank", str(bank), "--entry", "b"]) == 0
    shown = capsys.readouterr().out
    assert "b: 3-D, 1 channels in" in shown
    assert "\na: " not in shown
    marked = [row[1:] for row in rows_of(shown) if row and row[0] == "*"]
    entry = load_bank(bank)["b"]
    read = SegmentationFeatureExtractor(entry).fit(data).layers_
    assert marked == [
        [i.name, *" x ".join(f"{s:g}" for s in i.stride).split(), str(i.channels)] for i in read
    ]
    assert ["encoder.1", "2", "x", "2", "x", "2", "8"] in rows_of(shown)
    assert "encoder.1.0" not in shown


def test_all_shows_nested_modules(write_bank, capsys):
    assert main(["inspect", "--bank", str(write_bank("a")), "--all"]) == 0
    assert "encoder.1.0" in capsys.readouterr().out


def test_named_layers_are_said_to_be_named(write_bank, capsys):
    bank = write_bank("a", layers=["encoder.1.0", "head"], window_size=[8, 8, 8])
    assert main(["inspect", "--bank", str(bank)]) == 0
    shown = capsys.readouterr().out
    assert "named by the entry" in shown
    assert [row[1] for row in rows_of(shown) if row[:1] == ["*"]] == ["encoder.1.0", "head"]


def test_a_broken_entry_is_a_problem_and_the_others_are_shown(write_bank, capsys):
    bank = write_bank("good", "bad", broken=["bad"])
    assert main(["inspect", "--bank", str(bank)]) == 1
    shown = capsys.readouterr()
    assert "good: 3-D" in shown.out
    assert "bad: cannot be used" in shown.out
    assert "skte: problem: " in shown.err
    assert "'bad'" in shown.err


def test_entry_that_does_not_fit_the_data(write_bank, data, capsys):
    bank = write_bank("two", arguments={"widths": [4, 8], "in_channels": 2})
    assert main(["inspect", "--bank", str(bank), "--data", str(data)]) == 1
    assert "'two'" in capsys.readouterr().err


def test_unknown_entry_and_missing_arguments(write_bank, data, capsys):
    bank = str(write_bank("right"))
    assert main(["inspect", "--bank", bank, "--entry", "rigth"]) == 2
    assert "right" in capsys.readouterr().err
    assert main(["inspect"]) == 2
    assert "--bank" in capsys.readouterr().err
    assert main(["inspect", "--data", str(data), "--entry", "a"]) == 2
    assert "--entry" in capsys.readouterr().err


def test_cases_classes_and_sizes(data, capsys):
    assert main(["inspect", "--data", str(data)]) == 0
    shown = capsys.readouterr().out
    header, first, *_ = shown.splitlines()[1:]
    assert shown.startswith("3 cases, 3 of them readable\n")
    assert header.startswith("case")
    assert "16 x 16 x 16" in first
    counts = [int(word) for word in first.split()[-2:]]
    assert sum(counts) == 16**3


def test_problems_of_a_dataset(broken_data, capsys):
    assert main(["inspect", "--data", str(broken_data)]) == 1
    shown = capsys.readouterr()
    assert "3 cases, 2 of them readable" in shown.out
    assert shown.err.count("skte: problem: ") == 1
    assert "ellipsoids_001" in shown.err


def test_no_readable_case(broken_data, capsys):
    for path in (broken_data / "labelsTr").iterdir():
        path.write_bytes(b"no image")
    assert main(["inspect", "--data", str(broken_data)]) == 1
    assert "0 of them readable" in capsys.readouterr().out


def test_channels_that_cannot_be_told(write_bank, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr("skte.cli._inspect.model_in_channels", lambda network: None)
    assert main(["inspect", "--bank", str(write_bank("a"))]) == 1
    assert "in_channels" in capsys.readouterr().err


@pytest.mark.parametrize("window", [24, [24, 24, 24]])
def test_window_of_the_entry_is_the_example(window, write_bank, capsys, monkeypatch):
    seen = []
    forward = torch.nn.Module.__call__
    monkeypatch.setattr(
        torch.nn.Module, "__call__", lambda m, x: (seen.append(x.shape), forward(m, x))[1]
    )
    assert main(["inspect", "--bank", str(write_bank("a", window_size=window))]) == 0
    assert seen[0] == (1, 1, 24, 24, 24)
