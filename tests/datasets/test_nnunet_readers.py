"""Odd files are read as nnU-Net's own readers read them; what those gave is stored."""

import json
from pathlib import Path

import numpy as np
import pytest
import torchio as tio

from skte.datasets import load_nnunet_raw, read_case
from tests.datasets.odd_files import FILES, write

STORED = np.load(Path(__file__).parent / "data" / "nnunet_readers.npz")
SPACINGS = json.loads(str(STORED["notes"]))["spacings"]


def test_what_is_stored_is_of_these_files():
    assert list(SPACINGS) == list(FILES)
    assert len(FILES) >= 40


@pytest.mark.parametrize("name", FILES)
def test_files_are_read_as_nnunet_reads_them(name, tmp_path):
    reader, _ = FILES[name]
    if reader in ("Tiff3DIO", "NaturalImage2DIO"):
        pytest.importorskip("tifffile")
        pytest.importorskip("PIL")
    image, _ = write(tmp_path, name)
    expected = STORED[f"{name}/image"].transpose(0, 3, 2, 1)
    description = {
        "channel_names": {str(c): f"channel {c}" for c in range(len(expected))},
        "labels": {"background": 0, "a": 1, "b": 2},
        "numTraining": 1,
        "file_ending": "".join(image.suffixes),
    }
    (tmp_path / "dataset.json").write_text(json.dumps(description))
    (subject,) = load_nnunet_raw(tmp_path)
    case = read_case(subject)
    found = tio.ScalarImage(tensor=case.image, affine=case.affine)
    label = tio.LabelMap(tensor=case.label[None].int(), affine=case.affine)
    if reader == "NibabelIOWithReorient":
        found, label = tio.ToCanonical()(found), tio.ToCanonical()(label)
    np.testing.assert_array_equal(found.data.numpy(), expected)
    np.testing.assert_array_equal(label.data.numpy(), STORED[f"{name}/label"].transpose(0, 3, 2, 1))
    spacing = SPACINGS[name][::-1]
    if reader == "NaturalImage2DIO":  # 999 stands for the axis that a picture lacks
        spacing = [1, 1, 1]
    np.testing.assert_allclose(found.spacing, spacing, rtol=1e-6)
