import json

import numpy as np
import pytest
import torch

from skte.datasets import make_phantoms
from skte.demo import small_unet, write_msd


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """Three small cases on disk, in the layout of the Decathlon."""
    return write_msd(tmp_path_factory.mktemp("data"), make_phantoms(3, size=(16, 16, 16)), "tiny")


@pytest.fixture
def write_bank(tmp_path):
    """Write a manifest of small networks; `broken` ones have weights that do not fit."""

    def write(*names, broken=(), **fields):
        models = []
        for seed, name in enumerate(names):
            torch.manual_seed(seed)
            widths = [8, 16] if name in broken else [4, 8]
            torch.save(small_unet(widths=widths).state_dict(), tmp_path / f"{name}.pt")
            models.append(
                {
                    "name": name,
                    "factory": "skte.demo:small_unet",
                    "arguments": {"widths": [4, 8]},
                    "weights": f"{name}.pt",
                    **fields,
                }
            )
        path = tmp_path / "bank.json"
        path.write_text(json.dumps({"models": models}))
        return path

    return write


@pytest.fixture
def broken_data(tmp_path):
    """Three cases on disk, one of whose labels lacks every class."""
    cases = make_phantoms(3, size=(16, 16, 16))
    cases[1]["label"].set_data(torch.zeros(1, 16, 16, 16, dtype=torch.int64))
    assert np.unique(cases[1]["label"].data).tolist() == [0]
    return write_msd(tmp_path / "broken", cases, "broken")
