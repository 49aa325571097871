import json

import numpy as np
import pytest
import torch

from skte.datasets import check_dataset, load_dataset, load_nnunet_raw, read_case
from skte.exceptions import DatasetError, SkteWarning


def test_reads_channels_in_order(save_nnunet, image):
    cases = load_nnunet_raw(save_nnunet())
    assert [c["case_id"] for c in cases] == ["c_000", "c_001"]
    assert cases[0]["label_names"] == {0: "background", 1: "a", 2: "b"}
    case = read_case(cases[0])
    expected = torch.from_numpy(np.stack([image, image + 10]))
    torch.testing.assert_close(case.image, expected)
    assert check_dataset(cases) == []


def test_ignore_label(save_nnunet):
    cases = load_nnunet_raw(save_nnunet(labels={"background": 0, "a": 1, "ignore": 2}))
    assert cases[0]["ignore_label"] == 2
    assert cases[0]["label_names"] == {0: "background", 1: "a"}
    assert read_case(cases[0]).ignore_label == 2


def test_regions_name_ids_by_the_smallest(save_nnunet):
    labels = {"background": 0, "core": [2, 3], "enhancing": 3, "whole": [1, 2, 3]}
    folder = save_nnunet(labels=labels)
    names = load_nnunet_raw(folder)[0]["label_names"]
    assert names == {0: "background", 1: "whole", 2: "core", 3: "enhancing"}


def test_file_ending(save_nnunet):
    folder = save_nnunet(ending=".nii")
    (folder / "labelsTr" / "._c_000.nii").touch()
    (folder / "labelsTr" / "readme.txt").touch()
    assert len(load_dataset(folder)) == 2


def test_version_1_lists_images_without_their_channel(save_nnunet):
    training = [
        {"image": f"./imagesTr/c_00{i}.nii.gz", "label": f"./labelsTr/c_00{i}.nii.gz"}
        for i in range(2)
    ]
    changes = {
        "channel_names": None,
        "file_ending": None,
        "training": training,
        "labels": {"0": "background", "1": "a"},
        "modality": {"0": "T1", "1": "T2"},
    }
    cases = load_dataset(save_nnunet(**changes))
    assert read_case(cases[0]).image.shape[0] == 2
    assert cases[0]["label_names"] == {0: "background", 1: "a"}
    changes["training"] = [*training, {"image": "x.nii.gz", "label": "labelsTr/x.nii.gz"}]
    with pytest.raises(DatasetError, match="Case 'x': it is listed under 'training'"):
        load_nnunet_raw(save_nnunet(**changes))


def test_explicit_paths(save_nnunet, nifti, image, label, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    nifti(elsewhere / "t2.nii.gz", image + 5)
    listed = {
        "p": {
            "images": ["imagesTr/c_000_0000.nii.gz", str(elsewhere / "t2.nii.gz")],
            "label": "labelsTr/c_000.nii.gz",
        }
    }
    folder = save_nnunet(dataset=listed)
    with pytest.raises(DatasetError, match=r"Case 'p': .* outside the folder .* --allow-root"):
        load_dataset(folder)
    (case,) = load_dataset(folder, extra_roots=[elsewhere])
    assert case["case_id"] == "p"
    torch.testing.assert_close(read_case(case).image[1], torch.from_numpy(image + 5))


@pytest.mark.parametrize(
    ("listed", "message"),
    [
        ([], "key 'dataset' names no case"),
        ({"p": {"images": ["a.nii.gz", "b.nii.gz"]}}, "Case 'p': under 'dataset' it lacks"),
        ({"p": "a.nii.gz"}, "Case 'p': under 'dataset' it lacks"),
        (
            {"p": {"images": ["a.nii.gz", "b.nii.gz"], "label": "c.nii.gz"}},
            r"(?s)a\.nii\.gz' does not exist.*c\.nii\.gz' does not exist",
        ),
        ({"p": {"images": ["a" * 5000], "label": "c"}}, "a+ does not exist"),
        (
            {"p": {"images": "imagesTr/c_000_0000.nii.gz", "label": "labelsTr/c_000.nii.gz"}},
            "it has 1 channels where 2 are expected",
        ),
    ],
)
def test_broken_explicit_paths(save_nnunet, listed, message):
    with pytest.raises(DatasetError, match=message):
        load_nnunet_raw(save_nnunet(dataset=listed))


def test_all_unmatched_files_are_listed_at_once(save_nnunet):
    folder = save_nnunet(4)
    (folder / "imagesTr" / "c_000_0001.nii.gz").unlink()
    (folder / "imagesTr" / "c_001_0000.nii.gz").unlink()
    for channel in (0, 1):
        (folder / "imagesTr" / f"c_002_000{channel}.nii.gz").unlink()
    (folder / "labelsTr" / "c_003.nii.gz").unlink()
    with pytest.raises(DatasetError) as error:
        load_nnunet_raw(folder)
    text = str(error.value)
    assert "Case 'c_000': it has 1 channels where 2 are expected" in text
    assert "Case 'c_001': it lacks channel _0000" in text
    assert "label c_002.nii.gz has no image" in text
    assert "image c_003_0000.nii.gz has no label" in text
    with pytest.raises(DatasetError, match=r"cannot be loaded:\n"):  # nothing would be left
        load_nnunet_raw(folder, skip_incomplete=True)


def test_what_is_incomplete_may_be_left_out(save_nnunet):
    folder = save_nnunet(3)
    (folder / "imagesTr" / "c_000_0001.nii.gz").unlink()
    (folder / "labelsTr" / "c_002.nii.gz").unlink()
    with pytest.warns(
        SkteWarning, match=r"3 left out as incomplete: c_000: it has 1 .*, image c_002_0000"
    ):
        cases = load_dataset(folder, skip_incomplete=True)
    assert [case["case_id"] for case in cases] == ["c_001"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"channel_names": None}, "key 'channel_names'"),
        ({"labels": "none"}, "key 'labels'"),
        ({"labels": {"background": 0, "ignore": [1, 2]}}, "'ignore' must be one integer"),
        ({"labels": {"background": 0, "a": "one"}}, "label 'a' must map to an integer"),
        ({"file_ending": 3}, "key 'file_ending'"),
        ({"file_ending": ".tif"}, r"holds no file that ends in '\.tif'"),
    ],
)
def test_broken_description(save_nnunet, changes, message):
    with pytest.raises(DatasetError, match=message):
        load_nnunet_raw(save_nnunet(**changes))


def test_folders_missing(tmp_path):
    content = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "a": 1}}
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    with pytest.raises(DatasetError, match=r"(?s)no folder 'imagesTr'.*no folder 'labelsTr'"):
        load_dataset(tmp_path)
