import numpy as np
import pytest
import torch
import torchio as tio

from skte.datasets import check_dataset, load_dataset, read_case
from skte.exceptions import DatasetError


@pytest.fixture
def subject(tmp_path, nifti, image, label):
    """A subject of files with these values."""

    def make(image=image, label=label, affine=None, label_affine=None, ending=".nii.gz", **more):
        images = image if isinstance(image, list) else [image]
        files = [nifti(tmp_path / f"i{k}{ending}", array, affine) for k, array in enumerate(images)]
        label_file = nifti(tmp_path / f"l{ending}", label, label_affine)
        return tio.Subject(
            image=tio.ScalarImage(files if len(files) > 1 else files[0]),
            label=tio.LabelMap(label_file),
            case_id="me",
            **more,
        )

    return make


def refuse(subject, message):
    with pytest.raises(DatasetError, match=message) as error:
        read_case(subject)
    assert "'me'" in str(error.value)
    return str(error.value)


def test_types_and_values(subject, image, label):
    affine = np.array([[0, 2.0, 0, 5], [-1.5, 0, 0, 6], [0, 0, 3, 7], [0, 0, 0, 1]])
    case = read_case(subject(affine=affine, label_affine=affine, label_names={1: "a"}))
    assert case.image.dtype == torch.float32
    assert case.label.dtype == torch.int64
    assert case.label_names == {1: "a"}
    np.testing.assert_array_equal(case.image[0].numpy(), image)
    np.testing.assert_array_equal(case.label.numpy(), label)
    np.testing.assert_allclose(case.affine, affine)
    np.testing.assert_allclose(case.spacing, (1.5, 2, 3))


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_agrees_with_torchio(subject, ending):
    # torchio reads with ITK; a turned and mirrored volume with channels is the hard case.
    rng = np.random.default_rng(0)
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0] * [1.0, -2.0, 3.0]
    affine = np.block([[turn, rng.normal(size=(3, 1))], [np.zeros((1, 3)), 1]])
    given = subject(
        rng.normal(size=(6, 5, 4, 2)), affine=affine, label_affine=affine, ending=ending
    )
    case = read_case(given)
    np.testing.assert_allclose(case.image.numpy(), given["image"].data.numpy(), rtol=1e-6)
    np.testing.assert_allclose(case.affine, given["image"].affine, atol=1e-5)
    np.testing.assert_array_equal(case.label.numpy(), given["label"].data[0].numpy())


def test_scaled_integers_are_read_as_what_they_mean(tmp_path, nifti, subject, image):
    import nibabel as nib

    given = subject()
    stored = nib.Nifti1Image((image * 100).astype(np.int16), np.eye(4))
    stored.header.set_slope_inter(0.5, 3)
    stored.to_filename(tmp_path / "i0.nii.gz")
    np.testing.assert_allclose(
        read_case(given).image.numpy(), tio.ScalarImage(tmp_path / "i0.nii.gz").data.numpy()
    )


def test_5d_and_2d(subject, image, label):
    five = np.stack([image, 2 * image], axis=-1)[:, :, :, None]
    assert read_case(subject(five)).image.shape == (2, 6, 5, 4)
    assert read_case(subject(image[..., 0], label[..., 2])).image.shape == (1, 6, 5, 1)
    refuse(subject(np.stack([five, five], axis=5)), "is not supported")


def test_images_are_stacked_in_order(image, label):
    two = torch.from_numpy(np.stack([image + 1, image + 2]))
    subject = tio.Subject(
        t1=tio.ScalarImage(tensor=torch.from_numpy(image[None])),
        label=tio.LabelMap(tensor=torch.from_numpy(label[None])),
        t2=tio.ScalarImage(tensor=two),
    )
    expected = torch.from_numpy(np.stack([image, image + 1, image + 2]))
    case = read_case(subject)
    torch.testing.assert_close(case.image, expected)
    case.image.zero_()  # the caller's tensors are not shared
    assert torch.equal(subject["t2"].data, two)


def test_nothing_stays_loaded(subject):
    given = subject([np.eye(4), 2 * np.eye(4)], np.eye(4))
    read_case(given)
    check_dataset([given])
    assert all(tio.DATA not in image for image in given.get_images(intensity_only=False))


def test_to_image_is_a_copy(subject):
    case = read_case(subject())
    image = case.to_image()
    np.testing.assert_array_equal(image.affine, case.affine)
    image.data.zero_()
    assert case.image.abs().max() > 0


def test_custom_reader(subject, image, label):
    given = subject()
    given["image"].reader = lambda path: (torch.from_numpy(image[None]) + 1, np.eye(4))
    np.testing.assert_array_equal(read_case(given).image[0].numpy(), image + 1)
    assert check_dataset([given]) == []


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float32", ">i2"])
def test_label_types(subject, label, dtype):
    np.testing.assert_array_equal(read_case(subject(label=label.astype(dtype))).label, label)


def test_far_apart_ids(subject, label):
    ids = np.array([0, 7, 200_000], dtype=np.int32)
    assert read_case(subject(label=ids[label])).label.unique().tolist() == ids.tolist()


def test_label_values(subject, label):
    far = label.astype(np.float32)
    refuse(subject(label=far * 0.5), r"float-valued \(0\.5\).*nearest neighbours")
    refuse(subject(label=label.astype(np.int16) - 1), r"negative values \(-1\)")
    refuse(subject(label=0 * label), "no labelled foreground voxel; leave the case out")
    refuse(subject(label=0 * label + 3), r"one class only \(3\)")
    refuse(subject(label=np.where(label, np.nan, far)), "the label has voxels that are NaN")
    refuse(subject(label=label.astype(np.complex64)), "holds complex64 values")
    refuse(subject(label=np.stack([label, label], axis=-1)), "4-D with 2 channels")


def test_ignore_label(subject, label):
    ignored = np.where(label == 2, -1, label.astype(np.int16))
    assert read_case(subject(label=ignored, ignore_label=-1)).label.min() == -1
    refuse(subject(label=ignored), "negative")
    refuse(subject(label=0 * label + 255, ignore_label=255), "every voxel has the ignore label 255")
    refuse(subject(label=255 * np.minimum(label, 1), ignore_label=255), "no labelled foreground")
    # A class may be missing: background and one other are enough.
    assert read_case(subject(label=np.minimum(label, 1), ignore_label=2)).label.max() == 1


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_image_not_finite(subject, image, value, ending):
    # torchio alone would read the NaN as 0.
    broken = image.astype(np.float64)
    broken[0, 0, :2] = value
    refuse(subject(broken, ending=ending), "2 voxels that are NaN, Inf or beyond float32")


def test_image_constant_or_complex(subject, image):
    refuse(subject(0 * image + 3), "constant everywhere")
    refuse(subject([0 * image, 0 * image + 1]), "constant everywhere")
    assert read_case(subject([0 * image, image])).image.shape[0] == 2
    refuse(subject(image.astype(np.complex64)), "complex-valued")


def test_colours_are_no_intensities(subject, image):
    colours = np.zeros(image.shape, dtype=[(name, "u1") for name in "RGB"])
    colours["R"].flat = np.arange(image.size)
    refuse(subject(colours), "the image holds .*'R'.* channels of plain numbers")
    refuse(subject(label=colours), "the label holds .*'R'")


def test_nothing_at_all(image, label):
    (empty,) = load_dataset([{"id": "me", "image": image[:0], "label": label[:0]}])
    text = refuse(empty, r"image 'image' has no voxels \(shape \(1, 0, 5, 4\)\)")
    assert "image 'label' has no voxels" in text
    assert len(check_dataset([empty])) == 2


def test_ids_beyond_64_bits(label):
    for huge in (np.where(label, 2.0**63, 0), np.where(label, -1e30, 0)):
        subject = tio.Subject(
            image=tio.ScalarImage(tensor=torch.rand(1, *label.shape)),
            label=tio.LabelMap(tensor=torch.from_numpy(huge[None])),
            case_id="me",
        )
        refuse(subject, r"values beyond 64-bit integers \((9.22e\+18|-1e\+30)\); renumber")


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("name", ["i0", "l"])
@pytest.mark.parametrize("damage", ["truncated", "empty", "junk", "gone"])
def test_broken_files(subject, tmp_path, image, label, ending, name, damage):
    given = subject(image, label, ending=ending)
    path = tmp_path / f"{name}{ending}"
    content = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        # An uncompressed NIfTI has 352 bytes of header, which torchio reads without a word.
        keep = {"truncated": content[: max(400, len(content) - 60) if ending == ".nii" else -60]}
        path.write_bytes(keep.get(damage, b"" if damage == "empty" else b"no volume" * 100))
    assert f"{path} cannot be read" in refuse(given, "replace it or leave the case out")
    if damage != "truncated":
        assert any(str(path) in problem for problem in check_dataset([given]))


def test_shape_differs(subject, label):
    given = subject(label=label[:5])
    refuse(given, r"has shape \(5, 5, 4\), the image .* \(6, 5, 4\)")
    assert "has shape (5, 5, 4)" in check_dataset([given])[0]
    refuse(subject([np.eye(6), np.eye(5)], np.eye(6)), "the channel .* has shape")


@pytest.mark.parametrize(
    "change",
    [
        lambda a: a.__setitem__((0, 3), 1.0),
        lambda a: a.__setitem__((1, 1), 1.1),
        lambda a: a.__setitem__((0, 0), -1.0),
    ],
    ids=["shifted", "larger voxels", "mirrored"],
)
def test_affine_differs(subject, change):
    affine = np.eye(4)
    change(affine)
    given = subject(label_affine=affine)
    refuse(given, "different affines")
    assert "different affines" in check_dataset([given])[0]


def test_rounding_of_affines_is_forgiven(subject):
    affine = np.diag([0.703125, 0.703125, 5, 1])
    rounded = np.diag([0.7031, 0.7031, 5, 1])
    assert read_case(subject(affine=affine, label_affine=rounded)).spacing[2] == 5


def test_either_affine_of_a_nifti_may_agree(tmp_path, subject, label):
    import nibabel as nib

    given = subject(affine=np.diag([2.0, 2, 2, 1]))
    stored = nib.Nifti1Image(label, np.eye(4))
    stored.set_qform(np.diag([2.0, 2, 2, 1]), 1)
    stored.to_filename(tmp_path / "l.nii.gz")
    assert check_dataset([given]) == []
    assert read_case(given).spacing == (2, 2, 2)


def test_a_header_in_micrometres_is_told(subject):
    affine = np.diag([0.7e6, 0.7e6, 5e6, 1])
    given = subject(affine=affine, label_affine=affine)
    refuse(given, "m long by its affine.*spacings are in mm")
    long = np.diag([10_000.0, 1, 1, 1])  # 6 voxels: 60 m
    assert not any(
        "m long" in problem for problem in check_dataset([subject(affine=long, label_affine=long)])
    )


@pytest.mark.parametrize("value", [0.0, np.nan])
def test_singular_affine(image, label, value):
    broken = tio.Subject(
        image=tio.ScalarImage(
            tensor=torch.from_numpy(image[None]), affine=np.diag([value, 1, 1, 1])
        ),
        label=tio.LabelMap(tensor=torch.from_numpy(label[None])),
        case_id="me",
    )
    refuse(broken, "singular or not finite")


def test_all_problems_of_a_case_at_once(subject, image, label):
    broken = np.where(image > 1, np.nan, image)
    text = refuse(subject(broken, 0 * label[:5]), "cannot be used")
    assert "NaN" in text
    assert "no labelled foreground" in text
    assert "has shape (5, 5, 4)" in text
    shifted = np.eye(4)
    shifted[0, 3] = 1
    text = refuse(subject(label=np.stack([label] * 2, axis=-1), label_affine=shifted), "4-D")
    assert "different affines" in text


def test_header_problems_of_a_case_without_image(label):
    one = tio.LabelMap(tensor=torch.from_numpy(np.stack([label] * 2)))
    first, second = check_dataset([tio.Subject(label=one, case_id="me")])
    assert "it has no image" in first
    assert "4-D with 2 channels" in second


def test_not_a_subject():
    with pytest.raises(DatasetError, match="takes a torchio Subject, got dict"):
        read_case({"image": 1})


def test_subject_without_label(image):
    refuse(
        tio.Subject(image=tio.ScalarImage(tensor=torch.zeros(1, 2, 2, 2)), case_id="me"),
        "has no label",
    )


def test_check_dataset_lists_all_cases(subject, save_msd, tmp_path, image, label):
    cases = load_dataset(save_msd(3))
    cases.append(load_dataset([{"image": np.stack([image, image]), "label": label}])[0])
    cases.append(cases[1])
    (tmp_path / "labelsTr" / "c_000.nii.gz").unlink()
    problems = check_dataset(cases)
    assert len(problems) == 3
    assert problems[0].startswith("Case id 'c_001' is used by 2 cases")
    assert "c_000.nii.gz cannot be read (it does not exist)" in problems[1]
    two = cases[3]["case_id"]
    assert f"number of channels (1 in c_001, c_002, c_001; 2 in {two}" in problems[2]


def test_check_dataset_of_nothing():
    assert check_dataset([]) == ["The dataset holds no case: give at least two."]
