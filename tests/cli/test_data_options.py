"""``skte rank`` on other layouts, with classes merged by name, and its cache."""

import json

import pytest

from skte.cli import main
from skte.datasets import make_phantoms
from skte.demo import write_msd


@pytest.fixture
def data(tmp_path):
    cases = make_phantoms(3, size=(16, 16, 16), labels=(0, 1, 2))
    return write_msd(tmp_path / "data", cases, "two classes")


def scores(capsys, bank, data, *more):
    command = ["rank", "--bank", str(bank), "--data", str(data), "--window", "16", "--json", "-q"]
    command += ["--estimator", "ccfv", "--no-reference"]
    assert main([*command, *more]) == 0
    rows = json.loads(capsys.readouterr().out)
    return [row["score_ccfv"] for row in rows], [row["n_cached"] for row in rows]


@pytest.mark.slow
def test_merged_classes_are_ranked_and_caches_keep_them_apart(data, write_bank, tmp_path, capsys):
    bank, names = write_bank("a", "b"), tmp_path / "labels.json"
    labels = json.loads((data / "dataset.json").read_text())["labels"]
    names.write_text(json.dumps({"all": [labels["1"], labels["2"]]}))
    cache = ["--cache", str(tmp_path / "cache")]
    plain, _ = scores(capsys, bank, data, *cache)
    merged, n_cached = scores(capsys, bank, data, "--labels", str(names), *cache)
    assert n_cached == [0, 0]
    assert all(abs(a - b) > 1e-6 for a, b in zip(plain, merged, strict=True))
    again, n_cached = scores(capsys, bank, data, "--labels", str(names), *cache)
    assert (again, n_cached) == (merged, [3, 3])
    # The same as if the files themselves held the merged classes.
    cases = make_phantoms(3, size=(16, 16, 16), labels=(0, 1, 2))
    for case in cases:
        case["label"].set_data((case["label"].data > 0).to(case["label"].data.dtype))
    assert scores(capsys, bank, write_msd(tmp_path / "merged", cases, "one"))[0] == merged


@pytest.mark.slow
def test_a_table_of_paths_ranks_like_the_folder(data, write_bank, capsys):
    bank = write_bank("a", "b")
    rows = [
        f"{path.name.split('.')[0]},imagesTr/{path.name},labelsTr/{path.name}"
        for path in sorted((data / "imagesTr").iterdir())
    ]
    table = data / "cases.csv"
    table.write_text("\n".join(["case_id,t1,label", *rows]))
    expected = scores(capsys, bank, data)[0]
    assert scores(capsys, bank, table, "--channels", "t1")[0] == expected
    assert main(["rank", "--bank", str(bank), "--data", str(table)]) == 2
    assert "no column begins with 'image'" in capsys.readouterr().err


@pytest.fixture
def four(tmp_path):
    return write_msd(tmp_path / "four", make_phantoms(4, size=(12, 12, 12)), "four")


def inspected(capsys, data, *more):
    code = main(["inspect", str(data), "--json", *map(str, more)])
    shown = capsys.readouterr()
    cases = json.loads(shown.out)["data"]["cases"] if code == 0 else []
    return [case["case_id"] for case in cases], code, shown.err


def test_cases_are_chosen_by_id_or_by_a_fold_of_nnunet(four, tmp_path, capsys):
    a, b, c, d = inspected(capsys, four)[0]
    splits = tmp_path / "splits_final.json"
    splits.write_text(json.dumps([{"train": [a, b], "val": [c]}, {"train": [d, c], "val": [a]}]))
    strange = tmp_path / "splits_strange.json"
    strange.write_text(json.dumps([{"train": [a, "zzz"], "val": [c]}]))
    assert inspected(capsys, four, "--cases", b, a)[0] == [a, b]
    assert inspected(capsys, four, "--cases", f"{b},{a}", d)[0] == [a, b, d]
    assert inspected(capsys, four, "--exclude", f"{b},")[0] == [a, c, d]
    chosen = ["--splits", splits, "--fold", 1]
    assert inspected(capsys, four, *chosen)[0] == [c, d]
    assert inspected(capsys, four, *chosen, "--exclude", d)[1] == 1  # one case is a problem
    for options, told in (
        (["--cases", "zzz"], "cases names zzz, but there is no such case"),
        (["--cases", a.replace("_000", "_0")], f"there is no such case: did you mean {a!r}?"),
        (["--splits", strange, "--fold", 0], f"fold 0 of {strange} names zzz, but there is no"),
        (["--splits", splits], "--splits and --fold belong together"),
        (["--splits", splits, "--fold", 2], "--fold 2: "),
        ([*chosen, "--cases", a], "give one of them"),
        (["--splits", '{"a": 1}', "--fold", 0], "not as nnU-Net writes it"),
    ):
        _, code, err = inspected(capsys, four, *options)
        assert code == 2
        assert told in err


def test_an_image_without_a_label_can_be_skipped(four, capsys):
    a, *others = inspected(capsys, four)[0]
    (four / "labelsTr" / f"{a}.nii.gz").unlink()
    for more in ([], ["--json"]):
        assert main(["inspect", str(four), *more]) == 2
        assert "--skip-unusable" in "".join(capsys.readouterr().out.split())  # however wrapped
    assert main(["inspect", str(four), "--json", "--skip-unusable"]) == 0
    shown = capsys.readouterr()
    found = json.loads(shown.out)["data"]
    assert [case["case_id"] for case in found["cases"]] == others
    assert "1 left out as incomplete" in shown.err
    assert any("1 left out as incomplete" in str(note) for note in found["notes"])


@pytest.mark.slow
def test_an_unusable_case_names_the_way_out_which_works(broken_data, write_bank, capsys):
    command = ["rank", "--bank", str(write_bank("a", "b")), "--data", str(broken_data)]
    command += ["--no-reference", "--estimator", "logme", "--json"]
    assert main(command) == 2
    told = capsys.readouterr().err
    assert "the label is empty" in told
    assert main([*command, "--skip-unusable"]) == 0
    skipped = capsys.readouterr()
    (name,) = [line.split()[4].rstrip(":") for line in skipped.err.splitlines() if "left" in line]
    assert f"--exclude {name}, or --skip-unusable" in told
    assert main([*command, "--exclude", name]) == 0
    rows = [
        [row["score"] for row in json.loads(out)] for out in (skipped.out, capsys.readouterr().out)
    ]
    assert rows[0] == rows[1]
