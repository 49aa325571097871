import numpy as np
import pytest
import SimpleITK
import torch

from skte.datasets import check_dataset, load_dataset, load_folder, read_case
from skte.exceptions import DatasetError, SkteWarning


@pytest.fixture
def write(tmp_path, nifti, image, label):
    """Write images and labels of these names."""

    def write(images, labels, folders=("images", "labels")):
        for folder, names, array in zip(folders, (images, labels), (image, label), strict=True):
            (tmp_path / folder).mkdir(exist_ok=True)
            for name in names:
                nifti(tmp_path / folder / name, array)
        return tmp_path

    return write


def test_matches_by_stem_whatever_the_ending(write):
    cases = load_dataset(write(["b.nii.gz", "a.nii"], ["a.nii.gz", "b.nii"]))
    assert [c["case_id"] for c in cases] == ["a", "b"]
    assert check_dataset(cases) == []


def test_channels(write):
    cases = load_folder(write(["a_0001.nii.gz", "a_0000.nii.gz"], ["a.nii.gz"]))
    assert [p.name for p in cases[0]["image"].path] == ["a_0000.nii.gz", "a_0001.nii.gz"]
    assert read_case(cases[0]).image.shape[0] == 2


def test_four_digits_may_be_the_name_of_a_case(write):
    names = ["patient_0000.nii.gz", "patient_0001.nii.gz"]
    cases = load_folder(write(names, names))
    assert [c["case_id"] for c in cases] == ["patient_0000", "patient_0001"]


def test_other_folder_names_and_stray_files(write):
    folder = write(["a.nii.gz"], ["a.nii.gz"], folders=("imagesTr", "labelsTr"))
    for name in (".DS_Store", "notes.txt", "._a.nii.gz", ".nii.gz"):
        (folder / "imagesTr" / name).touch()
    assert len(load_folder(folder, images="imagesTr", labels="labelsTr")) == 1
    with pytest.raises(DatasetError, match=r"load_folder\(path, images='imagesTr'"):
        load_dataset(folder)


def test_all_unmatched_files_are_listed_at_once(write):
    folder = write(
        ["a.nii.gz", "b.nii.gz", "d_0001.nii.gz", "e.nii.gz", "e_0000.nii.gz", "f.nii", "f.nii.gz"],
        ["a.nii.gz", "c.nii.gz", "d.nii.gz", "e.nii.gz", "f.nii.gz"],
    )
    with pytest.raises(DatasetError) as error:
        load_folder(folder)
    text = str(error.value)
    assert "image b.nii.gz has no label" in text
    assert "label c.nii.gz has no image" in text
    assert "Case 'd': it lacks channel _0000" in text
    assert "Case 'e': it has channel 0 twice" in text
    assert "Case 'f': files f.nii, f.nii.gz in images/ share this case id" in text
    assert "skip_incomplete=True (--skip-unusable)" in text
    with pytest.warns(SkteWarning, match="5 left out as incomplete") as told:
        cases = load_dataset(folder, skip_incomplete=True)
    assert [case["case_id"] for case in cases] == ["a"]
    (note,) = cases.notes
    assert "image b.nii.gz has no label" in note.what
    assert str(note) in str(told[0].message)
    (folder / "labels" / "a.nii.gz").unlink()
    with pytest.raises(DatasetError, match=r"image a\.nii\.gz has no label") as error:
        load_dataset(folder, skip_incomplete=True)
    assert "skip_incomplete=True" not in str(error.value)


def test_number_of_channels_differs(write):
    folder = write(["a_0000.nii.gz", "a_0001.nii.gz", "b.nii.gz"], ["a.nii.gz", "b.nii.gz"])
    with pytest.raises(DatasetError, match="Case 'b': it has 1 channels where 2 are expected"):
        load_folder(folder)


def test_folder_missing_or_without_images(write, tmp_path):
    folder = write([], ["a.nii.gz"])
    with pytest.raises(DatasetError, match="folder 'images' holds no image file"):
        load_folder(folder)
    with pytest.raises(DatasetError, match="no folder 'pictures'"):
        load_folder(folder, images="pictures")


def test_png(tmp_path):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (7, 9)).astype(np.uint8)
    mask = (pixels > 128).astype(np.uint8)
    for folder, array in (("images", pixels), ("labels", mask)):
        (tmp_path / folder).mkdir()
        SimpleITK.WriteImage(SimpleITK.GetImageFromArray(array), tmp_path / folder / "a.png")
    case = read_case(load_dataset(tmp_path)[0])
    assert case.image.shape == (1, 9, 7, 1)
    np.testing.assert_array_equal(case.image[0, :, :, 0].numpy(), pixels.T)
    torch.testing.assert_close(case.label, (case.image[0] > 128).long())
    path = tmp_path / "images" / "a.png"
    content = path.read_bytes()
    damaged = content.index(b"IDAT") + 8
    path.write_bytes(content[:damaged] + bytes(20) + content[damaged + 20 :])
    with pytest.raises(DatasetError) as caught:
        read_case(load_dataset(tmp_path)[0])
    assert str(caught.value).endswith(
        f"{path} cannot be read (it is cut short or damaged (broken data stream when reading image "
        "file)); replace it or leave the case out."
    )
    path.write_bytes(b"no picture")
    with pytest.raises(DatasetError, match=r"a\.png cannot be read"):
        read_case(load_dataset(tmp_path)[0])
