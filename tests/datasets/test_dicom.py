"""DICOM series, written here with SimpleITK, beside what torchio reads of them."""

import locale

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torchio as tio
from scipy.spatial.transform import Rotation

from skte.datasets import (
    case_fingerprint,
    check_dataset,
    inspect_dataset,
    load_dataset,
    load_dicom,
    read_case,
)
from skte.exceptions import DatasetError

TURNED = Rotation.from_euler("xyz", [5, 10, -7], degrees=True).as_matrix()
SPACING = (0.8, 0.9, 2.5)


def write_series(folder, volume, *, direction=None, uid="1.2.3.4", skip=(), spacing=SPACING):
    """Write the slices of a volume (x, y, z) of CT, file names out of order."""
    folder.mkdir(parents=True, exist_ok=True)
    direction = np.eye(3) if direction is None else direction
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for k in range(volume.shape[2]):
        if k in skip:
            continue
        image = sitk.GetImageFromArray(volume[:, :, k].T.astype(np.int16)[None])
        position = np.array([10.0, -20, 30]) + direction[:, 2] * spacing[2] * k
        image.SetSpacing(spacing)
        image.SetOrigin(position.tolist())
        image.SetDirection(direction.ravel().tolist())
        tags = {
            "0008|0060": "CT",
            "0020|000d": "1.2.3",
            "0020|000e": uid,
            "0020|0013": str(k + 1),
            "0020|0032": "\\".join(f"{p:.6f}" for p in position),
            "0020|0037": "\\".join(f"{v:.6f}" for v in direction[:, :2].T.ravel()),
            "0028|1052": "-1024",
            "0028|1053": "1",
        }
        for tag, value in tags.items():
            image.SetMetaData(tag, value)
        writer.SetFileName(str(folder / f"{uid}_{k * 7 % 10}.dcm"))
        writer.Execute(image)
    return folder


@pytest.fixture
def volume():
    return np.random.default_rng(0).integers(-1000, 1000, (6, 5, 4))


@pytest.fixture
def save(tmp_path, volume, label):
    """Write cases of one series and a label that lies on the series' grid."""

    def write(*names, series="CT", direction=None):
        for name in names:
            folder = write_series(tmp_path / name / series, volume, direction=direction)
            affine = tio.ScalarImage(folder).affine
            tio.LabelMap(tensor=label[None], affine=affine).save(tmp_path / name / "label.nii.gz")
        return tmp_path

    return write


def test_cases_with_a_label_map(save, volume, label):
    cases = load_dataset(save("p1", "p2", direction=TURNED))
    assert [c["case_id"] for c in cases] == ["p1", "p2"]
    assert check_dataset(cases) == []
    assert tio.DATA not in cases[0]["image"]
    case = read_case(cases[0])
    assert tio.DATA not in cases[0]["image"]
    np.testing.assert_array_equal(case.image[0], volume)
    np.testing.assert_array_equal(case.label, label)
    np.testing.assert_allclose(case.spacing, SPACING, rtol=1e-6)
    seen = tio.ScalarImage(cases[0]["image"].path)
    assert seen.shape == tuple(case.image.shape) == (1, 6, 5, 4)
    np.testing.assert_allclose(case.affine, seen.affine, atol=1e-9)
    assert inspect_dataset(cases).problems == ()


def test_a_label_with_rows_in_another_order_is_put_in_order(save, label):
    """As converters to NIfTI write it: flipped rows, swapped axes, the same places."""
    root = save("p1", "p2", direction=TURNED)
    path = root / "p1" / "label.nii.gz"
    turned = tio.ToOrientation("PRS")(tio.LabelMap(path))
    assert turned.spatial_shape != label.shape
    turned.save(path)
    cases = load_dataset(root)
    assert check_dataset(cases) == []
    np.testing.assert_array_equal(read_case(cases[0]).label, label)


def test_series_are_channels(save, volume, tmp_path):
    for name in ("p1", "p2"):
        write_series(tmp_path / name / "B", volume + 3, uid="1.2.5")
    root = save("p1", "p2", series="A")
    np.testing.assert_array_equal(read_case(load_dataset(root)[0]).image, [volume, volume + 3])
    (case, _) = load_dataset(root, channels=["B"])
    np.testing.assert_array_equal(read_case(case).image, [volume + 3])
    with pytest.raises(DatasetError, match=r"Case 'p1': there is no series folder 'C'.*A, B"):
        load_dataset(root, channels=["C"])


def test_slices_in_the_folder_of_the_case(tmp_path, volume, label):
    folder = write_series(tmp_path / "p1", volume)
    affine = tio.ScalarImage(folder).affine
    tio.LabelMap(tensor=label[None], affine=affine).save(folder / "seg.nrrd")
    (case,) = load_dataset(tmp_path)
    np.testing.assert_array_equal(read_case(case).label, label)


def test_plain_folders_and_tables_take_series(tmp_path, volume, label):
    folder = write_series(tmp_path / "images" / "p1", volume)
    (tmp_path / "labels").mkdir()
    label_map = tio.LabelMap(tensor=label[None], affine=tio.ScalarImage(folder).affine)
    label_map.save(tmp_path / "labels" / "p1.nii.gz")
    (tmp_path / "cases.csv").write_text("image,label\nimages/p1,labels/p1.nii.gz\n")
    for path in (tmp_path, tmp_path / "cases.csv"):
        (case,) = load_dataset(path)
        assert case["case_id"] == "p1"
        np.testing.assert_array_equal(read_case(case).image[0], volume)


def test_fingerprint_is_of_the_values(save, tmp_path, volume):
    root = save("p1")
    before = case_fingerprint(load_dicom(root)[0])
    assert case_fingerprint(load_dicom(root)[0]) == before
    volume[0, 0, 0] += 1
    write_series(tmp_path / "p1" / "CT", volume)
    assert case_fingerprint(load_dicom(root)[0]) != before


def test_a_missing_slice_is_a_problem(save, volume):
    root = save("p1")
    for path in (root / "p1" / "CT").iterdir():
        path.unlink()
    write_series(root / "p1" / "CT", volume, skip=(2,))
    (problem,) = check_dataset(load_dataset(root))
    assert "not evenly spaced (2.5 to 5 mm apart)" in problem


def test_two_series_in_one_folder_are_a_problem(save, volume):
    root = save("p1")
    write_series(root / "p1" / "CT", volume, uid="1.2.9")
    (problem,) = check_dataset(load_dataset(root))
    assert "2 DICOM series" in problem
    with pytest.raises(DatasetError, match="2 DICOM series"):
        read_case(load_dataset(root)[0])


def test_a_damaged_slice_is_a_problem(save):
    root = save("p1")
    path = sorted((root / "p1" / "CT").iterdir())[1]
    path.write_bytes(path.read_bytes()[:200])
    (problem,) = check_dataset(load_dataset(root))
    assert "DICOM" in problem
    with pytest.raises(DatasetError, match="Case 'p1'"):
        read_case(load_dataset(root)[0])


def test_what_cases_lack_is_listed(save, label, tmp_path):
    root = save("p1", "p2", "p3")
    (root / "p1" / "label.nii.gz").unlink()
    (root / "p2" / "other.nii.gz").write_bytes((root / "p2" / "label.nii.gz").read_bytes())
    (root / "p2" / "label.nii.gz").rename(root / "p2" / "another.nii.gz")
    (root / "p4").mkdir()
    with pytest.raises(DatasetError) as error:
        load_dataset(root)
    found = {p.case_id: p.what for p in error.value.problems if p.case_id != "p4"}
    assert found == {
        "p1": "it has no label map",
        "p2": "several files could be its label map: another.nii.gz, other.nii.gz",
    }
    assert "Case 'p4': it has no DICOM series" in str(error.value)


def test_cases_of_different_series(save, volume, tmp_path):
    root = save("p1", "p2")
    write_series(root / "p1" / "extra", volume, uid="1.2.9")
    with pytest.raises(DatasetError, match="1 or 2 series"):
        load_dataset(root)
    assert len(load_dataset(root, channels=["CT"])) == 2


def test_reading_leaves_the_locale_alone(save):
    root = save("p1", "p2")
    before = locale.setlocale(locale.LC_CTYPE, "C.UTF-8")  # after writing, which does not
    cases = load_dataset(root)
    assert check_dataset(cases) == []
    read_case(cases[0])
    assert locale.setlocale(locale.LC_CTYPE) == before
