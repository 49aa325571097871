"""Datasets that are broken or meant to do harm, and layouts that could be two things."""

import gzip
import json
import re
import resource
import struct

import nibabel as nib
import numpy as np
import pytest
import torch
import torchio as tio

from skte.datasets import (
    check_dataset,
    inspect_dataset,
    load_dataset,
    load_folder,
    load_msd,
    read_case,
)
from skte.exceptions import DatasetError


@pytest.fixture
def secret(tmp_path_factory, nifti, image):
    return nifti(tmp_path_factory.mktemp("elsewhere") / "secret.nii.gz", image)


@pytest.mark.parametrize("absolute", [True, False])
@pytest.mark.parametrize("key", ["image", "label"])
def test_msd_paths_outside_the_folder_are_refused(save_msd, secret, absolute, key):
    folder = save_msd()
    path = str(secret) if absolute else f"../../{secret.parent.name}/{secret.name}"
    content = json.loads((folder / "dataset.json").read_text())
    content["training"][0][key] = path
    (folder / "dataset.json").write_text(json.dumps(content))
    with pytest.raises(DatasetError, match=rf"training\[0\]: {key}: .* leads to .*--allow-root"):
        load_dataset(folder)


@pytest.mark.parametrize(
    "path", ["a\0b", "\n", "x" * 5000, "imagesTr", ".", 7, {"a": 1}], ids=lambda p: repr(p)[:12]
)
def test_msd_paths_that_are_none(save_msd, path):
    folder = save_msd()
    content = json.loads((folder / "dataset.json").read_text())
    content["training"][1]["image"] = path
    (folder / "dataset.json").write_text(json.dumps(content))
    with pytest.raises(DatasetError, match=r"training\[1\]: image: ") as error:
        load_msd(folder)
    assert len(str(error.value)) < 1000


def test_repeated_cases_of_msd(save_msd):
    folder = save_msd()
    content = json.loads((folder / "dataset.json").read_text())
    content["training"] *= 2
    (folder / "dataset.json").write_text(json.dumps(content))
    with pytest.raises(DatasetError, match="Case id 'c_000' is used by 2 cases"):
        load_dataset(folder)


@pytest.mark.parametrize("depth", [200_000])
def test_json_that_is_too_deep(tmp_path, depth):
    (tmp_path / "dataset.json").write_text("[" * depth)
    with pytest.raises(DatasetError, match="not valid JSON"):
        load_dataset(tmp_path)


def nifti_header(shape, dtype=16, itemsize=4):
    """Bytes of a NIfTI-1 file that ends after its header."""
    dims = [len(shape), *shape, *[1] * (7 - len(shape))]
    header = bytearray(352)
    struct.pack_into("<i", header, 0, 348)
    struct.pack_into("<8h", header, 40, *dims)
    struct.pack_into("<2h", header, 70, dtype, 8 * itemsize)
    struct.pack_into("<8f", header, 76, *[1.0] * 8)
    struct.pack_into("<f", header, 108, 352.0)
    header[344:348] = b"n+1\0"
    return bytes(header)


@pytest.fixture
def little_memory():
    """Memory for 4 GB more than now: what believes the header fails."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm") as file:
        now = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + 4 * 2**30, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


NRRD = (
    "NRRD0004\ntype: float\ndimension: 3\nsizes: 30000 30000 30000\n"
    "space: left-posterior-superior\n"
    "space directions: (1,0,0) (0,1,0) (0,0,1)\nspace origin: (0,0,0)\nencoding: gzip\n"
    "endian: little\n\n"
)
MHD = (
    "ObjectType = Image\nNDims = 3\nDimSize = 30000 30000 30000\nElementType = MET_FLOAT\n"
    "ElementSpacing = 1 1 1\nElementDataFile = big.raw\n"
)


@pytest.mark.parametrize("which", ["images", "labels"])
@pytest.mark.parametrize(
    ("ending", "content"),
    [
        (".nii", nifti_header((30000, 30000, 30000))),
        (".nii.gz", gzip.compress(nifti_header((30000, 30000, 30000)))),
        (".nii.gz", gzip.compress(nifti_header((32767,) * 4))),
        (".nrrd", NRRD.encode()),
        (".mhd", MHD.encode()),
    ],
    ids=["nii", "nii.gz", "4-D", "nrrd", "mhd"],
)
@pytest.mark.skipif(not hasattr(resource, "RLIMIT_AS"), reason="no limit of memory here")
def test_headers_that_promise_terabytes(
    tmp_path, nifti, image, label, which, ending, content, little_memory
):
    nifti(tmp_path / "images" / "big.nii", image)
    nifti(tmp_path / "labels" / "big.nii", label)
    (tmp_path / which / "big.nii").unlink()
    (tmp_path / which / f"big{ending}").write_bytes(content)
    (tmp_path / which / "big.raw").write_bytes(b"\0" * 64)
    (case,) = load_folder(tmp_path)
    problems = check_dataset([case])
    refused = "(would take .* of memory|its header promises .* more than the file can hold)"
    assert any(re.search(refused, problem) for problem in problems)
    with pytest.raises(DatasetError, match=refused):
        read_case(case)


def test_constant_volumes_are_not_taken_for_bombs(tmp_path, nifti, image):
    """Zeros compress about as well as anything can."""
    zeros = np.zeros((128, 128, 64), dtype=np.float64)
    zeros[5, 5, 5] = 1
    for kind in ("images", "labels"):
        nifti(tmp_path / kind / "a.nii.gz", zeros)
    (case,) = load_folder(tmp_path)
    assert check_dataset([case]) == []
    assert read_case(case).label.sum() == 1


def broken(kind, image, label):
    """Image, label and affines of a case with one fault."""
    affine, label_affine = np.eye(4), np.eye(4)
    match kind:
        case "shapes":
            label = label[:-1]
        case "affines":
            label_affine = np.diag([1, 1, 2.0, 1])
        case "floats":
            label = label.astype(np.float32) + 0.25
        case "negative":
            label = label.astype(np.int16) - 1
        case "4-D label":
            label = np.stack([label, label], axis=-1)
        case "NaN affine":
            affine = label_affine = np.diag([np.nan, 1, 1, 1])
        case "NaN image":
            image = np.where(label > 0, np.nan, image)
        case "5-D":
            image = image[..., None, None].repeat(2, axis=3).repeat(2, axis=4)
        case "empty label":
            label = label * 0
    return image, label, affine, label_affine


@pytest.mark.parametrize(
    ("kind", "what"),
    [
        ("shapes", r"has shape \(5, 5, 4\), the image"),
        ("affines", "different affines"),
        ("floats", r"float-valued \(0.25, 1.25"),
        ("negative", r"negative values \(-1\)"),
        ("4-D label", "4-D with 2 channels"),
        ("NaN affine", "singular or not finite"),
        ("NaN image", "NaN, Inf or beyond"),
        ("5-D", "is not supported"),
        ("empty label", "the label is empty"),
    ],
)
def test_one_broken_case_among_good_ones(tmp_path, nifti, image, label, kind, what):
    for name in ("a", "b", "c"):
        parts = broken(kind if name == "b" else "", image, label)
        for folder, array, affine in zip(("images", "labels"), parts[:2], parts[2:], strict=True):
            path = tmp_path / folder / f"{name}.nii.gz"
            path.parent.mkdir(exist_ok=True)
            nib.Nifti1Image(array, np.eye(4)).to_filename(path)
            if not np.array_equal(affine, np.eye(4)):
                header = nib.load(path).header
                header.set_sform(affine, 1)
                nib.Nifti1Image(array, None, header).to_filename(path)
    report = inspect_dataset(load_dataset(tmp_path))
    assert {p.case_id for p in report.problems} == {"b"}
    text = " ".join(p.what for p in report.problems)
    assert re.search(what, text), text
    assert all(p.remedy for p in report.problems)
    assert [case.case_id for case in report.cases] == ["a", "c"]


def test_notes_on_labels(tmp_path, nifti, image, label):
    """What is no fault and may be a mistake."""
    names = {0: "background", 1: "a", 9: "never"}
    more = label.copy()
    more[0, 0, 0] = 7
    items = [
        {"id": "one", "image": image, "label": label, "label_names": names},
        {"id": "two", "image": image, "label": more, "label_names": names},
    ]
    report = inspect_dataset(load_dataset(items))
    assert report.problems == ()
    notes = [note.what for note in report.notes]
    assert "labels 2, 7 occur without a name" in notes
    assert "class 7 occurs in one case only, two" in notes
    assert "class 9 (never) occurs in no usable case" in notes
    assert len(notes) == 3
    assert report.n_voxels()[1] == 2 * int((label == 1).sum())
    one = inspect_dataset(load_dataset(items[:1]))
    assert [p.what for p in one.problems] == ["The dataset holds one case"]


# Which layout it is.


def test_a_folder_that_could_be_two_things(save_msd, nifti, image, label):
    folder = save_msd()
    nifti(folder / "sub-1" / "anat" / "sub-1_T1w.nii.gz", image)
    nifti(folder / "sub-1" / "anat" / "sub-1_dseg.nii.gz", label)
    with pytest.raises(DatasetError, match="as 'msd' or as 'bids': say which with layout='msd'"):
        load_dataset(folder)
    assert [c["case_id"] for c in load_dataset(folder, layout="msd")] == ["c_000", "c_001"]
    assert [c["case_id"] for c in load_dataset(folder, layout="bids")] == ["sub-1"]


def test_a_description_beats_folders_of_plain_names(save_msd):
    folder = save_msd()
    (folder / "images").mkdir()
    assert len(load_dataset(folder)) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layout": "nrrd"}, "layout must be one of msd, nnunet, bids, dicom, folder, csv"),
        ({"layout": "folder"}, "no folder 'images'"),
        ({"layout": "dicom"}, "no DICOM series"),
        ({"layout": "bids"}, r"no file sub-\*"),
        ({"layout": "csv"}, "does not exist"),
        ({"channels": ["MRI"]}, "Channels have no names in the layout 'msd'"),
        ({"channels": "MRI"}, "must be a list of names"),
    ],
)
def test_layouts_and_channels_that_do_not_fit(save_msd, options, message):
    with pytest.raises(DatasetError, match=message):
        load_dataset(save_msd(), **options)


def test_layout_of_what_is_no_path(image, label):
    with pytest.raises(DatasetError, match="give a path with them"):
        load_dataset([{"image": image, "label": label}], layout="msd")


def test_channels_of_nnunet_by_name(save_nnunet, image):
    folder = save_nnunet()
    (case, _) = load_dataset(folder, channels=["T2"])
    np.testing.assert_array_equal(read_case(case).image, [image + 10])
    (case, _) = load_dataset(folder, channels=["T2", "T1"])
    np.testing.assert_array_equal(read_case(case).image, [image + 10, image])
    with pytest.raises(DatasetError, match=r"no channel 'T3': choose among T1, T2"):
        load_dataset(folder, channels=["T3"])


def tiff_of_one_huge_tile():
    tags = [
        (256, 4, 1, 8), (257, 4, 1, 8), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1),
        (277, 3, 1, 1), (322, 4, 1, 65536), (323, 4, 1, 65536), (324, 4, 1, 200), (325, 4, 1, 64),
    ]  # fmt: skip
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return ".tif", b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(404)


def nifti_of_many_extensions():
    header = nib.Nifti1Header()
    header.set_data_shape((8, 8, 8))
    header.set_data_dtype("u1")
    header["magic"] = b"n+1"
    size = 2**25
    header["vox_offset"] = 352 + size
    extensions = (struct.pack("<ii", 16, 6) + b"abcdefgh") * (size // 16)
    content = header.binaryblock + b"\1\0\0\0" + extensions + bytes(512)
    return ".nii.gz", gzip.compress(content)


def nrrd_of_many_lines():
    lines = b"".join(b"k%d:=v\n" % i for i in range(90_000))
    start = b"NRRD0004\ntype: uint8\ndimension: 3\nsizes: 8 8 8\n"
    return ".nrrd", start + lines + b"encoding: gzip\n\n" + gzip.compress(bytes(512))


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (tiff_of_one_huge_tile, "tiles of 65536 x 65536"),
        (nifti_of_many_extensions, "values begin at byte"),
        (nrrd_of_many_lines, "more than 2000 lines"),
    ],
)
def test_what_a_decoder_would_choke_on_is_refused_before_it(tmp_path, make, what):
    ending, content = make()
    path = tmp_path / f"x{ending}"
    path.write_bytes(content)
    tensor = torch.zeros(1, 8, 8, 8)
    for image, label in ((path, tensor), (tensor, path)):
        kinds = (
            tio.ScalarImage(image) if image is path else tio.ScalarImage(tensor=image),
            tio.LabelMap(label) if label is path else tio.LabelMap(tensor=label),
        )
        problems = check_dataset([tio.Subject(image=kinds[0], label=kinds[1], case_id="a")])
        assert any(what in problem for problem in problems)
