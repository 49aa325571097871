"""Features as bytes: an exact way there and back, and nothing but ValueError for the rest."""

import hashlib
import json
import struct
import tracemalloc
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from skte.features import CaseFeatures, LayerSample, pack_case, unpack_case

PREFIX = struct.Struct("<8sIQ")
INFO = {
    "n_windows": 7,
    "seconds": 0.1 + 0.2,
    "window": (16, 16, 1),
    "layers": ["a", {"stride": (1.0, 2.0)}, None, True],
    "odd": float("inf"),
    "text": "Größe \udc80",
}


def make_case(seed=0, n=12, channels=3, dtype="f4", posterior=True, info=INFO):
    rng = np.random.default_rng(seed)
    y = rng.choice([0, 2, 7], n)

    def sample(d):
        X, X_case = rng.normal(size=(n, d)), rng.normal(size=(5, d))
        return LayerSample(X.astype(dtype), y, X_case.astype(dtype))

    layers = {name: sample(channels + i) for i, name in enumerate(("up.2", "up.10", "up.1"))}
    head = LayerSample(np.full((n, 2), 0.5), y, np.empty((0, 2))) if posterior else None
    return CaseFeatures(f"case {seed}", layers, head, info)


def assert_same_array(a, b):
    assert (a.dtype.str, a.shape) == (b.dtype.str, b.shape)
    assert np.ascontiguousarray(a).tobytes() == b.tobytes()
    assert b.flags.writeable
    assert b.flags.aligned
    assert b.base is None


def assert_same_sample(a, b):
    for name in ("X", "y", "X_case"):
        assert_same_array(getattr(a, name), getattr(b, name))


def assert_same(a, b):
    assert a.case_id == b.case_id
    assert a.info == b.info
    assert list(a.layers) == list(b.layers)
    for name in a.layers:
        assert_same_sample(a.layers[name], b.layers[name])
    assert (a.posterior is None) == (b.posterior is None)
    if a.posterior is not None:
        assert_same_sample(a.posterior, b.posterior)


@settings(max_examples=30)
@given(
    seed=st.integers(0, 99),
    n=st.integers(0, 20),
    channels=st.integers(0, 5),
    dtype=st.sampled_from(["f2", "f4", "f8", ">f8"]),
    posterior=st.booleans(),
)
def test_round_trip_is_exact_and_bytes_are_the_same(**kwargs):
    case = make_case(**kwargs)
    data = pack_case(case)
    again = unpack_case(data)
    assert_same(case, again)
    assert pack_case(again) == data == pack_case(make_case(**kwargs))


def test_memory_order_and_order_of_info_change_no_byte():
    case = make_case()
    turned = {
        name: LayerSample(np.asfortranarray(s.X), np.repeat(s.y, 2)[::2], s.X_case)
        for name, s in case.layers.items()
    }
    info = dict(reversed(case.info.items()))
    assert pack_case(CaseFeatures(case.case_id, turned, case.posterior, info)) == pack_case(case)


def test_order_of_layers_is_kept():
    case = make_case()
    other = CaseFeatures(case.case_id, dict(reversed(case.layers.items())), None, {})
    assert list(unpack_case(pack_case(other)).layers) == ["up.1", "up.10", "up.2"]


def test_numbers_of_numpy_in_info_become_those_of_python():
    case = make_case(info={"n": np.int64(3), "x": np.float32(0.5)})
    assert unpack_case(pack_case(case)).info == {"n": 3, "x": 0.5}


@pytest.mark.parametrize("info", [{"bad": np.ones(2)}, {"bad": {1: 2}}, {"bad": [object()]}])
def test_info_that_cannot_be_stored_is_named(info):
    with pytest.raises(ValueError, match=r"info\['bad'\]"):
        pack_case(make_case(info=info))


def test_info_nested_without_end():
    loop = []
    loop.append(loop)
    with pytest.raises(ValueError, match="nested too deeply"):
        pack_case(make_case(info={"loop": loop}))
    with pytest.raises(ValueError, match="too many to store"):
        pack_case(make_case(info={"text": "a" * 2**20}))


@pytest.mark.parametrize("y", [np.array(["a", "b"]), np.array([0, None])])
def test_arrays_that_cannot_be_stored_are_named(y):
    case = CaseFeatures("a", {"up": LayerSample(np.ones((2, 1)), y, np.ones((0, 1)))})
    with pytest.raises(ValueError, match="y of case 'a', up cannot be stored"):
        pack_case(case)


PACKED = pack_case(make_case())


@settings(max_examples=200)
@given(st.integers(0, len(PACKED) - 1), st.integers(1, 255))
def test_any_changed_byte_is_noticed(position, change):
    data = bytearray(PACKED)
    data[position] ^= change
    with pytest.raises(ValueError, match="Stored features cannot be read"):
        unpack_case(bytes(data))


@settings(max_examples=100)
@given(st.integers(0, len(PACKED) - 1), st.binary(max_size=8))
def test_any_truncation_is_noticed(length, tail):
    assume(PACKED[:length] + tail != PACKED)
    with pytest.raises(ValueError, match="Stored features cannot be read"):
        unpack_case(PACKED[:length] + tail)


def test_bytes_too_many_are_noticed():
    with pytest.raises(ValueError, match="checksum"):
        unpack_case(PACKED + b"\0")


def test_another_version_is_named():
    data = PREFIX.pack(b"SKTEFEAT", 1, 2) + b"{}" + bytes(32)
    with pytest.raises(ValueError, match="format version 1, this skte reads 2"):
        unpack_case(data)


def sealed(header, body=b"", length=None):
    """Bytes whose checksum holds, whatever the header says."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    content = PREFIX.pack(b"SKTEFEAT", 2, len(text) if length is None else length) + text + body
    return content + hashlib.sha256(content).digest()


def header_of(data):
    _, _, length = PREFIX.unpack_from(data)
    return json.loads(data[PREFIX.size : PREFIX.size + length]), data[PREFIX.size + length : -32]


ARRAY = ["<f8", [1, 1]]
SAMPLE = [ARRAY, ["<i8", [1]], ARRAY]


def hostile(**changes):
    header = {
        "arrays": SAMPLE,
        "case_id": "a",
        "no_posterior": "",
        "info": {"dict": {}},
        "layers": ["up"],
        "posterior": False,
    }
    return {**header, **changes}


def test_the_hostile_headers_start_from_one_that_is_read():
    assert unpack_case(sealed(hostile(), bytes(24))).case_id == "a"


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"[]",
        b"\xff\xfe{",
        b"[" * 100_000,
        b"9" * 5000,
        hostile(arrays=[["<f8", [2**39, 2**39]], *SAMPLE[1:]]),
        hostile(arrays=[["<f8", [2**62, 0]], *SAMPLE[1:]]),
        hostile(arrays=[["<f8", [-1, -1]], *SAMPLE[1:]]),
        hostile(arrays=[["<f8", [1.0, 1]], *SAMPLE[1:]]),
        hostile(arrays=[["<f8", [True, 1]], *SAMPLE[1:]]),
        hostile(arrays=[["<f8", [1] * 100]]),
        hostile(arrays=[["|O", [1, 1]], *SAMPLE[1:]]),
        hostile(arrays=[["<c16", [1, 1]], *SAMPLE[1:]]),
        hostile(arrays=[["f8,(1000000000,)f8", [1, 1]], *SAMPLE[1:]]),
        hostile(arrays=[[["<f8"], [1, 1]], *SAMPLE[1:]]),
        hostile(arrays=[7]),
        hostile(arrays=[["<f8"]]),
        hostile(arrays={}),
        hostile(arrays=[["<f8", [1]], ["<f8", [1]], ["<f8", [1]]]),
        hostile(arrays=[["<f8", []], ["<f8", []], ["<f8", []]]),
        hostile(arrays=[["<f8", [2, 1]], ["<i8", [1]], ["<f8", [0, 1]]]),
        hostile(layers=[]),
        hostile(layers=[["up"]]),
        hostile(layers=[3]),
        hostile(layers=["up", "up"]),
        hostile(layers=["up", "up"], arrays=SAMPLE * 2),
        hostile(layers="up"),
        hostile(posterior=[]),
        hostile(posterior=None),
        hostile(posterior=True),
        hostile(case_id=None),
        hostile(info=[]),
        hostile(info={"set": []}),
        hostile(info={"dict": []}),
        hostile(info={"dict": {"a": {"tuple": 3}}}),
    ],
    ids=lambda header: str(header)[:60],
)
def test_a_hostile_header_is_an_error_in_little_memory(header):
    data = sealed(header, bytes(24))
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="Stored features cannot be read"):
            unpack_case(data)
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("length", [2**63, 2**20 + 1, 10_000])
def test_a_header_longer_than_the_data(length):
    with pytest.raises(ValueError, match="too long"):
        unpack_case(sealed(hostile(), bytes(24), length=length))


def test_arrays_that_belong_nowhere():
    with pytest.raises(ValueError, match="belong to no layer"):
        unpack_case(sealed(hostile(arrays=[*SAMPLE, ARRAY]), bytes(32)))
    with pytest.raises(ValueError, match="bytes that belong to no array"):
        unpack_case(sealed(hostile(), bytes(25)))


def test_values_that_are_no_features():
    header, body = header_of(PACKED)
    with pytest.raises(ValueError, match="NaN or Inf"):
        unpack_case(sealed(header, b"\xff" * len(body)))


@settings(max_examples=200)
@given(st.data())
@pytest.mark.slow
@pytest.mark.no_cover
def test_a_header_with_odd_values_gives_features_or_a_value_error(data):
    header, body = header_of(PACKED)
    odd = st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=3), st.just([])
    )

    def spoil(value):
        if isinstance(value, (dict, list)) and value and data.draw(st.integers(0, 4)):
            keys = list(value) if isinstance(value, dict) else range(len(value))
            key = data.draw(st.sampled_from(list(keys)))
            value[key] = spoil(value[key])
            return value
        return data.draw(odd)

    with suppress(ValueError):  # and no other error
        unpack_case(sealed(spoil(header), body))
