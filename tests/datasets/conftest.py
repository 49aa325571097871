"""Small cases on disk, and writers of the known layouts."""

import json

import nibabel as nib
import numpy as np
import pytest

SHAPE = (6, 5, 4)


def write_nifti(path, array, affine=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(np.asarray(array), np.eye(4) if affine is None else affine)
    image.set_qform(image.affine, 1)
    image.to_filename(path)
    return path


@pytest.fixture(scope="session")
def nifti():
    return write_nifti


@pytest.fixture
def image():
    return np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)


@pytest.fixture
def label():
    result = np.zeros(SHAPE, dtype=np.uint8)
    result[2:4, 1:4, 1:3] = 1
    result[3, 2, 2] = 2
    return result


@pytest.fixture
def save_msd(tmp_path, image, label):
    """Writer of an MSD folder of small cases; keywords replace keys of dataset.json."""

    def save(n_cases=2, **changes):
        training = []
        for i in range(n_cases):
            write_nifti(tmp_path / "imagesTr" / f"c_{i:03d}.nii.gz", image + i)
            write_nifti(tmp_path / "labelsTr" / f"c_{i:03d}.nii.gz", label)
            training.append(
                {
                    "image": f"./imagesTr/c_{i:03d}.nii.gz",
                    "label": f"./labelsTr/c_{i:03d}.nii.gz",
                }
            )
        content = {
            "modality": {"0": "MRI"},
            "labels": {"0": "background", "1": "a", "2": "b"},
            "training": training,
        }
        return save_json(tmp_path, content | changes)

    return save


@pytest.fixture
def save_nnunet(tmp_path, image, label):
    """Writer of an nnU-Net v2 folder with two channels."""

    def save(n_cases=2, ending=".nii.gz", **changes):
        for i in range(n_cases):
            for channel in range(2):
                path = tmp_path / "imagesTr" / f"c_{i:03d}_{channel:04d}{ending}"
                write_nifti(path, image + 10 * channel)
            write_nifti(tmp_path / "labelsTr" / f"c_{i:03d}{ending}", label)
        content = {
            "channel_names": {"0": "T1", "1": "T2"},
            "labels": {"background": 0, "a": 1, "b": 2},
            "numTraining": n_cases,
            "file_ending": ending,
        }
        return save_json(tmp_path, content | changes)

    return save


def save_json(folder, content):
    kept = {k: v for k, v in content.items() if v is not None}
    (folder / "dataset.json").write_text(json.dumps(kept))
    return folder
