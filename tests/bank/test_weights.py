"""Weights files: found, refused, fixed by a key or prefix; never executed."""

import argparse
import contextlib
import copy
import json
import os
import pickle
import re
import zipfile
from collections import Counter, defaultdict
from pathlib import PurePosixPath

import numpy as np
import pytest
import torch
from torch import nn

from skte import BankEntry, ModelBank, memory_limit
from skte.bank._weights import load_weights, read_checkpoint
from skte.exceptions import BankError


def build(width=4):
    return nn.Sequential(nn.Conv2d(1, width, 3), nn.BatchNorm2d(width), nn.Conv2d(width, 2, 1))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "weights.pt"


@pytest.fixture
def trained():
    torch.manual_seed(1)
    network = build()
    network[1].running_mean += 3
    return network


def load(path, **fields):
    return BankEntry("a", build, weights=path, **fields).load()


def refused(path, **fields):
    with pytest.raises(BankError) as caught:
        load(path, **fields)
    message = str(caught.value)
    assert message.startswith(f"Entry 'a': Weights {path}")
    return message


def same(network, other):
    states = network.state_dict(), other.state_dict()
    return all(torch.equal(states[0][key], states[1][key]) for key in states[1])


@pytest.mark.parametrize("zipped", [True, False])
def test_a_state_dict_is_loaded(path, trained, zipped):
    torch.save(trained.state_dict(), path, _use_new_zipfile_serialization=zipped)
    network = load(path)
    assert same(network, trained)
    assert not network.training
    assert not any(module.training for module in network.modules())


def test_half_precision_becomes_float32(path, trained):
    torch.save(copy.deepcopy(trained).half().state_dict(), path)
    network = load(path)
    assert {p.dtype for p in network.parameters()} == {torch.float32}
    assert torch.equal(network[0].weight, trained[0].weight.half().float())


def test_complex_weights_do_not_fit_a_real_network(path, trained):
    state = {k: v.to(torch.complex64) if "0." in k else v for k, v in trained.state_dict().items()}
    torch.save(state, path)
    assert "complex in the file, real in the model (2): 0.weight, 0.bias" in refused(path)


@pytest.mark.parametrize(
    ("wrap", "fields"),
    [
        (lambda s: {"network_weights": s, "epoch": 3}, {"state_key": "network_weights"}),
        (lambda s: {"model": {"state_dict": s}}, {"state_key": "model.state_dict"}),
        (lambda s: {"model.ema": {"best": s}}, {"state_key": "model.ema.best"}),
        (lambda s: {f"module.{k}": v for k, v in s.items()}, {"prefix": "module."}),
        (
            lambda s: {
                "state_dict": {f"net.{k}": v for k, v in s.items()} | {"loss.weight": torch.ones(2)}
            },
            {"state_key": "state_dict", "prefix": "net."},
        ),
    ],
)
def test_key_and_prefix_lead_to_the_state_dict(path, trained, wrap, fields):
    torch.save(wrap(trained.state_dict()), path)
    assert same(load(path, **fields), trained)


class Nested(nn.Module):
    """Has a part that is called as wrappers call theirs."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 2, 1)
        self.block = nn.ModuleDict({"module": nn.Conv2d(2, 2, 1)})


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: {f"module.{k}": v for k, v in s.items()} | {"n_averaged": torch.tensor(3)},
        lambda s: {k.replace("block.", "block._orig_mod."): v for k, v in s.items()},
        lambda s: {k.replace("stem.", "stem._orig_mod.module."): v for k, v in s.items()},
        lambda s: {"_fsdp_wrapped_module." + k.replace("stem.", "stem._fsdp_wrapped_module."): v
                   for k, v in s.items()},
    ],
)  # fmt: skip
def test_what_wrappers_add_to_keys_is_dropped(path, wrap):
    network, other = Nested(), Nested()
    torch.save(wrap(network.state_dict()), path)
    load_weights(other, path)
    assert same(other, network)


def test_keys_that_two_wrapped_ones_would_share_are_kept(path):
    state = Nested().state_dict()
    more = {k.replace("stem.", "stem._orig_mod."): v for k, v in state.items() if "stem" in k}
    torch.save(state | more, path)
    with pytest.raises(BankError, match=r"unexpected in the file \(2\): stem._orig_mod.weight"):
        load_weights(Nested(), path)
    torch.save(state | {"n_averaged": torch.tensor(3)}, path)
    with pytest.raises(BankError, match=r"unexpected in the file \(1\): n_averaged"):
        load_weights(Nested(), path)


@pytest.mark.parametrize(
    ("wrap", "keys"),
    [
        (lambda s: {"state_dict": s, "epoch": 1}, ["'state_dict'"]),
        (lambda s: {"model": {"net": s}, "ema": s}, ["'model.net'", "'ema'"]),
    ],
)
def test_containers_are_suggested(path, trained, wrap, keys):
    torch.save(wrap(trained.state_dict()), path)
    message = refused(path)
    assert "no state dict, but a dict with keys" in message
    assert f"Pass state_key={' or '.join(keys)}" in message


def test_a_wrong_key_gets_near_matches(path, trained):
    torch.save({"network_weights": trained.state_dict()}, path)
    message = refused(path, state_key="network_weight")
    assert "state_key='network_weight'; did you mean 'network_weights'?" in message
    assert "Pass state_key='network_weights'" in message


@pytest.mark.parametrize(
    "content", [{}, [torch.ones(1)], torch.ones(2), {"epoch": 1}, {1: torch.ones(1)}]
)
def test_files_without_a_state_dict_say_how_to_write_one(path, content):
    torch.save(content, path)
    assert "Save network.state_dict() with torch.save" in refused(path)


def test_a_wrong_prefix_lists_what_there_is(path, trained):
    torch.save({f"net.{k}": v for k, v in trained.state_dict().items()}, path)
    assert "no key starts with prefix='module.'; keys start with 'net.'" in refused(
        path, prefix="module."
    )


def test_a_common_prefix_is_suggested(path, trained):
    torch.save({f"module.net.{k}": v for k, v in trained.state_dict().items()}, path)
    message = refused(path)
    assert "missing in the file (9): 0.weight" in message
    assert "unexpected in the file (9): module.net.0.weight" in message
    assert "pass prefix='module.net.'" in message


def test_a_misfit_names_keys_and_shapes(path, trained):
    state = build(width=6).state_dict()
    del state["2.bias"]
    state["extra"] = torch.ones(1)
    torch.save(state, path)
    message = refused(path)
    assert "do not fit the model Sequential" in message
    assert "missing in the file (1): 2.bias" in message
    assert "unexpected in the file (1): extra" in message
    assert "of another shape (7): 0.weight is (6, 1, 3, 3) in the file, (4, 1, 3, 3)" in message
    assert "..." in message
    assert "factory's arguments" in message


def test_training_numbers_beside_the_weights_do_no_harm(path, trained):
    extras = {"loss": np.float64(0.5), "epoch": np.int64(3), "history": [np.float32(1)]}
    torch.save({"network_weights": trained.state_dict(), **extras}, path)
    assert same(load(path, state_key="network_weights"), trained)


class Crafted:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_crafted_pickle_is_refused_and_not_run(path, trained, zipped):
    marker = path.parent / "was_run"
    content = {**trained.state_dict(), "x": Crafted(marker)}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    message = refused(path)
    assert "would run code" in message
    assert ".mkdir" in message
    assert "weights_only=False" in message
    assert not marker.exists()


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickled_network_is_refused(path, trained, zipped):
    torch.save(trained, path, _use_new_zipfile_serialization=zipped)
    message = refused(path)
    assert "a whole pickled network" in message
    torch.save(Nested(), path.with_name("own.pt"), _use_new_zipfile_serialization=zipped)
    assert "a whole pickled network" in refused(path.with_name("own.pt"))
    lines = message.partition("weights alone: ")[2].partition(". Or,")[0]
    with contextlib.chdir(path.parent):
        exec(lines, {"torch": torch})
    assert same(load(path.parent / "weights_state.pt"), trained)


def test_a_pickled_network_that_is_trusted_gives_its_weights(path, trained):
    torch.save(trained, path)
    assert same(load(path, trusted=True), trained)
    torch.save({"epoch": 3, "model": trained}, path)
    assert same(load(path, trusted=True, state_key="model"), trained)


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_torchscript_is_refused_with_a_reason(path, trained):
    script = torch.jit.trace(trained.eval(), torch.zeros(1, 1, 8, 8))
    script.save(path)
    assert "TorchScript, whose layers cannot be hooked" in refused(path)
    for make in (
        lambda: BankEntry.from_module("a", script),
        lambda: BankEntry("a", lambda: script).load(),
    ):
        with pytest.raises(BankError, match="Entry 'a': a TorchScript module"):
            make()


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.95])
def test_a_truncated_file_is_told(path, trained, zipped, share):
    torch.save(trained.state_dict(), path, _use_new_zipfile_serialization=zipped)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    assert "truncated" in refused(path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "empty"),
        (b"<html>404</html>", "not a file of torch.save"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (pickle.dumps([1, 2], protocol=2), "does not start as a file of torch.save does"),
    ],
)
def test_other_files_are_told(path, content, match):
    path.write_bytes(content)
    assert match in refused(path)


def test_an_archive_that_unpacks_to_much_more_is_refused(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(2**24))
    assert "unpacks to 16777216 bytes" in refused(path)


@pytest.mark.parametrize("suffix", [".onnx", ".pt2", ".safetensors.index.json"])
def test_formats_without_a_reader_are_named(tmp_path, suffix):
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(b"x")
    assert "state_dict()" in refused(path)


def test_a_missing_file_and_a_folder_are_told(tmp_path):
    assert "no such file" in refused(tmp_path / "none.pt")
    assert "this is a folder" in refused(tmp_path)


def test_lazy_parameters_take_the_file_s_shape(path):
    torch.save(nn.Sequential(nn.Conv2d(1, 2, 3)).state_dict(), path)
    lazy = BankEntry("a", lambda: nn.Sequential(nn.LazyConv2d(2, 3)), weights=path)
    assert lazy.load()[0].weight.shape == (2, 1, 3, 3)


def test_checkpoints_land_on_the_cpu(path, trained):
    torch.save(trained.state_dict(), path)
    assert {t.device.type for t in read_checkpoint(path).values()} == {"cpu"}


def flip(path, position):
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


def test_a_flipped_bit_among_the_values_is_told(path, trained):
    """torch.load does not look at the checksums of its own files."""
    torch.save(trained.state_dict(), path)
    with zipfile.ZipFile(path) as archive:
        largest = max(
            archive.infolist(), key=lambda part: part.file_size * ("data/" in part.filename)
        )
    flip(path, largest.header_offset + 200)  # behind the name and torch's padding
    torch.load(path, weights_only=True)
    message = refused(path)
    assert f"the checksum does not fit in: {largest.filename}" in message


def test_a_part_that_claims_to_be_a_folder_is_read(path, trained):
    """torch.load returns memory that nothing filled."""
    torch.save(trained.state_dict(), path)
    content = bytearray(path.read_bytes())
    entry = content.index(b"PK\1\2", content.index(b"PK\1\2") + 4)
    while b"data/0" not in content[entry : entry + 80]:
        entry = content.index(b"PK\1\2", entry + 4)
    content[entry + 38] |= 0x10
    path.write_bytes(content)
    assert same(load(path), trained)


def test_names_that_are_no_text_are_told(path, trained):
    torch.save(trained.state_dict(), path)
    content = path.read_bytes()
    at = content.index(b"PK\1\2")
    flags = bytearray(content)
    flags[at + 9] |= 0x08  # "names are UTF-8"
    flags[at + 46] = 0xFF
    path.write_bytes(flags)
    assert "truncated, corrupted" in refused(path)


def test_files_written_without_checksums_are_read(path, trained):
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(trained.state_dict(), path)
    finally:
        torch.serialization.set_crc32_options(True)
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is not None
    assert set(load(path).state_dict()) == set(trained.state_dict())


def test_what_is_no_file_is_not_opened(tmp_path):
    """A pipe would be waited for."""
    os.mkfifo(tmp_path / "pipe.pt")
    with pytest.raises(BankError, match="not a regular file"):
        load(tmp_path / "pipe.pt")
    with pytest.raises(BankError, match="this is a folder"):
        load(tmp_path)


KINDS = ["?", *"bhilBHIL", "e", "f", "d", "g", "F", "D", "G", "S3", "U3"]
BESIDE = {
    "namespace": argparse.Namespace(a=1, b=argparse.Namespace(c=[1])),
    "path": PurePosixPath("/a/b.c"),
    "default": {"inner": defaultdict(list, a=[1])},
    "device": torch.device("cuda", 1),
    "dtype": torch.float16,
    "counter": Counter("aab"),
    "set": {1, 2},
    "frozenset": frozenset({1, 2}),
    "bytes": (b"a\xff", b""),
    "complex": 1 + 2j,
    "large": 2**70,
    "dates": np.array(["2024-01-01"], "M8[D]"),
    "objects": np.array([None]),
    "keys": {(1, 2): 3, 2**70: 4, torch.float16: 5},
    "version": torch.torch_version.TorchVersion("2.1"),
    "pickled network": nn.Conv2d(1, 1, 1),
    **{kind: np.zeros(2, kind)[0] for kind in KINDS},
}
FORMATS = [{}, {"_use_new_zipfile_serialization": False}, {"pickle_protocol": 4}]


@pytest.mark.parametrize("options", FORMATS)
@pytest.mark.parametrize("name", BESIDE)
def test_what_training_leaves_beside_the_weights_is_left_out(path, trained, name, options):
    torch.save({"w": trained.state_dict(), "a": BESIDE[name]}, path, **options)
    assert same(load(path, state_key="w"), trained)
    assert repr(read_checkpoint(path)["a"]).count("not read") <= 3


def test_dicts_with_a_default_are_state_dicts(path, trained):
    torch.save(defaultdict(list, trained.state_dict()), path)
    assert same(load(path), trained)


@pytest.mark.parametrize(
    "value", [np.eye(2), np.float32(1), {1, 2}, np.dtype("f4"), torch.device("cpu"), b"a"]
)
def test_what_is_left_out_is_named_where_it_is_asked_for(path, trained, value):
    torch.save({**trained.state_dict(), "x_extra_state": {"inner": [value]}}, path)
    assert re.search(r"would run code \(needs: \w+[.]\w+", refused(path))
    torch.save({"a": value, "w": trained.state_dict()}, path)
    assert re.search(r"would run code \(needs: \w+[.]\w+", refused(path, state_key="a"))
    assert "Pass state_key='w'" in refused(path)


TENSORS = {
    "shared": lambda x: {"a": x, "b": x[1:3, ::2], "c": x.t(), "d": x[0]},
    "channels last": lambda x: x.reshape(1, 2, 3, 6).to(memory_format=torch.channels_last),
    "kinds": lambda x: [x.to(kind) for kind in (
        torch.float64, torch.float16, torch.bfloat16, torch.complex64, torch.int8, torch.int16,
        torch.int32, torch.int64, torch.uint8, torch.bool, torch.uint16)],
    "parameters": lambda x: [nn.Parameter(x), nn.Parameter(x, requires_grad=False)],
    "empty": lambda x: [torch.empty(0, 3), torch.tensor(3.0), x[:, :1].expand(6, 5)],
    "optimizer": lambda x: torch.optim.Adam([nn.Parameter(x)]).state_dict(),
}  # fmt: skip


@pytest.mark.parametrize("options", FORMATS[::2])
@pytest.mark.parametrize("name", TENSORS)
def test_tensors_are_exactly_those_of_torch(path, name, options):
    torch.save({"x": TENSORS[name](torch.randn(6, 6))}, path, **options)
    found, expected = (
        flat(r) for r in (read_checkpoint(path), torch.load(path, weights_only=False))
    )
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        if isinstance(other, torch.Tensor):
            assert type(one) is type(other)
            for name in ("dtype", "shape", "requires_grad"):
                assert getattr(one, name) == getattr(other, name)
            assert one.stride() == other.stride()
            assert one.untyped_storage().nbytes() == other.untyped_storage().nbytes()
            assert torch.equal(one, other)
        else:
            assert one == other
    assert len({t.data_ptr() for t in found if isinstance(t, torch.Tensor)}) == len(
        {t.data_ptr() for t in expected if isinstance(t, torch.Tensor)}
    )


def flat(value):
    if isinstance(value, (dict, list, tuple)):
        inner = value.values() if isinstance(value, dict) else value
        return [leaf for item in inner for leaf in flat(item)]
    return [value]


@pytest.mark.parametrize(
    ("value", "names"),
    [
        (np.array([None]), "multiarray._reconstruct"),
        (np.datetime64("2024-01-01"), "multiarray.scalar"),
        (np.dtype("f4"), "needs: numpy.dtype"),
        (torch.eye(2).to_sparse(), "sparse, quantized.*_rebuild_sparse_tensor"),
        (torch.empty(2, device="meta"), "sparse, quantized.*_rebuild_meta_tensor"),
        (range(3), "xrange"),
    ],
)
def test_what_is_not_plain_is_refused_by_name(path, value, names):
    torch.save({"x": value}, path)
    message = refused(path)
    assert re.search(names, message)
    assert "trusted=True" in message


@pytest.mark.filterwarnings("ignore:.*quantized tensor")
def test_a_quantized_tensor_beside_weights_does_not_count_as_damage(path, trained):
    quantized = torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.quint8)
    torch.save({"state_dict": trained.state_dict(), "x": quantized}, path)
    message = refused(path)
    assert "QUInt8Storage; save network.state_dict() alone" in message


def test_shapes_are_read_without_values(path, trained):
    torch.save(trained.state_dict(), path)
    found = read_checkpoint(path, lazily=True)
    assert {t.device.type for t in found.values()} == {"meta"}
    assert [t.shape for t in found.values()] == [t.shape for t in trained.state_dict().values()]


def test_what_a_file_takes_is_compared_with_the_limit(path):
    torch.save({"w": torch.zeros(1).expand(2**40)}, path)
    assert "would take 4 TiB of memory" in refused(path)
    torch.save({"w": torch.zeros(2**20)}, path)
    with memory_limit("1MB"):
        assert "--max-memory" in refused(path)


def test_what_other_code_allows_torch_is_not_allowed_here(path):
    torch.save({"x": Crafted(path)}, path)
    with torch.serialization.safe_globals([os.mkdir]):
        assert "mkdir" in refused(path)


@pytest.mark.parametrize(
    ("header", "match"),
    [
        ('{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}, '
         '"b": {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]}}', "invalid offset"),
        ('{"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 12]}}', "invalid shape"),
        ('{"a": {"dtype": "F32", "shape": [99], "data_offsets": [0, 396]}}', "not fully covered"),
        ('{"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 12]}, "a": 1}', "invalid type"),
        ('{"a": {"dtype": "F4", "shape": [3], "data_offsets": [0, 12]}}', "subbytes"),
        ('{"a": {"dtype": "F32", "shape": [0, 4611686018427387904], "data_offsets": [0, 0]}}',
         "not fully covered"),
        ("[" * 100_000, "truncated, corrupted"),
    ],
)  # fmt: skip
def test_headers_of_safetensors_that_lie_are_told(tmp_path, header, match):
    path = tmp_path / "a.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header.encode() + bytes(12))
    assert match in refused(path)


def test_impossible_shapes_and_packed_numbers_of_safetensors_are_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    for fields, match in (
        ('"F32", "shape": [0, 4611686018427387904], "data_offsets": [0, 0]', "impossible shape"),
        ('"F4", "shape": [2], "data_offsets": [0, 1]', "'F4'"),
    ):
        header = f'{{"a": {{"dtype": {fields}}}}}'.encode()
        path.write_bytes(len(header).to_bytes(8, "little") + header + bytes("F4" in fields))
        assert match in refused(path)


@pytest.mark.slow
@pytest.mark.parametrize(
    "content",
    [
        {"a." * 100_000 + "b": torch.ones(2)},
        {"K" * 100_000: {i: {"w": torch.ones(2)} for i in range(20_000)}},
        {**{f"{i:0>199b}": None for i in range(5000)}, "x": {"w": torch.ones(2)}},
    ],
    ids=["one long dotted key", "many places below a long key", "many keys that are alike"],
)
def test_keys_made_to_take_time_end_in_a_short_message(tmp_path, content):
    """Each took minutes or gigabytes before; a key that is refused is quoted in part."""
    torch.save(content, tmp_path / "w.pt")
    for state_key in (None, "ab" * 99):
        with pytest.raises(BankError) as caught:
            load_weights(nn.Conv2d(1, 1, 1), tmp_path / "w.pt", state_key=state_key)
        assert len(str(caught.value)) < 5000


@pytest.mark.slow
def test_a_manifest_may_name_a_part_of_a_zip(trained, tmp_path):
    torch.save(trained[0].state_dict(), tmp_path / "conv.pt")
    with zipfile.ZipFile(tmp_path / "models.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(tmp_path / "conv.pt", "inner/conv.pt")
    arguments = {"in_channels": 1, "out_channels": 4, "kernel_size": 3}
    model = {"name": "a", "factory": "torch.nn:Conv2d", "arguments": arguments}
    manifest = tmp_path / "bank.json"
    manifest.write_text(json.dumps([{**model, "weights": "models.zip/inner/conv.pt"}]))
    assert same(ModelBank.from_manifest(manifest)["a"].load(), trained[0])
    manifest.write_text(json.dumps([{**model, "weights": "models.zip/other.pt"}]))
    with pytest.raises(BankError, match=r"models.zip: its part other.pt cannot be read"):
        ModelBank.from_manifest(manifest)["a"].load()
