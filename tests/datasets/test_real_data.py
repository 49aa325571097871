"""Real images, where there are any (see `data_dir`)."""

import json

import numpy as np
import pytest
import torchio as tio

from skte.datasets import check_dataset, load_dataset, load_msd, read_case

FOLDERS = [
    "HeadNeck_CT",
    "Heart_ACDC",
    "LeftAtrium",
    "LeftVentricle_2D",
    "Spine_T1",
    "Task04_Hippocampus",
]


@pytest.mark.slow
@pytest.mark.parametrize("name", FOLDERS)
def test_folder(data_dir, name):
    description = json.loads((data_dir / name / "dataset.json").read_text())
    cases = load_dataset(data_dir / name)
    assert len(cases) == len(description["training"])
    assert check_dataset(cases[:10]) == []
    names = {int(k): v for k, v in description["labels"].items()}
    for subject in cases[:3]:
        case = read_case(subject)
        assert case.label_names == names
        assert set(case.label.unique().tolist()) <= set(names)
        assert tio.DATA not in subject["image"]
        np.testing.assert_allclose(case.image.numpy(), subject["image"].data.float().numpy())
        np.testing.assert_allclose(case.affine, subject["image"].affine, atol=1e-4)
        np.testing.assert_array_equal(case.label.numpy(), subject["label"].data[0].numpy())


def test_two_dimensions(data_dir):
    case = read_case(load_msd(data_dir / "LeftVentricle_2D")[0])
    assert case.image.shape == (1, 128, 128, 1)
