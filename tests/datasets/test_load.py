import json
import pickle

import numpy as np
import pytest
import torch
import torchio as tio
from monai.data import MetaTensor

from skte.datasets import load_dataset, make_phantoms, read_case
from skte.exceptions import DatasetError


@pytest.fixture
def phantoms():
    return make_phantoms(3, size=(12, 12, 12))


@pytest.mark.parametrize(
    "form",
    [
        list,
        tuple,
        tio.SubjectsDataset,
        iter,
        lambda s: np.array(s, dtype=object),
        lambda s: torch.utils.data.Subset(s, [0, 1, 2]),
    ],
    ids=["list", "tuple", "SubjectsDataset", "iterator", "object array", "Subset"],
)
def test_sequences_of_subjects(phantoms, form):
    cases = load_dataset(form(phantoms))
    assert [c["case_id"] for c in cases] == [p["case_id"] for p in phantoms]
    for case, phantom in zip(cases, phantoms, strict=True):
        assert case is not phantom
        assert torch.equal(case["image"].data, phantom["image"].data)


def test_twice_is_as_good_as_once_and_slices_keep_their_names(phantoms):
    anonymous = [tio.Subject(image=p["image"], label=p["label"]) for p in phantoms]
    cases = load_dataset(anonymous)
    names = [c["case_id"] for c in cases]
    assert [c["case_id"] for c in load_dataset(cases)] == names
    assert [c["case_id"] for c in load_dataset(cases[1:])] == names[1:]


def test_subjects_given_are_left_as_they_are(save_msd):
    given = [
        tio.Subject(
            image=tio.ScalarImage(p.parent.parent / "imagesTr" / p.name),
            label=tio.LabelMap(p),
            age=31,
        )
        for p in sorted((save_msd() / "labelsTr").iterdir())
    ]
    cases = load_dataset(given)
    for subject in (*given, *cases):
        read_case(subject)
        assert tio.DATA not in subject["image"]
        assert tio.DATA not in subject["label"]
    assert "case_id" not in given[0]
    assert cases[0]["age"] == 31
    assert len(pickle.dumps(cases[0])) < 2000


@pytest.mark.parametrize("key", ["case_id", "id", "name", "subject_id"])
def test_id_keys(phantoms, key):
    subject = tio.Subject(image=phantoms[0]["image"], label=phantoms[0]["label"], **{key: "me"})
    assert load_dataset([subject])[0]["case_id"] == "me"


def test_transform_of_a_subjects_dataset_is_applied(phantoms):
    flipped = tio.SubjectsDataset(phantoms, transform=tio.Flip(0))
    case = load_dataset(flipped)[0]
    assert torch.equal(case["image"].data, phantoms[0]["image"].data.flip(1))
    noisy = tio.Compose([tio.Flip(0), tio.RandomNoise()])
    with pytest.raises(DatasetError, match=r"random transforms.*RandomNoise"):
        load_dataset(tio.SubjectsDataset(phantoms, transform=noisy))


def test_dicts_of_paths(save_msd):
    folder = save_msd(1)
    item = {
        "image": [str(folder / "imagesTr" / "c_000.nii.gz")] * 2,
        "label": folder / "labelsTr" / "c_000.nii.gz",
        "ignore_label": 2,
        "label_names": {1: "a"},
    }
    (subject,) = load_dataset([item])
    case = read_case(subject)
    assert (case.case_id, case.ignore_label, case.label_names) == ("c_000", 2, {1: "a"})
    assert case.image.shape[0] == 2
    assert read_case(load_dataset([item | {"image": item["image"][:1]}])[0]).image.shape[0] == 1


@pytest.mark.parametrize(
    "names",
    [{1: "a", 7: "b"}, {"1": "a", "7": "b"}, {"a": 1, "b": np.int16(7)}, {"a": [1], "b": 7}],
    ids=str,
)
def test_label_names_in_either_direction(names, image, label):
    (subject,) = load_dataset([{"image": image, "label": label, "label_names": names}])
    assert subject["label_names"] == {1: "a", 7: "b"}
    subject["label_names"] = names
    assert read_case(subject).label_names == {1: "a", 7: "b"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label_names": ["a"]}, r"label_names must map ids to names.*got \['a'\]"),
        ({"label_names": {"a": 0.5}}, "label_names: label 'a' must map to an integer"),
        ({3: 4}, "keys of a case must be text, got 3"),
    ],
)
def test_dicts_with_odd_values(change, message, image, label):
    with pytest.raises(DatasetError, match=f"Case 'c1': {message}"):
        load_dataset([{"id": "c1", "image": image, "label": label} | change])


@pytest.mark.parametrize("dtype", [">f4", "<f8", ">i2", np.longdouble, np.float16, np.uint64])
def test_arrays_of_types_that_torch_lacks(dtype, label):
    array = label.astype(dtype)
    (subject,) = load_dataset([{"image": array, "label": array}])
    case = read_case(subject)
    np.testing.assert_array_equal(case.image[0], label)
    np.testing.assert_array_equal(case.label, label)


def test_large_unsigned_ids_are_not_called_negative(image, label):
    array = np.where(label == 1, 2**63 + 5, label.astype(np.uint64))
    (subject,) = load_dataset([{"id": "c1", "image": image, "label": array}])
    with pytest.raises(DatasetError, match="Case 'c1': the label has values beyond 64-bit"):
        read_case(subject)


@pytest.mark.parametrize(
    ("image_shape", "label_shape", "expected"),
    [
        ((6, 5, 4), (6, 5, 4), (1, 6, 5, 4)),
        ((2, 6, 5, 4), (6, 5, 4), (2, 6, 5, 4)),
        ((2, 6, 5, 4), (1, 6, 5, 4), (2, 6, 5, 4)),
        ((6, 5), (6, 5), (1, 6, 5, 1)),
        ((2, 6, 5), (6, 5), (2, 6, 5, 1)),
    ],
)
@pytest.mark.parametrize("as_tensor", [False, True])
def test_dicts_of_arrays(image_shape, label_shape, expected, as_tensor):
    rng = np.random.default_rng(0)
    image, label = rng.normal(size=image_shape), rng.integers(0, 3, label_shape, dtype=np.uint16)
    item = {"id": 7, "image": image, "label": label}
    if as_tensor:
        item |= {"image": torch.from_numpy(image), "label": torch.from_numpy(label.astype("i4"))}
    case = read_case(load_dataset([item])[0])
    assert case.case_id == "7"
    assert tuple(case.image.shape) == expected
    np.testing.assert_allclose(case.image.numpy().ravel(), image.ravel(), rtol=1e-6)
    np.testing.assert_array_equal(case.label.numpy().ravel(), label.ravel())


def test_affine_of_arrays(image, label):
    affine = np.diag([2.0, 1, 3, 1])
    item = {"image": image, "label": label, "affine": affine.tolist()}
    assert read_case(load_dataset([item])[0]).spacing == (2, 1, 3)
    meta = {"image": MetaTensor(image[None], affine=affine), "label": MetaTensor(label, affine)}
    assert read_case(load_dataset([meta])[0]).spacing == (2, 1, 3)


def test_dicts_of_torchio_images(phantoms):
    item = {
        "image": phantoms[0]["image"],
        "label": tio.ScalarImage(tensor=phantoms[0]["label"].data),
    }
    assert read_case(load_dataset([item])[0]).label.max() == 1


def test_all_broken_cases_are_listed_at_once(phantoms, image, tmp_path):
    image_map, label_map = phantoms[0]["image"], phantoms[0]["label"]
    broken = [
        {"id": "no label", "image": image},
        {"id": "gone", "image": str(tmp_path / "gone.nii.gz"), "label": image},
        {"id": "five", "image": np.zeros((1, 1, 2, 2, 2)), "label": image},
        {"id": "text", "image": np.array([["a"]]), "label": image},
        "a path",
        tio.Subject(image=image_map, id="unlabelled"),
        tio.Subject(label=label_map, id="label only"),
        tio.Subject(image=image_map, a=label_map, b=label_map, id="two labels"),
        tio.Subject(image=image_map, a=label_map, id="ignore", ignore_label="2"),
        {"id": "two files", "image": image, "label": [__file__, __file__]},
        phantoms[1],
        phantoms[1],
    ]
    with pytest.raises(DatasetError) as error:
        load_dataset(broken)
    for expected in (
        "Case 'no label': key 'label' missing",
        "Case 'gone': File not found",
        "Case 'five': an array of shape (1, 1, 2, 2, 2)",
        "Case 'text': an array of type <U1 holds no numbers",
        "Case 'at position 4': a case is a torchio Subject or a dict",
        "Case 'unlabelled': it has no label",
        "Case 'label only': it has no image",
        "Case 'two labels': it has 2 label maps (a, b)",
        "Case 'ignore': ignore_label must be an integer",
        "Case 'two files': label 'label' has 2 files",
        "Case id 'ellipsoids_001' is used by 2 cases",
    ):
        assert expected in str(error.value)


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        ([], "holds no case"),
        (3, "got int"),
        ({"image": 1}, "put it in a list"),
        (None, "got NoneType"),
    ],
)
def test_forms_that_are_none(dataset, message):
    with pytest.raises(DatasetError, match=message):
        load_dataset(dataset)


def test_a_single_subject_is_no_dataset(phantoms):
    with pytest.raises(DatasetError, match="put it in a list"):
        load_dataset(phantoms[0])


def test_unknown_layouts(tmp_path):
    with pytest.raises(DatasetError, match="does not exist"):
        load_dataset(tmp_path / "nowhere")
    with pytest.raises(DatasetError, match="is empty"):
        load_dataset(tmp_path)
    (tmp_path / "dataset.json").write_text(json.dumps({"name": "x"}))
    with pytest.raises(DatasetError, match=r"(?s)layout is unknown.*images/ with labels/"):
        load_dataset(tmp_path)
    (tmp_path / "dataset.json").rename(tmp_path / "other.json")
    with pytest.raises(DatasetError, match=r"(?s)layout of .* is unknown.*nnU-Net raw"):
        load_dataset(tmp_path)


def test_unnamed_cases_in_memory_keep_their_name_in_any_order():
    def unnamed(seed):
        generator = torch.Generator().manual_seed(seed)
        image = torch.rand(1, 4, 4, 4, generator=generator)
        return tio.Subject(
            image=tio.ScalarImage(tensor=image), label=tio.LabelMap(tensor=(image > 0.5).int())
        )

    subjects = [unnamed(seed) for seed in range(3)]
    names = [s["case_id"] for s in load_dataset(subjects)]
    assert len(set(names)) == 3
    assert [s["case_id"] for s in load_dataset(subjects[::-1])] == names[::-1]
    assert [s["case_id"] for s in load_dataset(subjects[1:2])] == names[1:2]
