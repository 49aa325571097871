import json

import pytest
import torch
import torchio as tio

from skte.datasets import load_dataset, load_msd, read_case
from skte.exceptions import DatasetError, SkteWarning


def test_reads_cases_names_and_values(save_msd, image, label):
    cases = load_msd(save_msd())
    assert [c["case_id"] for c in cases] == ["c_000", "c_001"]
    assert cases[0]["label_names"] == {0: "background", 1: "a", 2: "b"}
    assert cases[0]["ignore_label"] is None
    case = read_case(cases[1])
    torch.testing.assert_close(case.image[0], torch.from_numpy(image + 1))
    torch.testing.assert_close(case.label, torch.from_numpy(label).long())


def test_is_lazy(save_msd):
    for case in load_msd(save_msd()):
        assert all(tio.DATA not in image for image in case.get_images(intensity_only=False))


def test_4d_image_has_its_channels_last(save_msd, nifti, image):
    folder = save_msd(1)
    four = torch.from_numpy(image)[..., None] * torch.tensor([1.0, 2.0])
    nifti(folder / "imagesTr" / "c_000.nii.gz", four.numpy())
    case = read_case(load_msd(folder)[0])
    torch.testing.assert_close(case.image, four.movedim(-1, 0))


def test_path_given_as_text_and_detected(save_msd):
    folder = save_msd()
    assert [c["case_id"] for c in load_dataset(str(folder))] == ["c_000", "c_001"]


def test_all_missing_files_are_listed_at_once(save_msd):
    folder = save_msd(3)
    (folder / "imagesTr" / "c_000.nii.gz").unlink()
    (folder / "labelsTr" / "c_002.nii.gz").unlink()
    with pytest.raises(DatasetError) as error:
        load_msd(folder)
    text = str(error.value)
    assert "training[0]: image: the file './imagesTr/c_000.nii.gz' does not exist" in text
    assert "training[2]: label: the file './labelsTr/c_002.nii.gz' does not exist" in text
    assert "training[1]" not in text
    with pytest.warns(SkteWarning, match=r"2 left out as incomplete: training\[0\]: image"):
        cases = load_dataset(folder, skip_incomplete=True)
    assert [case["case_id"] for case in cases] == ["c_001"]


@pytest.mark.parametrize("place", ["../outside.nii.gz", "{root}/outside.nii.gz"])
def test_paths_may_not_leave_the_folder(save_msd, nifti, image, place, tmp_path_factory):
    folder = save_msd(1)
    root = tmp_path_factory.mktemp("elsewhere")
    nifti(root / "outside.nii.gz", image)
    nifti(folder.parent / "outside.nii.gz", image)
    content = json.loads((folder / "dataset.json").read_text())
    content["training"][0]["image"] = place.format(root=root)
    (folder / "dataset.json").write_text(json.dumps(content))
    with pytest.raises(DatasetError, match=r"outside the folder that was given; .* --allow-root"):
        load_msd(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": None}, "key 'labels' names no label"),
        ({"labels": {"0": 3.5}}, "label '0' must map to an integer"),
        ({"training": None}, "key 'training' is not a list"),
        ({"training": []}, "key 'training' lists no case"),
        ({"training": [{"image": "a.nii.gz"}]}, r"training\[0\]: key 'label' is missing"),
        ({"training": ["a.nii.gz"]}, r"training\[0\]: must be an object"),
        ({"training": [{"image": 3, "label": 4}]}, "3 is not a path"),
    ],
)
def test_broken_description(save_msd, changes, message):
    with pytest.raises(DatasetError, match=message):
        load_msd(save_msd(**changes))


@pytest.mark.parametrize("text", ["--5", "\u00b2", "9" * 5000, "5.0", str(2**63)])
@pytest.mark.parametrize("is_id_first", [True, False])
def test_ids_that_are_no_integers(save_msd, text, is_id_first):
    labels = {text: "a"} if is_id_first else {"a": text}
    with pytest.raises(DatasetError, match=r"dataset\.json: label .* must map to an integer") as e:
        load_msd(save_msd(labels=labels))
    assert len(str(e.value)) < 500


def test_a_path_too_long_for_a_file_is_a_problem(save_msd):
    item = {"image": "a" * 5000, "label": "labelsTr/c_000.nii.gz"}
    with pytest.raises(DatasetError, match=r"training\[0\]: image: the file 'a+ does not exist"):
        load_dataset(save_msd(training=[item]))


def test_problems_of_description_and_files_come_together(save_msd):
    folder = save_msd(1, labels=None)
    (folder / "imagesTr" / "c_000.nii.gz").unlink()
    with pytest.raises(DatasetError, match=r"(?s)'labels'.*does not exist"):
        load_msd(folder)


def test_case_listed_twice(save_msd):
    item = {"image": "imagesTr/c_000.nii.gz", "label": "labelsTr/c_000.nii.gz"}
    with pytest.raises(DatasetError, match="Case id 'c_000' is used by 2 cases"):
        load_msd(save_msd(training=[item, item]))


@pytest.mark.parametrize(("text", "message"), [("{", "not valid JSON"), ("[]", "got list")])
def test_json_that_is_none(save_msd, text, message):
    folder = save_msd(1)
    (folder / "dataset.json").write_text(text)
    with pytest.raises(DatasetError, match=message):
        load_msd(folder)


def test_folder_that_is_none(tmp_path, save_msd):
    with pytest.raises(DatasetError, match="does not exist"):
        load_msd(tmp_path / "nowhere")
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(DatasetError, match="is empty"):
        load_msd(empty)
    (empty / "notes.txt").touch()
    with pytest.raises(DatasetError, match=r"no dataset\.json"):
        load_msd(empty)
    with pytest.raises(DatasetError, match="is not a folder"):
        load_msd(empty / "notes.txt")
