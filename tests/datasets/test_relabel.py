"""Classes chosen and merged by name: an oracle by masks, laws, and messages."""

import pickle

import numpy as np
import pytest
import torch
import torchio as tio
from hypothesis import given
from hypothesis import strategies as st

from skte.datasets import (
    case_fingerprint,
    check_dataset,
    load_dataset,
    load_nnunet_raw,
    read_case,
)
from skte.datasets._labels import Relabeling  # its laws, on values that a label map never has
from skte.exceptions import DatasetError

NAMES = {0: "background", 1: "LV", 2: "RV", 3: "MYO", 7: "aorta"}


@pytest.fixture
def heart(image):
    """One case in memory whose label holds every class."""
    label = np.resize([0, 1, 2, 3, 7], image.shape).astype(np.int16)
    return {"id": "a", "image": image, "label": label, "label_names": NAMES}


def by_masks(label, classes):
    """New ids, class by class, later ones over earlier ones."""
    result = np.zeros(label.shape, dtype=np.int64)
    for number, ids in classes.items():
        result[np.isin(label, ids)] = number
    return result


@pytest.mark.parametrize(
    ("labels", "classes", "names"),
    [
        ({"heart": ["LV", "RV", "MYO"], "background": 0}, {1: [1, 2, 3]}, ["heart"]),
        ({"heart": ["LV", 2, "3"]}, {1: [1, 2, 3]}, ["heart"]),
        ({"MYO": "MYO", "LV": "LV"}, {1: [3], 2: [1]}, ["MYO", "LV"]),
        ({"all": ["LV", "RV", "MYO"], "wall": "MYO"}, {1: [1, 2, 3], 2: [3]}, ["all", "wall"]),
        ({"vessel": 7}, {1: [7]}, ["vessel"]),
    ],
    ids=str,
)
def test_classes_are_what_masks_make_of_them(heart, labels, classes, names):
    (subject,) = load_dataset([heart], labels=labels)
    case = read_case(subject)
    np.testing.assert_array_equal(case.label, by_masks(heart["label"], classes))
    assert list(case.label_names.values()) == ["background", *names]
    assert case.ignore_label is None


def test_ignored_classes(heart):
    (subject,) = load_dataset([heart], labels={"LV": "LV", "ignore": ["aorta", "RV"]})
    case = read_case(subject)
    expected = by_masks(heart["label"], {1: [1], 2: [2, 7]})
    np.testing.assert_array_equal(case.label, expected)
    assert (case.ignore_label, case.label_names) == (2, {0: "background", 1: "LV"})


@pytest.mark.parametrize("ignored", [7, -1])
def test_what_was_ignored_stays_ignored(heart, ignored):
    heart["label"][heart["label"] == 7] = ignored
    item = heart | {"ignore_label": ignored}
    case = read_case(load_dataset([item], labels={"ventricles": ["LV", "RV"]})[0])
    assert case.ignore_label == 2
    np.testing.assert_array_equal(case.label == 2, heart["label"] == ignored)
    asked = load_dataset([item], labels={"ventricles": ["LV", "RV"], "x": "ignore"})[0]
    assert read_case(asked).ignore_label is None
    np.testing.assert_array_equal(read_case(asked).label == 2, heart["label"] == ignored)


def test_files_stay_lazy_and_torchio_sees_the_same(save_msd, label):
    given_labels = {"all": ["a", "b"]}
    subjects = load_dataset(save_msd(), labels=given_labels)
    for subject in (pickle.loads(pickle.dumps(subjects[0])), subjects[0]):
        assert tio.DATA not in subject["label"]
        np.testing.assert_array_equal(read_case(subject).label, label > 0)
        assert tio.DATA not in subject["label"]
        np.testing.assert_array_equal(subject["label"].data[0], label > 0)
    assert len(pickle.dumps(load_dataset(save_msd(), labels=given_labels)[0])) < 2500


def test_twice_is_as_good_as_both_at_once(save_msd, label):
    once = load_dataset(save_msd(), labels={"x": "b", "y": "a"})
    twice = load_dataset(once, labels={"z": ["x"]})
    assert tio.DATA not in twice[0]["label"]
    np.testing.assert_array_equal(read_case(twice[0]).label, label == 2)
    direct = load_dataset(save_msd(), labels={"z": "b"})
    assert [case_fingerprint(c) for c in twice] == [case_fingerprint(c) for c in direct]


def test_fingerprints_change_and_loading_does_not_change_them(save_msd):
    folder = save_msd()
    variants = [None, {"a": "a"}, {"a": "b"}, {"a": ["a", "b"]}, {"a": "a", "ignore": "b"}]
    cases = [load_dataset(folder, labels=labels)[0] for labels in variants]
    digests = [case_fingerprint(case) for case in cases]
    assert len(set(digests)) == len(variants)
    for case in cases:
        case.load()
    assert [case_fingerprint(case) for case in cases] == digests
    cases[1]["label"].data[0, 0, 0, 0] = 1
    assert case_fingerprint(cases[1]) not in digests


def test_subjects_given_are_left_as_they_are(heart):
    (before,) = load_dataset([heart])
    load_dataset([before], labels={"LV": "LV"})
    assert before["label_names"] == NAMES
    np.testing.assert_array_equal(before["label"].data[0], heart["label"])


def test_all_unknown_names_are_listed_once_with_those_there_are(save_msd):
    with pytest.raises(DatasetError) as error:
        load_dataset(save_msd(3), labels={"x": ["aa", "b"], "y": ["LV"], "z": []})
    text = str(error.value)
    assert text.count("'aa' in class 'x' is not a label") == 1
    assert "did you mean 'a'?" in text
    assert "'LV' in class 'y' is not a label" in text
    assert "give those without a name by their number" in text
    assert "background (0), a (1), b (2)" in text
    assert "class 'z' is made of nothing" in text
    assert len(error.value.problems) == 3


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["a"], "must be a mapping"),
        ({1: "a"}, "must be a mapping"),
        ({"background": 0}, "no class besides background"),
        ({"x": "a", "y": ["a", "b"]}, "nothing is left of 'x'"),
        ({"x": 1.5}, "1.5 in class 'x' is not a label"),
        ({"x": True}, "True in class 'x' is not a label"),
    ],
)
def test_labels_that_make_no_sense(save_msd, labels, message):
    with pytest.raises(DatasetError, match=message):
        load_dataset(save_msd(), labels=labels)


@pytest.mark.parametrize("bad", [1.5, np.nan, -3])
def test_broken_values_are_still_found(heart, bad):
    label = heart["label"].astype(np.float32)
    label[0, 0, 0] = bad
    (subject,) = load_dataset([heart | {"label": label}], labels={"LV": "LV"})
    with pytest.raises(DatasetError, match=r"Case 'a': the label (is float|has)"):
        read_case(subject)


def test_a_class_that_no_voxel_has_leaves_an_empty_label(heart):
    (subject,) = load_dataset([heart], labels={"x": 99})
    with pytest.raises(DatasetError, match="the label is empty"):
        read_case(subject)


# nnU-Net's regions and ignore label.
REGIONS = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": 3}


def test_regions_that_change_no_id_leave_files_as_they_are(save_nnunet, label):
    folder = save_nnunet(labels=REGIONS, regions_class_order=[1, 2, 3])
    plain = unmerged_fingerprint(folder)
    subject = load_dataset(folder)[0]
    assert case_fingerprint(subject) == plain
    assert subject["label_names"] == {0: "background", 1: "whole", 2: "core", 3: "enhancing"}
    assert subject["label_ids"]["whole"] == (1, 2, 3)
    np.testing.assert_array_equal(read_case(subject).label, label)


def unmerged_fingerprint(folder):
    return case_fingerprint(load_nnunet_raw(folder, merge_regions=False)[0])


def test_regions_are_numbered_as_nnunet_does(save_nnunet, label, nifti):
    labels = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "ignore": 4}
    folder = save_nnunet(labels=labels, regions_class_order=[1, 3])
    four = np.resize([0, 1, 2, 3, 4], label.shape).astype(np.uint8)
    nifti(folder / "labelsTr" / "c_000.nii.gz", four)
    subject = load_dataset(folder)[0]
    case = read_case(subject)
    # As nnU-Net turns predicted regions into a map: in order, later ones over earlier ones.
    expected = np.where(four == 4, 4, by_masks(four, {1: [1, 2, 3], 3: [2, 3]}))
    np.testing.assert_array_equal(case.label, expected)
    assert case.label_names == {0: "background", 1: "whole", 3: "core"}
    assert case.ignore_label == 4
    assert check_dataset(load_dataset(folder)) == []


def test_regions_by_name_mean_the_ids_of_the_files(save_nnunet, nifti, label):
    labels = {"background": 0, "A": [1, 2], "B": [2, 3]}
    folder = save_nnunet(labels=labels, regions_class_order=[1, 2])
    every = np.resize([0, 1, 2, 3], label.shape).astype(np.uint8)
    nifti(folder / "labelsTr" / "c_000.nii.gz", every)
    case = read_case(load_dataset(folder, labels={"only A": "A"})[0])
    np.testing.assert_array_equal(case.label, np.isin(every, [1, 2]))
    # After merging, A (1 and 2) cannot be told from what B has overwritten.
    assert load_dataset(folder)[0]["label_ids"]["A"] == (1,)


@pytest.mark.parametrize("order", [[1, 2], [1, 1, 2], [1, 2, 0], "123", [1, 2, "x"], 5])
def test_orders_that_are_none(save_nnunet, order):
    with pytest.raises(DatasetError, match="key 'regions_class_order' has no number"):
        load_dataset(save_nnunet(labels=REGIONS, regions_class_order=order))


def test_a_region_that_later_ones_hide(save_nnunet):
    labels = {"background": 0, "core": [2, 3], "whole": [1, 2, 3]}
    with pytest.raises(DatasetError, match=r"nothing is left of region 'core'.*larger ones first"):
        load_dataset(save_nnunet(labels=labels, regions_class_order=[1, 2]))


IDS = st.integers(-3, 9)
RELABELINGS = st.builds(
    Relabeling.of, st.dictionaries(IDS, st.integers(0, 5), max_size=5), st.none() | st.just(0)
)


@pytest.mark.slow
@given(RELABELINGS, RELABELINGS, st.lists(IDS, min_size=1), st.sampled_from(["i1", "i8", "f4"]))
def test_two_in_a_row_are_one(first, second, values, dtype):
    array = np.array(values, dtype=dtype)
    np.testing.assert_array_equal(first.then(second).apply(array), second.apply(first.apply(array)))
    assert first.apply(array).tolist() == [first(value) for value in values]


def test_ids_far_apart():
    array = np.array([0, 10**12, 5, -(10**12)])
    assert Relabeling.of({10**12: 1}, rest=0).apply(array).tolist() == [0, 1, 0, -(10**12)]
    assert Relabeling.of({10**12: 1}).apply(array).tolist() == [0, 1, 5, -(10**12)]


def test_what_holds_no_integers_is_left_alone():
    for array in (np.array([0.5]), np.array([np.inf]), np.array(["a"]), np.array([], dtype=int)):
        assert Relabeling.of({0: 1}).apply(array) is array
    assert torch.from_numpy(Relabeling.of({1: 4}).apply(np.array([True, False]))).tolist() == [4, 0]
