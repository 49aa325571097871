"""What is told of a dataset, whatever form it comes in."""

import numpy as np
import pytest
import torchio as tio

from skte.datasets import check_dataset, inspect_dataset, make_phantoms
from skte.exceptions import DatasetError


@pytest.fixture(scope="module")
def cases():
    return make_phantoms(3, size=(12, 12, 12))


@pytest.fixture(scope="module")
def folder(cases, tmp_path_factory):
    root = tmp_path_factory.mktemp("plain")
    for name in ("images", "labels"):
        (root / name).mkdir()
        for case in cases:
            case[name[:-1]].save(root / name / f"{case['case_id']}.nii.gz")
    return root


def test_every_form_of_a_dataset_gives_the_same_report(cases, folder):
    expected = inspect_dataset(cases)
    assert expected.n_cases == 3
    dicts = [
        {"id": one["case_id"], "image": one["image"].numpy(), "label": one["label"].numpy()}
        for one in cases
    ]
    for form in (tuple(cases), tio.SubjectsDataset(cases), folder, str(folder), dicts):
        assert inspect_dataset(form).cases == expected.cases
        assert check_dataset(form) == []


def test_broken_subjects_are_reported_not_raised(cases):
    broken = [*cases, cases[0], tio.Subject(image=cases[1]["image"], case_id="bare")]
    told = [problem.what for problem in inspect_dataset(broken).problems]
    assert any("used by 2 cases" in what for what in told)
    assert any("no label" in what for what in told)
    assert len(check_dataset(broken)) == 2


@pytest.mark.parametrize("look", [inspect_dataset, check_dataset])
@pytest.mark.parametrize("wrong", [None, 3, "nowhere", [np.zeros((4, 4))], [1]])
def test_what_is_no_dataset_is_refused_by_name(look, wrong):
    with pytest.raises(DatasetError, match=r"dataset|layout|at position 0"):
        look(wrong)


def test_a_report_prints_as_tables(cases):
    report = inspect_dataset(cases)
    text = str(report)
    assert text == report.to_text()
    lines = text.splitlines()
    assert lines[0] == "3 cases, 3 of them usable"
    assert "size      12 x 12 x 12" in lines
    assert [line.split()[0] for line in lines[-3:]] == [case["case_id"] for case in cases]
    one = str(inspect_dataset(cases[:1]))
    assert one.startswith("1 case, 1 of them usable")
    assert "problems (with these, it cannot be ranked):\n" in one
    assert "give at least two" in str(inspect_dataset([]))


def test_many_cases_are_cut_short_unless_asked_for(cases):
    many = [tio.Subject({**cases[0], "case_id": f"c{i}"}) for i in range(23)]
    report = inspect_dataset(many)
    assert "... and 3 more" in str(report)
    assert "c22" not in str(report)
    assert "c22" in report.to_text(every=True)
    assert "more" not in report.to_text(every=True)
