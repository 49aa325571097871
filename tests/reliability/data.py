"""Descriptions of datasets and images with something random in them."""

import gzip
import json

import nibabel as nib
import numpy as np
import torch

from skte.datasets import case_fingerprint, check_dataset, load_dataset, make_phantoms, read_case
from skte.demo import write_msd
from skte.exceptions import DatasetError
from tests.reliability.mutate import bytes_mutated, json_mutated, pick
from tests.reliability.outcome import require

SIZE = (12, 12, 10)


def prepare_msd(folder):
    write_msd(folder / "data", make_phantoms(2, size=SIZE), "tiny")
    return json.loads((folder / "data" / "dataset.json").read_text())


def prepare_nnunet_raw(folder):
    root = folder / "data"
    for part in ("imagesTr", "labelsTr"):
        (root / part).mkdir(parents=True)
    for subject in make_phantoms(2, size=SIZE):
        subject["image"].save(root / "imagesTr" / f"{subject['case_id']}_0000.nii.gz")
        subject["label"].save(root / "labelsTr" / f"{subject['case_id']}.nii.gz")
    labels = {"background": 0, "organ": [1, 2], "lesion": 2, "ignore": 3}
    return {
        "channel_names": {"0": "CT"},
        "labels": labels,
        "regions_class_order": [1, 2],
        "numTraining": 2,
        "file_ending": ".nii.gz",
    }


def attempt_description(rng, folder, sound):
    (folder / "data" / "dataset.json").write_bytes(json_mutated(rng, sound))
    return read_all(folder / "data")


def read_all(folder):
    """Read a dataset as a ranking does, and require that what comes out can be worked with."""
    try:
        subjects = load_dataset(folder)
        problems = check_dataset(subjects)
        cases = [read_case(subject) for subject in subjects]
    except DatasetError:
        return "named error"
    for case in cases:
        require(torch.isfinite(case.image).all(), "an image that is not finite")
        require(np.isfinite(case.affine).all(), "an affine that is not finite")
        require(abs(np.linalg.det(case.affine[:3, :3])) > 0, "an affine without volume")
        require(case.image.shape[1:] == case.label.shape, "image and label of different shape")
    [case_fingerprint(subject) for subject in subjects]
    return "named error" if problems else "result"


FIELDS = {
    "dim": [np.array(shape, "i2") for shape in (
        [3, 12, 12, 10, 1, 1, 1, 1], [3, 32767, 32767, 32767, 1, 1, 1, 1],
        [7, 2, 2, 2, 2, 2, 2, 2], [3, -1, 12, 10, 1, 1, 1, 1], [3, 0, 12, 10, 1, 1, 1, 1],
        [0, 0, 0, 0, 0, 0, 0, 0], [2, 12, 120, 0, 0, 0, 0, 0], [3, 12, 12, 9, 1, 1, 1, 1],
        [3, 6, 24, 10, 1, 1, 1, 1], [-3, 12, 12, 10, 1, 1, 1, 1], [4, 12, 12, 5, 2, 1, 1, 1],
        [9, 9, 9, 9, 9, 9, 9, 9], [5, 12, 12, 10, 1, 1, 1, 1], [1, 1440, 1, 1, 1, 1, 1, 1],
    )],
    "pixdim": [np.array([q, a, b, c, 1, 1, 1, 1], "f4") for q, a, b, c in (
        (1, -1, 1, 1), (1, 0, 0, 0), (-1, 1, 1, 1), (1, np.nan, 1, 1), (1, np.inf, 1, 1),
        (1, 1e-30, 1, 1), (1, 1e30, 1e30, 1e30), (0, 1, 1, 1), (7, 1, 2, 3),
    )],
    "datatype": [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 768, 1024, 1536, 1792, 2048, 2304, -1],
    "bitpix": [0, 1, 8, 16, 32, 64, -8],
    "vox_offset": [0, 1, 348, 351, 352, 353, 400, 1e9, -352, np.nan, np.inf, 1e30],
    "scl_slope": [0, 1, -1, np.nan, np.inf, 1e30, 1e-30, 1e38],
    "scl_inter": [0, 1, np.nan, np.inf, 1e30, -1e38],
    "qform_code": [0, 1, 2, -1, 99],
    "sform_code": [0, 1, 2, -1, 99],
    "quatern_b": [0, 1, 2, np.nan, np.inf, -1e30],
    "qoffset_x": [0, np.nan, np.inf, 1e30],
    "srow_x": [np.array(row, "f4") for row in (
        [0, 0, 0, 0], [np.nan] * 4, [np.inf, 0, 0, 0], [1e-30, 0, 0, 0], [-1, 0, 0, 1e30],
        [1, 1, 1, 1], [0, 1, 0, 0],
    )],
    "srow_y": [np.array(row, "f4") for row in ([0, 0, 0, 0], [1, 0, 0, 0], [np.nan] * 4)],
    "sizeof_hdr": [0, 347, 348, 540, -1],
    "magic": [b"n+1", b"ni1", b"n+2", b"", b"abc"],
    "xyzt_units": [0, 2, 255],
    "intent_code": [0, 1007, -1],
}  # fmt: skip


def prepare_nifti(folder):
    write_msd(folder / "data", make_phantoms(2, size=SIZE), "tiny")
    kept = {}
    for path in (folder / "data").rglob("*.nii.gz"):
        kept[path] = gzip.decompress(path.read_bytes())
    return kept


def attempt_nifti(rng, folder, sound):
    path = pick(rng, sorted(sound))
    data = bytearray(sound[path])
    if rng.random() < 0.85:
        header = np.frombuffer(data[:348], nib.Nifti1Header.template_dtype).copy()
        for _ in range(int(rng.integers(1, 4))):
            name = pick(rng, list(FIELDS))
            header[name] = pick(rng, FIELDS[name])
        data[:348] = header.tobytes()
    else:
        data = bytes_mutated(rng, data)
    packed = gzip.compress(bytes(data), 1)
    path.write_bytes(bytes_mutated(rng, packed) if rng.random() < 0.1 else packed)
    try:
        return read_all(folder / "data")
    finally:
        path.write_bytes(gzip.compress(sound[path], 1))
