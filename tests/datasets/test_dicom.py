"""DICOM series, written here with SimpleITK, beside what torchio reads of them."""

import locale
import re
import sys

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


@pytest.mark.parametrize("cut", [200, -1, -20, -59])
def test_a_damaged_slice_is_a_problem(save, cut):
    root = save("p1")
    path = sorted((root / "p1" / "CT").iterdir())[1]
    path.write_bytes(path.read_bytes()[:cut])
    (problem,) = check_dataset(load_dataset(root))
    what = "is cut short: it states no" if cut > 0 else "states an element of 60 bytes, more"
    assert f"holds {path.name}, which {what}" in problem
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


def change(folder, change):
    """Change the data set of each slice by a function of it and its number."""
    pydicom = pytest.importorskip("pydicom")
    for path in folder.iterdir():
        file = pydicom.dcmread(path)
        change(file, int(file.InstanceNumber) - 1)
        file.save_as(path)


@pytest.mark.parametrize("slopes", [(1, 0.5, 0.25, 2.5), (1, 1, 1000, 1000)])
def test_every_slice_has_its_own_slope(save, volume, slopes):
    """As PET has; ITK casts all of them to the type of the first."""
    root = save("p1")
    change(root / "p1" / "CT", lambda file, k: setattr(file, "RescaleSlope", str(slopes[k])))
    found = read_case(load_dataset(root)[0]).image[0]
    np.testing.assert_array_equal(found, (volume + 1024) * slopes - 1024)


def table(file, k):
    """State values by a table instead of a slope."""
    values = type(file)({}, {})
    values.LUTDescriptor, values.ModalityLUTType, values.LUTData = [2, 0, 16], "US", bytes(4)
    del file.RescaleSlope, file.RescaleIntercept
    file.ModalityLUTSequence = [values]


@pytest.mark.parametrize(
    ("alter", "what"),
    [
        (
            lambda file, k: setattr(file, "PixelSpacing", [1 + k, 1]),
            "slices that differ in spacing",
        ),
        (
            lambda file, k: setattr(file, "PhotometricInterpretation", f"MONOCHROME{1 + k % 2}"),
            "slices that differ in what their lowest value shows",
        ),
        (table, "by a table"),
    ],
)
def test_slices_that_are_read_otherwise_are_refused(save, alter, what):
    root = save("p1")
    change(root / "p1" / "CT", alter)
    with pytest.raises(DatasetError, match=f"p1/CT cannot be read.*{what}"):
        read_case(load_dataset(root)[0])


@pytest.mark.parametrize(
    ("alter", "what"),
    [
        (
            lambda file, k: setattr(file, "PhotometricInterpretation", "MONOCHROME1"),
            "is to be shown white",
        ),
        (
            lambda file, k: setattr(file, "ImagePositionPatient", [10, 0.5 * k, 2.5 * k]),
            r"stacked at 11 degrees \(gantry tilt\)",
        ),
    ],
)
def test_how_slices_are_read_is_noted(tmp_path, volume, label, alter, what):
    folder = write_series(tmp_path / "p1" / "CT", volume)
    change(folder, alter)
    label_map = tio.LabelMap(tensor=label[None], affine=tio.ScalarImage(folder).affine)
    label_map.save(tmp_path / "p1" / "label.nrrd")
    assert re.search(what, str(read_case(load_dataset(tmp_path)[0]).notes))


# Segmentation objects, written by highdicom.


def write_segments(series, path, label, *, kind="BINARY", names=("liver", "tumour"), ids=(1, 2)):
    """Write a SEG of a label map (x, y, z), or of segments (x, y, z, segment), of a series."""
    hd = pytest.importorskip("highdicom")
    pydicom = pytest.importorskip("pydicom")
    files = [pydicom.dcmread(file) for file in series.iterdir()]
    files.sort(key=lambda file: int(file.InstanceNumber))
    for file in files:
        file.FrameOfReferenceUID, file.SliceThickness, file.StudyID = "1.2.3.9", SPACING[2], "1"
        for key in ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyDate"):
            setattr(file, key, file.get(key))
        file.StudyTime = file.AccessionNumber = file.ReferringPhysicianName = None
    organ = pydicom.sr.codedict.codes.SCT.Organ
    segments = [
        hd.seg.SegmentDescription(n, name, organ, organ, "MANUAL")
        for n, name in zip(ids, names, strict=True)
    ]
    path.parent.mkdir(exist_ok=True)
    numbers = hd.UID(), 2, hd.UID(), 1
    values = np.ascontiguousarray(np.moveaxis(label, (0, 2), (2, 0)))
    seg = hd.seg.Segmentation(files, values, kind, segments, *numbers, "a", "b", "1", "2")
    seg.save_as(path)
    return path


@pytest.fixture
def patient(tmp_path, volume, label):
    write_series(tmp_path / "p1" / "CT", volume, direction=TURNED)
    return tmp_path / "p1"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "slices"),
    [("BINARY", (2,)), ("BINARY", (0, 3)), ("LABELMAP", (1, 2)), ("LABELMAP", (0, 1, 2, 3))],
)
def test_segments_are_a_label_map(patient, label, kind, slices):
    """Slices without segments, which are not in the file, are background."""
    ids = (1, 2) if kind == "BINARY" else (3, 7)
    label[0, :, :] = label[3, 2, :] = 1
    label[3, 2, :] = 2
    label = np.where(np.isin(np.arange(4), slices), label, 0)
    stored = np.array([0, *ids], np.uint8)[label]
    write_segments(patient / "CT", patient / "SEG" / "a.dcm", stored, kind=kind, ids=ids)
    (subject,) = cases = load_dataset(patient.parent)
    names = {n: name for n, name in subject["label_names"].items() if n}
    assert names == dict(zip(ids, ("liver", "tumour"), strict=True))
    assert check_dataset(cases) == []
    np.testing.assert_array_equal(read_case(subject).label, stored)
    (chosen,) = load_dataset(patient.parent, labels={"a": "tumour", "ignore": [0]})
    ignored = chosen["ignore_label"]
    expected = np.where(label == 2, 1, np.where(label == 0, ignored, 0))
    np.testing.assert_array_equal(read_case(chosen).label, expected)
    assert case_fingerprint(subject) != case_fingerprint(chosen)


@pytest.mark.slow
def test_segments_in_other_layouts(patient, label):
    """In a table and beside it: the file, or the folder of its series."""
    write_segments(patient / "CT", patient / "x.dcm", label)
    write_segments(patient / "CT", patient / "SEG" / "a.dcm", label)
    table = patient / "cases.csv"
    table.write_text("case_id,image,label\na,CT,x.dcm\nb,CT,SEG\n")
    items = [{"image": patient / "CT", "label": patient / "x.dcm"}]
    for subject in [*load_dataset(table), *load_dataset(items)]:
        np.testing.assert_array_equal(read_case(subject).label, label)
    with pytest.raises(DatasetError, match=r"several files could be its label map: x\.dcm, a\.dcm"):
        load_dicom(patient.parent)
    with pytest.raises(DatasetError, match="holds a segmentation, not an image"):
        read_case(load_dataset([{"image": patient / "x.dcm", "label": patient / "x.dcm"}])[0])
    (patient / "x.dcm").rename(patient / "CT" / "x.dcm")
    with pytest.raises(DatasetError, match=r"x\.dcm, which is a segmentation \(SEG\).*of its own"):
        read_case(load_dicom(patient.parent)[0])


@pytest.mark.slow
def test_segments_that_are_no_label_map_are_refused(
    patient, label, volume, monkeypatch, tmp_path_factory
):
    path = patient / "SEG" / "a.dcm"
    both = np.stack([label > 0, label == 2], axis=-1).astype(np.uint8)
    other = write_series(tmp_path_factory.mktemp("other"), volume, spacing=(0.8, 0.9, 1.5))
    wrong = {
        "whose segments overlap": (patient / "CT", both, "BINARY"),
        "holds probabilities, not segments": (patient / "CT", both * 0.5, "FRACTIONAL"),
        "has shape|have different affines": (other, label, "BINARY"),
    }
    for what, (series, values, kind) in wrong.items():
        write_segments(series, path, values, kind=kind)
        (case,) = load_dataset(patient.parent)
        with pytest.raises(DatasetError, match=rf"(?s){what}"):
            read_case(case)
    pydicom = pytest.importorskip("pydicom")
    file = pydicom.dcmread(next((patient / "CT").iterdir()))
    file.Modality = "SEG"
    file.save_as(path)
    with pytest.raises(DatasetError, match=r"a\.dcm.*which highdicom refuses \(.*dcmqi"):
        read_case(case)
    monkeypatch.setitem(sys.modules, "highdicom.seg", None)
    with pytest.raises(
        DatasetError, match=r"a\.dcm.*\(SEG\), which is read by highdicom.*\[dicom\]"
    ):
        read_case(case)
