"""Volumes and folders as people have them: units, axes, names, links, and files of no case."""

import gzip
import json
import re
import unicodedata

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from skte.cli import main
from skte.datasets import (
    check_dataset,
    inspect_dataset,
    load_dataset,
    load_folder,
    load_nnunet_raw,
    read_case,
)
from skte.exceptions import DatasetError, SkteWarning

SHAPE = (6, 5, 4)


def save(path, array, *, edge=1.0, unit="mm", kind=nib.Nifti1Image):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = kind(np.asarray(array), np.diag([edge, edge, edge, 1]))
    image.header.set_xyzt_units(unit)
    image.to_filename(path)
    return path


def case_of(image, label):
    return load_dataset([{"id": "a", "image": image, "label": label}])[0]


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize(
    ("unit", "edge", "expected"),
    [("micron", 500, 0.5), ("meter", 0.002, 2), ("mm", 1.5, 1.5), ("unknown", 1.5, 1.5)],
)
def test_units_of_nifti(tmp_path, image, label, kind, unit, edge, expected):
    files = [
        save(tmp_path / f"{name}.nii.gz", array, edge=edge, unit=unit, kind=kind)
        for name, array in (("image", image), ("label", label))
    ]
    case = read_case(case_of(*files))
    np.testing.assert_allclose(case.spacing, [expected] * 3, rtol=1e-6)
    np.testing.assert_allclose(np.diag(case.affine)[:3], [expected] * 3, rtol=1e-6)
    assert ("converted to mm" in str(case.notes)) == (unit in ("micron", "meter"))
    mm = save(tmp_path / "mm.nii", label, edge=expected)  # agrees, in another unit
    assert check_dataset([case_of(files[0], mm)]) == []


@pytest.mark.parametrize(
    ("ending", "before", "after"),
    [
        (".nrrd", b"space origin:", b'space units: "um" "um" "um"\nspace origin:'),
        (".mha", b"ElementType", b"DistanceUnits = um\nElementType"),
    ],
)
def test_units_of_nrrd_and_meta_image(tmp_path, image, label, ending, before, after):
    for name, array in (("image", image), ("label", label)):
        path = tmp_path / f"{name}{ending}"
        volume = sitk.GetImageFromArray(array.T)
        volume.SetSpacing((500.0, 500.0, 2000.0))
        sitk.WriteImage(volume, str(path))
        path.write_bytes(path.read_bytes().replace(before, after, 1))
    case = read_case(case_of(tmp_path / f"image{ending}", tmp_path / f"label{ending}"))
    np.testing.assert_allclose(case.spacing, [0.5, 0.5, 2])
    assert "converted to mm" in str(case.notes)


def test_two_sizes_of_voxels_in_one_header_are_noted(tmp_path, image, label):
    """ITK takes the other one where the affines of a NIfTI file differ in size."""
    volume = nib.Nifti1Image(image, np.diag([2, 2, 2, 1]))
    volume.set_qform(np.diag([2, 2, 3, 1]), 1)
    nib.save(volume, tmp_path / "i.nii")
    case = read_case(case_of(tmp_path / "i.nii", save(tmp_path / "l.nii", label, edge=2)))
    assert case.spacing == (2, 2, 2)
    assert "voxels of 2 x 2 x 3 mm, its affine 2 x 2 x 2 mm" in str(case.notes)


@pytest.mark.parametrize("first", ["image", "label", "both"])
def test_channels_first_are_called_so(tmp_path, image, label, first):
    files = [
        save(tmp_path / f"{name}.nii.gz", array[None] if first in (name, "both") else array)
        for name, array in (("image", image), ("label", label))
    ]
    problems = " ".join(check_dataset([case_of(*files)]))
    assert "stored as (1, 6, 5, 4): channels must come last" in problems
    with pytest.raises(DatasetError, match=r"stored as \(1, 6, 5, 4\)"):
        read_case(case_of(*files))


@pytest.mark.parametrize(
    ("axes", "n_channels"), [((1,), 1), ((1, 1), 1), ((1, 2), 2), ((2, 1), 2), ((1, 1, 1), 1)]
)
@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_further_axes(tmp_path, image, label, axes, n_channels, ending):
    values = np.stack([image, image + 1], axis=-1)[..., :n_channels].reshape(*SHAPE, *axes)
    files = save(tmp_path / f"i{ending}", values), save(tmp_path / "l.nii", label[..., None, None])
    case = read_case(case_of(*files))
    expected = [image + i for i in range(n_channels)]
    np.testing.assert_array_equal(case.image, expected)
    np.testing.assert_array_equal(case.label, label)


def scaled(path, label, slope):
    """Store ids as numbers that a slope makes of integers."""
    stored = nib.Nifti1Image(np.rint(label / slope).astype(np.int16), np.eye(4))
    stored.header.set_slope_inter(slope, 0)
    stored.to_filename(path)
    raw = bytearray(path.read_bytes())  # nibabel resets the slope of what it writes
    raw[112:120] = np.array([slope, 0], "<f4").tobytes()
    path.write_bytes(bytes(raw))
    return path


@pytest.mark.parametrize("factor", [127, 3, 10_000])
def test_ids_within_rounding(tmp_path, image, label, factor):
    files = save(tmp_path / "i.nii", image), scaled(tmp_path / "l.nii", label, 1 / factor)
    for labels in (None, {"two": 2}):
        case = load_dataset([{"id": "a", "image": files[0], "label": files[1]}], labels=labels)[0]
        expected = label if labels is None else label == 2
        np.testing.assert_array_equal(read_case(case).label, expected)
    assert "label: its ids lie up to" in str(read_case(case_of(*files)).notes)


@pytest.mark.parametrize(
    ("off", "good"), [(9e-4, True), (-9e-4, True), (2e-3, False), (0.2, False)]
)
def test_how_far_ids_may_lie_from_integers(image, label, off, good):
    case = case_of(image, (label + off).astype(np.float64))
    if good:
        np.testing.assert_array_equal(read_case(case).label, label)
    else:
        with pytest.raises(DatasetError, match="float-valued"):
            read_case(case)


def test_the_highest_byte_first(tmp_path, image, label):
    for name, array in (("image", image.astype(">f4")), ("label", label.astype(">i2"))):
        header = nib.Nifti1Header(endianness=">")
        header.set_data_dtype(array.dtype)
        nib.Nifti1Image(array, np.eye(4), header).to_filename(tmp_path / f"{name}.nii")
    case = read_case(case_of(tmp_path / "image.nii", tmp_path / "label.nii"))
    np.testing.assert_array_equal(case.image[0], image)
    np.testing.assert_array_equal(case.label, label)


@pytest.mark.parametrize("ending", [".mha", ".nrrd", ".mhd", ".nhdr"])
@pytest.mark.parametrize("axes", ["components", "a fourth axis"])
def test_channels_of_itk_s_formats(tmp_path, image, label, ending, axes):
    both = np.stack([image, image + 1])
    array = both.transpose(0, 3, 2, 1)
    if axes == "components":
        volume = sitk.GetImageFromArray(np.moveaxis(array, 0, -1), isVector=True)
    else:
        volume = sitk.JoinSeries([sitk.GetImageFromArray(one) for one in array])
    (tmp_path / "images").mkdir()
    sitk.WriteImage(volume, str(tmp_path / "images" / f"a{ending}"))
    (tmp_path / "labels").mkdir()
    sitk.WriteImage(sitk.GetImageFromArray(label.T), str(tmp_path / "labels" / f"a{ending}"))
    (case,) = load_dataset(tmp_path)
    np.testing.assert_array_equal(read_case(case).image, both)


@pytest.mark.parametrize("ending", [".nii.gz", ".mgz", ".mha", ".mhd", ".nrrd"])
def test_damage_to_compressed_values_is_found(tmp_path, image, label, ending):
    """Readers stop before the sum at the end of a stream, or go on with zeros."""
    path, flip = tmp_path / f"a{ending}", np.diag([-1, -1, 1, 1])
    if ending in (".mha", ".mhd", ".nrrd"):
        sitk.WriteImage(sitk.GetImageFromArray(image.T), str(path), True)
    else:
        kind = nib.MGHImage if ending == ".mgz" else nib.Nifti1Image
        nib.save(kind(image, flip), path)
    nib.save(nib.Nifti1Image(label, flip), tmp_path / "l.nii")
    case = case_of(path, tmp_path / "l.nii")
    np.testing.assert_allclose(read_case(case).image[0], image)
    data = path.with_suffix(".zraw") if ending == ".mhd" else path
    whole = data.read_bytes()
    data.write_bytes(whole + b"behind it")  # which gzip ignores
    np.testing.assert_allclose(read_case(case).image[0], image)
    for at in (len(whole) // 2, -5 if ending.endswith(("z", "nrrd")) else -1):
        data.write_bytes(whole[:at] + bytes([whole[at] ^ 90]) + whole[at:][1:])
        with pytest.raises(DatasetError, match=r"(?s)/a\..* cannot be read"):
            read_case(case)


def test_meta_image_without_the_size_of_its_stream(tmp_path, image, label):
    for ending in (".mha", ".mhd"):
        sitk.WriteImage(sitk.GetImageFromArray(image.T), str(tmp_path / f"a{ending}"), True)
    sitk.WriteImage(sitk.GetImageFromArray(label.T), str(tmp_path / "l.mha"))
    (tmp_path / "b.zraw").write_bytes(bytes(9) + (tmp_path / "a.zraw").read_bytes())
    header = "HeaderSize = 9\n" + (tmp_path / "a.mhd").read_text().replace("a.zraw", "b.zraw")
    (tmp_path / "b.mhd").write_text(header)
    found = [read_case(case_of(tmp_path / "b.mhd", tmp_path / "l.mha")).image[0]]
    for path in [*tmp_path.glob("a.mh*"), tmp_path / "b.mhd"]:
        lines = path.read_bytes().split(b"\n", 20)
        path.write_bytes(b"\n".join(one for one in lines if b"CompressedDataSize" not in one))
    found.append(read_case(case_of(tmp_path / "a.mhd", tmp_path / "l.mha")).image[0])
    np.testing.assert_array_equal(found, [image, image])
    for bad in ("a.mha", "b.mhd"):
        with pytest.raises(DatasetError, match=rf"{bad}.*states no CompressedDataSize"):
            read_case(case_of(tmp_path / bad, tmp_path / "l.mha"))


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("a.nii.gz", b"<!DOCTYPE html><html>", "is a web page.*download it again"),
        ("a.nii.gz", b"\xef\xbb\xbf<?xml version='1.0'?><Error>", "is a file of XML.*download it"),
        ("a.nii.gz", b'{"message": "not found"}', "is a file of JSON.*download it again"),
        ("a.nii", b"<?xml version='1.0'?><html>", "is a file of XML"),
        ("a.nii.gz", b"PK\x03\x04" + bytes(99), "is a zip archive.*unpack it"),
        ("a.nii.gz", b"\x89PNG\r\n\x1a\n" + bytes(99), "is a PNG picture.*rename or convert it"),
        ("a.nii.gz", b"\xff\xd8\xff\xe0" + bytes(99), "is a JPEG picture"),
        ("a.mha", b"%PDF-1.4", "is a PDF"),
        ("a.nii.gz", b'{"message": \xff', "Not a gzipped file"),
        ("a.nii.gz", b"version https://git-lfs.github.com/spec/v1\n", "Git LFS.*git lfs pull"),
        ("a.nrrd", b"/annex/objects/MD5E-s1--0.nrrd\n", "git-annex.*git annex get"),
        ("a.png", b"", "is empty"),
        (
            "a.nii",
            gzip.compress(bytes(400), mtime=0),
            "compressed by gzip, though its name does not end",
        ),
        ("a.nii.gz", bytes(344) + b"n+1\0" + bytes(99), "not compressed, though its name ends"),
    ],
)
def test_what_is_no_image_is_called_what_it_is(tmp_path, label, name, content, what):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DatasetError, match=f"{name}.*{what}"):
        read_case(case_of(tmp_path / name, label))


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("a.hdr", r"is one of two files of Analyze or NIfTI, .*`nib-convert a\.hdr a\.nii\.gz`"),
        ("a.img.gz", "is one of two files of Analyze or NIfTI"),
        ("a.vtk", "is a VTK file, which is not read"),
    ],
)
def test_formats_that_are_not_read_are_refused_by_name(tmp_path, image, label, name, what):
    for folder, array in (("images", image), ("labels", label)):
        save(tmp_path / folder / "a.nii.gz", array)
    path = (tmp_path / "images" / "a.nii.gz").rename(tmp_path / "images" / name)
    with pytest.raises(DatasetError, match=what):
        read_case(case_of(path, label))
    if not name.startswith("a.img"):  # of a header and its data, the header counts
        with pytest.raises(DatasetError, match=what):
            read_case(load_dataset(tmp_path)[0])


def test_endings_in_any_case(tmp_path, image, label):
    names = save(tmp_path / "a.nii.gz", image), save(tmp_path / "l.nii", label)
    files = [
        path.rename(tmp_path / to) for path, to in zip(names, ("A.Nii.GZ", "L.NII"), strict=True)
    ]
    np.testing.assert_array_equal(read_case(case_of(*files)).image[0], image)


@pytest.mark.parametrize("named", ["LIST", "a%03d.raw 1 4 1"])
def test_values_in_several_files_are_refused(tmp_path, image, label, named):
    path = tmp_path / "a.mhd"
    sitk.WriteImage(sitk.GetImageFromArray(image.T), str(path))
    path.write_text(path.read_text().replace("a.raw", named))
    with pytest.raises(DatasetError, match=r"in several files.*write it again as one"):
        read_case(case_of(path, label))


@pytest.mark.parametrize("ending", [".mha", ".mhd", ".nrrd", ".gipl"])
def test_values_cut_short(tmp_path, image, label, ending):
    path = tmp_path / f"a{ending}"
    sitk.WriteImage(sitk.GetImageFromArray((image * 100).astype(np.int16).T), str(path))
    data = path.with_suffix(".raw") if ending == ".mhd" else path
    data.write_bytes(data.read_bytes()[:-9])
    with pytest.raises(DatasetError, match=f"a{ending}.* has 231 bytes, .* promises 240"):
        read_case(case_of(path, label))


# Segmentations of 3D Slicer.


def save_segments(path, layers, segments):
    """Write layers (layer, x, y, z) with segments (name, layer, value) as 3D Slicer does."""
    array = np.asarray(layers)
    path.parent.mkdir(parents=True, exist_ok=True)
    n = len(array)
    keys = "".join(
        f"Segment{i}_Name:={name}\nSegment{i}_Layer:={layer}\nSegment{i}_LabelValue:={value}\n"
        for i, (name, layer, value) in enumerate(segments)
    )
    dims, none = ("4", "none ") if n > 1 else ("3", "")
    kinds = "list domain domain domain" if n > 1 else "domain domain domain"
    sizes = f"{n} 6 5 4" if n > 1 else "6 5 4"
    header = (
        f"NRRD0005\ntype: uint8\ndimension: {dims}\nspace: left-posterior-superior\n"
        f"sizes: {sizes}\nspace directions: {none}(-1,0,0) (0,-1,0) (0,0,1)\nkinds: {kinds}\n"
        f"encoding: raw\nspace origin: (0,0,0)\n{keys}\n"
    )
    path.write_bytes(header.encode() + array.astype(np.uint8).tobytes(order="F"))


def slicer(tmp_path, image, cases):
    for name, (layers, segments) in cases.items():
        save(tmp_path / "images" / f"{name}.nii.gz", image)
        save_segments(tmp_path / "labels" / f"{name}.seg.nrrd", layers, segments)
    return tmp_path


def test_segments_name_their_ids(tmp_path, image, label):
    names = [("liver", 0, 1), ("a tumour", 0, 2)]
    folder = slicer(tmp_path, image, {"c0": (label[None], names), "c1": (label[None], names)})
    cases = load_dataset(folder)
    assert [case["case_id"] for case in cases] == ["c0", "c1"]
    assert cases[0]["label_names"] == {1: "liver", 2: "a tumour"}
    np.testing.assert_array_equal(read_case(cases[0]).label, label)
    assert check_dataset(cases) == []


def test_segments_numbered_otherwise_in_each_case(tmp_path, image, label):
    turned = np.where(label > 0, 3 - label, 0)
    folder = slicer(
        tmp_path,
        image,
        {
            "c0": (label[None], [("liver", 0, 1), ("tumour", 0, 2)]),
            "c1": (turned[None], [("tumour", 0, 1), ("liver", 0, 2)]),
        },
    )
    problems = " ".join(check_dataset(load_dataset(folder)))
    assert "Class 'liver' is 1 in c0, and 2 in c1: choose classes by name" in problems
    cases = load_dataset(folder, labels={"liver": "liver", "tumour": "tumour"})
    assert check_dataset(cases) == []
    for case in cases:
        np.testing.assert_array_equal(read_case(case).label, label)


def test_layers_of_segments_become_one_map(tmp_path, image, label):
    layers = np.stack([label == 1, label == 2])
    names = [("liver", 0, 1), ("tumour", 1, 1)]
    (case,) = load_dataset(slicer(tmp_path, image, {"c0": (layers, names)}))
    assert case["label_names"] == {1: "liver", 2: "tumour"}
    assert check_dataset([case]) == []
    np.testing.assert_array_equal(read_case(case).label, label)
    layers = np.stack([label > 0, label == 2])
    (case,) = load_dataset(slicer(tmp_path, image, {"c0": (layers, names)}))
    with pytest.raises(DatasetError, match=r"'tumour' with others, in 1 voxels.*labelmap volume"):
        read_case(case)


def test_segments_of_old_releases_have_a_layer_each(tmp_path, image, label):
    folder = slicer(tmp_path, image, {"c0": ([label == 1, label == 2], [("a", 0, 1), ("b", 1, 1)])})
    path = folder / "labels" / "c0.seg.nrrd"
    path.write_bytes(re.sub(rb"Segment\d_(Layer|LabelValue):=\d\n", b"", path.read_bytes()))
    np.testing.assert_array_equal(read_case(load_dataset(folder)[0]).label, label)


def test_segments_in_a_part_of_the_image(tmp_path, image, label):
    """As 3D Slicer crops them; the rest is background."""
    folder = slicer(tmp_path, image, {"c0": (label[None], [("a", 0, 1), ("b", 0, 2)])})
    path = folder / "labels" / "c0.seg.nrrd"
    header = path.read_bytes().partition(b"\n\n")[0]
    for at in (1, 5):
        words = {b"sizes: 6": b"sizes: 4", b"origin: (0": b"origin: (%d" % -at}
        small = header
        for old, new in words.items():
            small = small.replace(old, new)
        part = label[at : at + 4] if at == 1 else label[:4]
        path.write_bytes(small + b"\n\n" + part.tobytes(order="F"))
        (case,) = load_dataset(folder)
        if at == 1:
            assert check_dataset([case]) == []
            np.testing.assert_array_equal(read_case(case).label, label)
        else:  # it reaches beyond the image
            with pytest.raises(DatasetError, match=r"has shape \(4, 5, 4\)"):
                read_case(case)


def test_a_segmentation_beside_its_image(tmp_path, image, label):
    folder = slicer(tmp_path, image, {"c0": (label[None], [("a", 0, 1)])})
    save_segments(folder / "images" / "c0.seg.nrrd", label[None], [("a", 0, 1)])
    with pytest.warns(SkteWarning, match=r"segmentations beside the images .*c0\.seg\.nrrd"):
        (case,) = load_folder(folder)
    assert case["image"].path.name == "c0.nii.gz"


def test_contours_in_dicom_are_refused_by_name(tmp_path, image, label):
    case = tmp_path / "patient1"
    (case / "CT").mkdir(parents=True)
    for folder, modality in (("CT", "CT"), ("contours", "RTSTRUCT")):
        (case / folder).mkdir(exist_ok=True)
        for i in range(3):
            plane = sitk.GetImageFromArray(label[..., i].T.astype(np.uint16))
            plane.SetMetaData("0008|0060", modality)
            plane.SetMetaData("0020|000e", "1.2.3")
            plane.SetMetaData("0020|0032", f"0\\0\\{i}")
            writer = sitk.ImageFileWriter()
            writer.KeepOriginalImageUIDOn()
            writer.SetFileName(str(case / folder / f"{i}.dcm"))
            writer.Execute(plane)
    with pytest.raises(DatasetError, match=r"of DICOM \(RTSTRUCT\).*plastimatch convert"):
        load_dataset(tmp_path)
    files = [case / "CT", case / "contours" / "0.dcm"]
    with pytest.raises(DatasetError, match=r"of DICOM \(RTSTRUCT\)"):
        read_case(case_of(*files))


# Folders.


def save_raw(folder, names, cases, ending=".nii.gz", **keys):
    """Write nnU-Net raw: cases with a list of files each, arrays that `save` takes."""
    for name, (files, label) in cases.items():
        for i, array in enumerate(files):
            save(folder / "imagesTr" / f"{name}_{i:04d}{ending}", array)
        save(folder / "labelsTr" / f"{name}{ending}", label)
    content = {
        "channel_names": names,
        "labels": {"background": 0, "a": 1, "b": 2},
        "numTraining": len(cases),
        "file_ending": ending,
    }
    (folder / "dataset.json").write_text(json.dumps(content | keys))
    return folder


def test_channels_are_counted_not_files(tmp_path, image, label):
    both = np.stack([image, image + 10], axis=-1)
    names = {"0": "T1", "1": "T2"}
    folder = save_raw(tmp_path, names, {"a": ([both], label), "b": ([image, image + 10], label)})
    for case in map(read_case, load_dataset(folder)):
        np.testing.assert_array_equal(case.image, [image, image + 10])
    cases = load_dataset(folder, channels=["T2"])
    for case in cases:
        np.testing.assert_array_equal(read_case(case).image, [image + 10])
        assert case["image"].data.shape[0] == 1  # by torchio, too
    assert check_dataset(load_dataset(folder, channels=["T2", "T1"])) == []
    save_raw(tmp_path, names, {"a": ([both, image], label)})
    with pytest.raises(DatasetError, match="Case 'a': it has 3 channels where 2 are expected"):
        load_dataset(folder)
    save_raw(tmp_path, {"0": "x", "1": "y", "2": "z"}, {"a": ([both, image], label)})
    (tmp_path / "labelsTr" / "b.nii.gz").unlink()
    for path in (tmp_path / "imagesTr").glob("b_*"):
        path.unlink()
    assert read_case(load_dataset(folder)[0]).image.shape[0] == 3
    with pytest.raises(DatasetError, match="cannot be chosen among 2 files of 3 channels"):
        load_dataset(folder, channels=["z"])


def test_channels_of_plain_folders_are_counted(tmp_path, image, label):
    save(tmp_path / "images" / "a.nii.gz", np.stack([image, image], axis=-1))
    for i in range(2):
        save(tmp_path / "images" / f"b_{i:04d}.nii.gz", image)
    for name in "ab":
        save(tmp_path / "labels" / f"{name}.nii.gz", label)
    assert check_dataset(load_dataset(tmp_path)) == []


@pytest.mark.parametrize(
    ("ending", "names"),
    [  # Pillow, which nnU-Net's reader uses too, leaves the fourth sample of a BMP out
        *((ending, ["R", "G", "B"]) for ending in (".png", ".tif", ".bmp")),
        *((ending, ["R", "G", "B", "A"]) for ending in (".png", ".tif")),
    ],
)
def test_colours_are_the_channels_of_nnunet(tmp_path, ending, names):
    pillow = pytest.importorskip("PIL.Image")
    pixels = np.random.default_rng(0).integers(0, 255, (7, 9, 4)).astype(np.uint8)
    label = (pixels[..., 0] > 100).astype(np.uint8)
    for part, array in (("imagesTr/a_0000", pixels), ("labelsTr/a", label)):
        path = tmp_path / f"{part}{ending}"
        path.parent.mkdir()
        pillow.fromarray(array).save(path)
    content = {
        "channel_names": dict(enumerate(names)),
        "labels": {"background": 0, "a": 1},
        "numTraining": 1,
        "file_ending": ending,
    }
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    (case,) = load_dataset(tmp_path)
    expected = pixels.transpose(2, 1, 0)[: len(names), ..., None]
    np.testing.assert_array_equal(read_case(case).image, expected)
    assert check_dataset([case]) == []
    (case,) = load_dataset(tmp_path, channels=["B", "R"])
    np.testing.assert_array_equal(read_case(case).image, expected[[2, 0]])


@pytest.mark.parametrize("by_value", [{"R": 0, "G": 1}, {"G": "1", "R": "0"}])
def test_channel_names_the_wrong_way_round(tmp_path, image, label, by_value):
    folder = save_raw(tmp_path, by_value, {"a": ([image, image + 10], label)})
    with pytest.warns(SkteWarning, match="'channel_names' maps names to numbers"):
        cases = load_nnunet_raw(folder, channels=["G"])
    np.testing.assert_array_equal(read_case(cases[0]).image, [image + 10])
    assert "channel_names" in str(inspect_dataset(cases).notes)


@pytest.mark.parametrize(
    "names", [{"0": "a", "2": "b"}, {"R": 0, "G": 2}, {"R": 0, "G": "x"}, {"0": "", "1": "b"}]
)
def test_channel_names_without_numbers_from_0(tmp_path, image, label, names):
    folder = save_raw(tmp_path, names, {"a": ([image, image], label)})
    with pytest.raises(DatasetError, match="'channel_names' does not number its channels from 0"):
        load_dataset(folder)


def test_the_stated_number_of_cases_is_compared(tmp_path, image, label):
    folder = save_raw(tmp_path, {"0": "CT"}, {c: ([image], label) for c in "ab"}, numTraining=3)
    with pytest.warns(SkteWarning, match="'numTraining' is 3"):
        cases = load_nnunet_raw(folder)
    assert [n.what for n in cases[:1].notes] == [n.what for n in cases.notes]


@pytest.mark.parametrize("names", [["1.3.6.1.77", "1.3.6.1.78"], ["a.b", "a.c"], ["plain", "q"]])
def test_dots_in_names_of_version_1(tmp_path, image, label, names):
    training = [
        {"image": f"./imagesTr/{n}.nii.gz", "label": f"./labelsTr/{n}.nii.gz"} for n in names
    ]
    cases = {n: ([image], label) for n in names}
    folder = save_raw(tmp_path, {}, cases, modality={"0": "CT"}, training=training)
    content = json.loads((folder / "dataset.json").read_text())
    del content["channel_names"], content["file_ending"]
    (folder / "dataset.json").write_text(json.dumps(content))
    assert sorted(case["case_id"] for case in load_dataset(folder)) == sorted(names)


COMPOSED, APART = (unicodedata.normalize(form, "Müller_é") for form in ("NFC", "NFD"))


def test_composed_and_decomposed_names_are_one(tmp_path, image, label, save_msd):
    save(tmp_path / "images" / f"{COMPOSED}.nii.gz", image)
    save(tmp_path / "labels" / f"{APART}.nii.gz", label)
    (case,) = load_dataset(tmp_path)
    assert case["case_id"] == COMPOSED
    rows = f"image,label\nimages/{APART}.nii.gz,labels\\{COMPOSED}.nii.gz\n"  # of Windows
    (tmp_path / "cases.csv").write_text(rows, encoding="utf-8")
    (case,) = load_dataset(tmp_path / "cases.csv")
    assert read_case(case).case_id == COMPOSED
    msd = tmp_path / "msd"
    save(msd / APART / f"{APART}.nii.gz", image)
    save(msd / "labels" / f"{COMPOSED}.nii.gz", label)
    item = {
        "image": f"{COMPOSED}/{COMPOSED}.nii.gz",
        "label": f"labels/{APART}.nii.gz",
    }
    content = {"labels": {"0": "background", "1": "a"}, "training": [item]}
    (msd / "dataset.json").write_text(json.dumps(content), encoding="utf-8")
    assert read_case(load_dataset(msd)[0]).label.max() == 2
    raw = save_raw(tmp_path / "raw", {"0": "CT"}, {APART: ([image], label)})
    (raw / "labelsTr" / f"{APART}.nii.gz").rename(raw / "labelsTr" / f"{COMPOSED}.nii.gz")
    cases = load_dataset(raw)
    assert cases[0]["case_id"] == COMPOSED


def test_every_file_is_used_or_named(tmp_path, image, label, capsys):
    folder = save_raw(tmp_path, {"0": "CT"}, {c: ([image], label) for c in "ab"})
    for name in (
        ".DS_Store", "imagesTr/._a_0000.nii.gz", "labelsTr/Thumbs.db", "__MACOSX/x.nii.gz",
        "imagesTs/c_0000.nii.gz", "imagesTr/b.npy", "imagesTr/x.nii.bz2", "README.md",
        "old/a.nii.gz",
    ):  # fmt: skip
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"x")
    with pytest.warns(SkteWarning) as warned:
        cases = load_nnunet_raw(folder)
    told = str(warned[0].message)
    assert (
        "not used, with an extension that is not read: imagesTr/b.npy, imagesTr/x.nii.bz2" in told
    )
    assert "not used, images of no case: old/a.nii.gz" in told
    assert "DS_Store" not in told  # nobody would miss it
    reasons = {str(s.path.relative_to(folder)): s.reason for s in cases.skipped}
    hidden = "hidden, or written by the system"
    assert reasons == {
        ".DS_Store": hidden,
        "__MACOSX": hidden,
        "imagesTr/._a_0000.nii.gz": hidden,
        "labelsTr/Thumbs.db": hidden,
        "imagesTs/c_0000.nii.gz": "of the test set",
        "imagesTr/b.npy": "with an extension that is not read",
        "imagesTr/x.nii.bz2": "with an extension that is not read",
        "README.md": "no images",
        "old/a.nii.gz": "images of no case",
    }
    assert main(["inspect", str(folder)]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    for name in ("imagesTr/b.npy", "imagesTs/c_0000.nii.gz", ".DS_Store"):
        assert name in printed


def test_what_may_have_been_meant_as_a_case_is_told(tmp_path, image, label, recwarn):
    for part, array in (("images", image), ("labels", label)):
        save(tmp_path / part / "a.nii.gz", array)
        for name in ("README", "notes.txt", "b.json", "a.nii.gz.md5"):
            (tmp_path / part / name).write_bytes(b"x")
    (tmp_path / "elsewhere" / "empty").mkdir(parents=True)
    (tmp_path / "elsewhere" / "b").symlink_to("nowhere")
    (tmp_path / "Makefile").touch()
    assert {one.expected for one in load_folder(tmp_path).skipped} == {True}
    assert not recwarn.list
    for part in ("images", "labels"):
        (tmp_path / part / "b").write_bytes(b"x")
        (tmp_path / part / "c.nii.gz.txt").write_bytes(b"x")
        (tmp_path / part / "d").symlink_to("nowhere")
        (tmp_path / part / "e").mkdir()
    with pytest.warns(SkteWarning) as warned:
        cases = load_folder(tmp_path)
    told = str(warned[0].message)
    for line in (
        "2 files are not used, without an extension: images/b, labels/b",
        "2 files are not used, images with another extension: images/c.nii.gz.txt, labels/c.nii",
        "2 files are not used, links that lead nowhere: images/d, labels/d",
        "2 files are not used, empty folders: images/e, labels/e",
    ):
        assert line in told
    assert {str(s.path.relative_to(tmp_path)): s.reason for s in cases.skipped if s.expected} == {
        "Makefile": "no images",
        "elsewhere/b": "links that lead nowhere",
        "elsewhere/empty": "empty folders",
        **{
            f"{part}/{name}": "no images"
            for part in ("images", "labels")
            for name in ("README", "notes.txt", "b.json", "a.nii.gz.md5")
        },
    }


def test_the_data_of_a_header_is_expected(tmp_path, image, label, recwarn):
    for part, array in (("images", image), ("labels", label)):
        (tmp_path / part).mkdir()
        for name in "ab":
            sitk.WriteImage(sitk.GetImageFromArray(array.T), str(tmp_path / part / f"{name}.mhd"))
    cases = load_folder(tmp_path)
    assert {s.reason for s in cases.skipped} == {"the data of a header beside them"}
    assert not recwarn.list


LAYOUTS = {
    "folder": ("images/c{}.nii.gz", "labels/c{}.nii.gz"),
    "nnunet": ("imagesTr/c{}_0000.nii.gz", "labelsTr/c{}.nii.gz"),
    "msd": ("imagesTr/c{}.nii.gz", "labelsTr/c{}.nii.gz"),
    "bids": (
        "sub-c{0}/anat/sub-c{0}_T1w.nii.gz",
        "derivatives/m/sub-c{0}/anat/sub-c{0}_dseg.nii.gz",
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("broken", ["both", "label", "image"])
def test_what_datalad_did_not_fetch_is_named(tmp_path, image, label, layout, broken):
    for i in range(3):
        for pattern, array in zip(LAYOUTS[layout], (image, label), strict=True):
            save(tmp_path / pattern.format(i), array)
    names = {"background": 0, "a": 1, "b": 2}
    content = {"labels": names, "numTraining": 3}
    if layout == "nnunet":
        content |= {"channel_names": {"0": "CT"}, "file_ending": ".nii.gz"}
    else:
        pairs = [[p.format(i) for p in LAYOUTS["msd"]] for i in range(3)]
        content["training"] = [{"image": a, "label": b} for a, b in pairs]
    if layout in ("nnunet", "msd"):
        (tmp_path / "dataset.json").write_text(json.dumps(content))
    for kind, pattern in zip(("image", "label"), LAYOUTS[layout], strict=True):
        if broken in (kind, "both"):
            path = tmp_path / pattern.format(2)
            path.unlink()
            path.symlink_to("../.git/annex/objects/xx/yy/key")
    with pytest.raises(DatasetError, match=r"(?s)c2.*datalad get"):
        load_dataset(tmp_path)
