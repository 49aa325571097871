"""Cases that lack files are left out in every layout on request, and are else all named."""

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from skte.datasets import layout_names, load_dataset
from skte.exceptions import DatasetError, SkteWarning


@pytest.fixture
def msd(save_msd):
    folder = save_msd(3)
    (folder / "labelsTr" / "c_001.nii.gz").unlink()
    return folder, ["c_000", "c_002"]


@pytest.fixture
def nnunet(save_nnunet):
    folder = save_nnunet(3)
    (folder / "labelsTr" / "c_001.nii.gz").unlink()
    return folder, ["c_000", "c_002"]


@pytest.fixture
def bids(tmp_path, nifti, image, label):
    for n in (1, 2, 3):
        place = tmp_path / f"sub-{n}" / "anat"
        nifti(place / f"sub-{n}_dseg.nii.gz", label)
        if n != 2:
            nifti(place / f"sub-{n}_T1w.nii.gz", image)
    return tmp_path, ["sub-1", "sub-3"]


@pytest.fixture
def dicom(tmp_path, nifti, label):
    for n in (1, 2, 3):
        (tmp_path / f"p{n}" / "CT").mkdir(parents=True)
        slices = sitk.GetImageFromArray(np.zeros((1, 5, 6), np.int16))
        sitk.WriteImage(slices, str(tmp_path / f"p{n}" / "CT" / "1.dcm"))
        if n != 2:
            nifti(tmp_path / f"p{n}" / "label.nii.gz", label[..., :1])
    return tmp_path, ["p1", "p3"]


@pytest.fixture
def folder(tmp_path, nifti, image, label):
    for name in "abc":
        nifti(tmp_path / "images" / f"{name}.nii.gz", image)
        if name != "b":
            nifti(tmp_path / "labels" / f"{name}.nii.gz", label)
    return tmp_path, ["a", "c"]


@pytest.fixture
def csv(tmp_path, nifti, image, label):
    nifti(tmp_path / "i.nii.gz", image)
    nifti(tmp_path / "l.nii.gz", label)
    rows = "id,image,label\na,i.nii.gz,l.nii.gz\nb,i.nii.gz,\nc,i.nii.gz,l.nii.gz\nd,i.nii.gz,m.nii"
    (tmp_path / "cases.csv").write_text(rows)
    return tmp_path / "cases.csv", ["a", "c"]


@pytest.mark.parametrize("layout", layout_names()[:6])
def test_incomplete_cases(layout, request):
    path, complete = request.getfixturevalue(layout)
    with pytest.raises(DatasetError, match=r"or leave it out: skip_incomplete=True"):
        load_dataset(path)
    with pytest.warns(SkteWarning, match="left out as incomplete"):
        cases = load_dataset(path, skip_incomplete=True)
    assert [case["case_id"] for case in cases] == complete
    assert any("left out as incomplete" in note.what for note in cases.notes)
