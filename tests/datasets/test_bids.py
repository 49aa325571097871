import numpy as np
import pytest
import torchio as tio

from skte.datasets import check_dataset, load_bids, load_dataset, read_case
from skte.exceptions import DatasetError

LOOKUP = "index\tname\tcolor\n0\tbackground\t#000\n1\tgrey matter\t#111\n2\tCSF\t#222\n"


@pytest.fixture
def root(tmp_path):
    return tmp_path / "ds"


@pytest.fixture
def save(root, nifti, image, label):
    """Write images (their values count up) or segmentations under these names."""
    written = []

    def write(*names):
        for name in names:
            array = label if "dseg" in name else image + len(written)
            written.append(nifti(root / f"{name}.nii.gz", array))
        return root

    return write


@pytest.fixture
def two_subjects(save, root):
    save("sub-01/ses-1/anat/sub-01_ses-1_T1w", "sub-01/ses-2/anat/sub-01_ses-2_T1w")
    save("sub-02/ses-1/anat/sub-02_ses-1_T1w")
    for case in ("sub-01_ses-1", "sub-01_ses-2", "sub-02_ses-1"):
        subject, session = case.split("_")
        save(f"derivatives/manual/{subject}/{session}/anat/{case}_desc-manual_dseg")
    (root / "derivatives/manual/desc-manual_dseg.tsv").write_text(LOOKUP)
    return root


@pytest.mark.parametrize("place", ["", "derivatives/manual"])
def test_subjects_and_sessions(two_subjects, image, place):
    cases = load_dataset(two_subjects / place)
    assert [c["case_id"] for c in cases] == ["sub-01_ses-1", "sub-01_ses-2", "sub-02_ses-1"]
    assert cases[0]["label_names"] == {0: "background", 1: "grey matter", 2: "CSF"}
    assert all(tio.DATA not in case["image"] for case in cases)
    for number, case in enumerate(cases):  # each its own image
        np.testing.assert_array_equal(read_case(case).image, image[None] + number)
    assert check_dataset(cases) == []
    merged = load_dataset(two_subjects, labels={"brain": ["grey matter"]})
    assert read_case(merged[0]).label.max() == 1


def test_the_nearest_table_names_the_ids(two_subjects):
    folder = two_subjects / "derivatives/manual/sub-01/ses-1/anat"
    (folder / "sub-01_ses-1_desc-manual_dseg.tsv").write_text("index\tname\n1\tmine\n")
    (folder / "sub-09_dseg.tsv").write_text("index\tname\n1\tnot this one\n")
    cases = load_dataset(two_subjects)
    assert cases[0]["label_names"] == {1: "mine"}
    assert cases[1]["label_names"][1] == "grey matter"
    (folder / "sub-01_ses-1_desc-manual_dseg.tsv").write_text("id\tname\n1\tmine\n")
    with pytest.raises(DatasetError, match=r"Case 'sub-01_ses-1': .* is not a table with columns"):
        load_dataset(two_subjects)


def test_channels_by_suffix(save, image):
    save("sub-01/anat/sub-01_T1w", "sub-01/anat/sub-01_FLAIR")
    root = save("derivatives/m/sub-01/anat/sub-01_dseg")
    with pytest.raises(DatasetError, match=r"Case 'sub-01': .*several kinds.*FLAIR, T1w"):
        load_dataset(root)
    (case,) = load_dataset(root, channels=["T1w", "FLAIR"])
    np.testing.assert_array_equal(read_case(case).image, [image, image + 1])
    with pytest.raises(DatasetError, match="no image 'T2w'"):
        load_dataset(root, channels=["T1w", "T2w"])


def test_image_of_the_same_space(save, image):
    save("sub-01/anat/sub-01_T1w", "derivatives/p/sub-01/anat/sub-01_space-MNI_desc-preproc_T1w")
    root = save("derivatives/p/sub-01/anat/sub-01_space-MNI_dseg")
    (case,) = load_bids(root)
    np.testing.assert_array_equal(read_case(case).image, [image + 1])
    (root / "derivatives/p/sub-01/anat/sub-01_space-MNI_dseg.nii.gz").unlink()
    save("derivatives/p/sub-01/anat/sub-01_space-orig_dseg")
    (case,) = load_bids(root)
    np.testing.assert_array_equal(read_case(case).image, [image])


def test_several_segmentations_of_a_case(save):
    save("sub-01/anat/sub-01_T1w")
    root = save(*(f"derivatives/m/sub-01/anat/sub-01_desc-{a}_dseg" for a in ("x", "y")))
    with pytest.raises(DatasetError, match=r"several segmentations \(sub-01_desc-x"):
        load_dataset(root)
    (case,) = load_bids(root, desc="y")
    assert case["label"].path.name == "sub-01_desc-y_dseg.nii.gz"
    with pytest.raises(DatasetError, match=r"no file .*desc-z"):
        load_bids(root, desc="z")


def test_several_folders_of_derivatives(save):
    save("sub-01/anat/sub-01_T1w", "derivatives/a/sub-01/anat/sub-01_dseg")
    root = save("derivatives/b/sub-01/anat/sub-01_dseg")
    with pytest.raises(DatasetError, match="derivatives/a, derivatives/b"):
        load_dataset(root)
    assert len(load_dataset(root / "derivatives" / "b")) == 1


def test_runs_do_not_mix(save, image):
    save("sub-01/anat/sub-01_run-1_T1w", "sub-01/anat/sub-01_run-2_T1w")
    root = save("derivatives/m/sub-01/anat/sub-01_run-2_dseg")
    (case,) = load_dataset(root)
    assert case["case_id"] == "sub-01_run-2"
    np.testing.assert_array_equal(read_case(case).image, [image + 1])


def test_missing_images_are_all_listed(two_subjects):
    for path in two_subjects.glob("sub-*/ses-1/anat/*"):
        path.unlink()
    with pytest.raises(DatasetError) as error:
        load_dataset(two_subjects)
    assert [p.case_id for p in error.value.problems] == ["sub-01_ses-1", "sub-02_ses-1"]


def test_other_files_are_left_alone(two_subjects):
    anat = two_subjects / "derivatives/manual/sub-01/ses-1/anat"
    for name in ("sub-01_ses-1_label-GM_probseg.nii.gz", "notes.txt", "._sub-01_dseg.nii.gz", "x"):
        (anat / name).touch()
    assert len(load_dataset(two_subjects)) == 3
