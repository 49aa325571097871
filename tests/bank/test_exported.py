"""Entries from programs of torch.export, and from safetensors."""

import pickle

import numpy as np
import pytest
import torch
from torch import nn

from skte import BankEntry, SegmentationFeatureExtractor
from skte.bank import entry_digest, find_layers
from skte.datasets import make_phantoms
from skte.demo import small_unet
from skte.exceptions import BankError


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    torch.manual_seed(0)
    network = small_unet(widths=(4, 8)).eval()
    path = tmp_path_factory.mktemp("exported") / "heart.pt2"
    exported = torch.export.export(network, (torch.zeros(1, 1, 16, 16, 16),))
    torch.export.save(exported, path)
    return path, network


@pytest.mark.slow
def test_a_program_becomes_an_entry(program):
    path, network = program
    entry = BankEntry.from_exported(path, trusted=True)
    assert (entry.name, entry.window_size, entry.in_channels) == ("heart", (16, 16, 16), 1)
    example = torch.randn(1, 1, 16, 16, 16)
    loaded = entry.load()
    with torch.inference_mode():
        assert torch.allclose(loaded(example), network(example), atol=1e-6)
    names = [layer.name for layer in find_layers(network, "decoder", example)]
    cases = make_phantoms(2, size=(16, 16, 16))
    options = {"layers": names, "n_class_samples": 20, "n_case_samples": 20, "window_size": 16}
    found = SegmentationFeatureExtractor(entry, **options).fit_transform(cases)
    live = BankEntry.from_module("heart", network)
    expected = SegmentationFeatureExtractor(live, **options).fit_transform(cases)
    for name in names:
        mine, live = found[0].layers[name].X, expected[0].layers[name].X
        np.testing.assert_allclose(mine, live, atol=1e-5)
    again = BankEntry.from_exported(path, trusted=True)
    assert entry == again == pickle.loads(pickle.dumps(entry))
    assert entry_digest(entry) == entry_digest(again) is not None


def test_a_program_is_refused_unless_trusted(program, tmp_path):
    with pytest.raises(BankError, match=r"was refused: .* can run code.* pass trusted=True"):
        BankEntry.from_exported(program[0])
    with pytest.raises(BankError, match="no such file"):
        BankEntry.from_exported(tmp_path / "none.pt2", trusted=True)
    (tmp_path / "bad.pt2").write_bytes(b"no program")
    with pytest.raises(BankError, match=r"no file of torch\.export\.save"):
        BankEntry.from_exported(tmp_path / "bad.pt2", trusted=True)


def test_a_program_without_an_image_is_told(tmp_path):
    path = tmp_path / "line.pt2"
    torch.export.save(torch.export.export(nn.Linear(3, 2), (torch.zeros(1, 3),)), path)
    with pytest.raises(BankError, match="its first input is not an image"):
        BankEntry.from_exported(path, trusted=True)


def test_a_program_is_no_state_dict(program):
    entry = BankEntry("a", "skte.demo:small_unet", weights=program[0])
    with pytest.raises(BankError, match=r"use BankEntry\.from_exported"):
        entry.load()


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, 1, 3)
        self.again = self.first

    def forward(self, x):
        return self.again(self.first(x))


def test_safetensors_are_read(tmp_path):
    safe = pytest.importorskip("safetensors.torch")
    network = small_unet(widths=(4, 8))
    path = tmp_path / "heart.safetensors"
    safe.save_file({f"net.{k}": v for k, v in network.state_dict().items()}, path)
    entry = BankEntry(
        "a", "skte.demo:small_unet", arguments={"widths": (4, 8)}, weights=path, prefix="net."
    )
    state = network.state_dict()
    assert all(torch.equal(state[key], value) for key, value in entry.load().state_dict().items())
    safe.save_model(Tied(), tmp_path / "tied.safetensors")
    assert len(safe.load_file(tmp_path / "tied.safetensors")) == 2  # one copy of each
    tied = BankEntry("tied", Tied, weights=tmp_path / "tied.safetensors").load()
    assert tied.again.weight is tied.first.weight


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ((10**15).to_bytes(8, "little") + b"{}", "header too large"),
        (b"", "the file is empty"),
        ((2).to_bytes(8, "little") + b"{", "invalid header length"),
        ((2).to_bytes(8, "little") + b"no", "corrupted or not a safetensors file"),
        (
            (len(h := b'{"a":{"dtype":"F32","shape":[1000000000000],"data_offsets":[0,4]}}')
             ).to_bytes(8, "little") + h + bytes(4),
            "invalid shape, data type, or offset",
        ),
    ],
)  # fmt: skip
def test_headers_that_claim_too_much_are_refused(tmp_path, content, match):
    path = tmp_path / "bad.safetensors"
    path.write_bytes(content)
    with pytest.raises(BankError, match=match):
        BankEntry("a", lambda: nn.Conv2d(1, 1, 1), weights=path).load()
