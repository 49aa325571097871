"""Files of weights built to do harm: pickle programs put together instruction by instruction.

Each attack gives the bytes of a file and its ending. Most start from a program that is nearly
sound, so that they reach what the first check would stop.
"""

import io
import json
import pickle
import struct
import warnings
import zipfile
from collections import Counter, OrderedDict
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from torch._weights_only_unpickler import _get_allowed_globals

from skte.bank._checkpoint import LeftOut
from skte.bank._weights import read_checkpoint
from skte.exceptions import BankError
from tests.reliability.mutate import bytes_mutated, pick
from tests.reliability.outcome import require

__all__ = ["ATTACKS"]

PLAIN = (bool, int, float, complex, str, bytes, bytearray, type(None), LeftOut)
MOST_MEMORY = 500 * 2**20

# All that torch's own reader allows, whatever skte made of it, and what lies near.
GLOBALS = [
    *sorted(_get_allowed_globals()),
    *("numpy.dtype", "numpy.ndarray", "numpy.float64", "numpy.void", "numpy.object_"),
    *(f"numpy.{c}.multiarray.{n}" for c in ("core", "_core") for n in ("scalar", "_reconstruct")),
    *("numpy.core.numeric._frombuffer", "numpy._core.numeric._frombuffer"),
    *(f"numpy.dtypes.{n}DType" for n in ("Float64", "Object", "Void", "Str", "Int8")),
    *(f"builtins.{n}" for n in ("bytes", "frozenset", "list", "dict", "tuple", "int", "str",
                                "float", "range", "slice", "object", "type", "getattr", "eval")),
    *(f"__builtin__.{n}" for n in ("set", "bytearray", "complex", "bytes", "xrange", "unicode")),
    *("collections.defaultdict", "collections.deque", "collections.ChainMap"),
    *("argparse.Namespace", "types.SimpleNamespace", "pathlib.PosixPath", "pathlib.PurePosixPath"),
    *("datetime.datetime", "datetime.date", "datetime.timedelta", "datetime.timezone"),
    *("copyreg._reconstructor", "copy_reg.__newobj__", "functools.partial", "operator.attrgetter"),
    *("os.system", "posix.system", "subprocess.Popen", "builtins.exec", "builtins.__import__"),
    *("torch.storage._load_from_bytes", "torch.jit._pickle.build_intlist", "torch.load"),
    *("torch.nn.modules.linear.Linear", "torch._utils._rebuild_xla_tensor", "torch.hub.load"),
    *("torch._tensor._rebuild_from_type", "monai.data.meta_tensor.MetaTensor"),
    "pytorch_lightning.utilities.parsing.AttributeDict",
]  # fmt: skip
HUGE = [2**15, 2**31 - 1, 2**31, 3_000_000_000, 2**47, 2**62, 2**63 - 1, 2**63, 2**200]
NUMBERS = [0, 1, 2, 3, 7, -1, -5, -(2**63), *HUGE, 0.5, float("nan"), float("inf"), True, None]
TEXTS = [
    *("", "cpu", "cuda:99", "meta", "xla", "storage", "module", "0", "1", "../0", "latin1"),
    *("rot13", "zlib_codec", "unicode_escape", "idna", "f8", "<f8", "O8", "O", "V8", "V3000000000"),
    *("U2000000000", "S9", "U1", "M8[ns]", "i4,O8", "c16", "f16", "b1", "torch.strided", "mkdir x"),
    *("__class__", "__dict__", "_metadata", "items", "\ud800", "x" * 70_000, "\U0001f600" * 20),
]
BYTES = [b"", b"\0", b"A" * 8, b"\xff" * 8, b"\x00\x01" * 8, bytes(64), b"\x7f" * 1000]
SHAPES = [(), (0,), (2, 3), (-1,), (2**31, 2**31, 2**31), (0, 2**62), (2**62, 2**62), (1,) * 80,
          (3_000_000_000,), (1.5,), ("a",), (16,), (17,), ([2],), (True,)]  # fmt: skip


class Raw(bytes):
    """Instructions that leave one value on the stack."""


def emit(value):
    """Instructions that build a value."""
    if isinstance(value, Raw):
        return bytes(value)
    if value is None or isinstance(value, bool):
        return {None: b"N", True: b"\x88", False: b"\x89"}[value]
    if isinstance(value, int):
        if -(2**31) <= value < 2**31:
            return b"J" + struct.pack("<i", value)
        data = pickle.encode_long(value)
        return b"\x8a" + bytes([len(data)]) + data
    if isinstance(value, float):
        return b"G" + struct.pack(">d", value)
    if isinstance(value, str):
        data = value.encode("utf-8", "surrogatepass")
        return b"X" + struct.pack("<I", len(data)) + data
    if isinstance(value, bytes):  # as protocol 2 has it
        return bytes(called("_codecs.encode", value.decode("latin-1"), "latin1"))
    if isinstance(value, tuple):
        return b"(" + b"".join(map(emit, value)) + b"t"
    if isinstance(value, list):
        return b"](" + b"".join(map(emit, value)) + b"e"
    if isinstance(value, set):
        return b"\x8f(" + b"".join(map(emit, value)) + b"\x90"
    return b"}(" + b"".join(emit(k) + emit(v) for k, v in value.items()) + b"u"


def named(name):
    module, _, attribute = name.rpartition(".")
    return Raw(f"c{module}\n{attribute}\n".encode())


def called(name, *arguments):
    return Raw(named(name) + emit(arguments) + b"R")


def storage(kind="torch.FloatStorage", key="0", device="cpu", n=16):
    return Raw(emit(("storage", named(kind), key, device, n)) + b"Q")


def tensor(source=None, offset=0, size=(2, 3), stride=(3, 1)):
    source = storage() if source is None else source
    return called("torch._utils._rebuild_tensor_v2", source, offset, size, stride, False,
                  called("collections.OrderedDict"))  # fmt: skip


def dtype(code="f8", state=(3, "<", None, None, None, -1, -1, 0)):
    return Raw(called("numpy.dtype", code, False, True) + emit(state) + b"b")


def hostile(rng, depth=2):
    """A value that code may not expect."""
    kind = rng.integers(12 if depth else 5)
    if kind < 2:
        return pick(rng, NUMBERS)
    if kind == 2:
        return pick(rng, TEXTS)
    if kind == 3:
        return pick(rng, BYTES)
    if kind == 4:
        return pick(rng, SHAPES)
    if kind == 5:
        return named(any_name(rng))
    if kind == 6:
        return pick(rng, [storage, tensor, dtype])()
    if kind == 7:
        return called(any_name(rng), *hostile_arguments(rng, depth - 1))
    inner = [hostile(rng, depth - 1) for _ in range(rng.integers(4))]
    if kind == 8:
        return {pick(rng, TEXTS): value for value in inner}
    return tuple(inner) if kind < 11 else inner


def hostile_arguments(rng, depth=1):
    return [hostile(rng, depth) for _ in range(rng.integers(5))]


# Calls as training code leaves them, to be spoiled in one or two places.
def sound_calls():
    ordered = called("collections.OrderedDict")
    return [
        ("torch._utils._rebuild_tensor", [storage(), 0, (2, 3), (3, 1)]),
        ("torch._utils._rebuild_tensor_v2", [storage(), 0, (2, 3), (3, 1), False, ordered]),
        ("torch._utils._rebuild_tensor_v2", [storage(), 0, (2, 3), (3, 1), True, ordered, {}]),
        ("torch._utils._rebuild_tensor_v3", [storage("torch.storage.UntypedStorage", n=64), 0,
                                             (2, 3), (3, 1), False, ordered,
                                             named("torch.uint16")]),
        ("torch._utils._rebuild_parameter", [tensor(), True, ordered]),
        ("torch._utils._rebuild_parameter_with_state", [tensor(), True, ordered, {"a": 1}]),
        ("torch._utils._rebuild_qtensor", [storage("torch.QInt8Storage", n=64), 0, (2, 3), (3, 1),
                                           (named("torch.per_tensor_affine"), 0.1, 0), False,
                                           ordered]),
        ("torch._utils._rebuild_sparse_tensor", [called("torch.serialization._get_layout",
                                                        "torch.sparse_coo"),
                                                 (tensor(), tensor(), (5, 5))]),
        ("torch._utils._rebuild_meta_tensor_no_storage", [named("torch.float32"), (2,), (1,),
                                                          False]),
        ("torch._utils._rebuild_nested_tensor", [tensor(), tensor(), tensor(), tensor()]),
        ("torch._utils._rebuild_wrapper_subclass", [named("torch.Tensor"), named("torch.float32"),
                                                    (2,), (1,), 0, None, "cpu", False]),
        ("torch._utils._rebuild_device_tensor_from_numpy", [tensor(), named("torch.float32"),
                                                            "cpu", False]),
        ("torch._utils._rebuild_device_tensor_from_cpu_tensor", [tensor(), named("torch.float32"),
                                                                 "cpu", False]),
        ("torch._tensor._rebuild_from_type_v2", [named("torch._utils._rebuild_tensor_v2"),
                                                 named("torch.Tensor"),
                                                 (storage(), 0, (2,), (1,), False, ordered), {}]),
        ("torch.nn.parameter.Parameter", [tensor(), True]),
        ("torch.Tensor", [tensor()]),
        ("torch.FloatTensor", [3]),
        ("torch.Size", [(2, 3)]),
        ("torch.device", ["cuda", 0]),
        ("builtins.bytearray", ["abc", "latin-1"]),
        ("builtins.bytearray", [3]),
        ("builtins.set", [[1, 2]]),
        ("builtins.complex", [1.0, 2.0]),
        ("_codecs.encode", ["abc", "latin1"]),
        ("collections.OrderedDict", [[["a", 1], ["b", 2]]]),
        ("collections.Counter", [{"a": 1}]),
        ("collections.defaultdict", [named("builtins.list")]),
        ("pathlib.PosixPath", ["/", "a", "b"]),
        ("datetime.datetime", [b"\x07\xe8\x05\x11\x03\x04\x05\x00\x00\x06"]),
        ("datetime.date", [b"\x07\xe8\x05\x11"]),
    ]  # fmt: skip


SOUND = sound_calls()
NUMPY_CALLS = [
    ("numpy.core.multiarray.scalar", [dtype(), b"A" * 8]),
    ("numpy._core.multiarray.scalar", [dtype("i4"), b"abcd"]),
    ("numpy.core.multiarray.scalar", [dtype("U2"), b"a\0\0\0b\0\0\0"]),
    ("numpy.core.multiarray.scalar", [dtype("f16"), b"\x11" * 16]),
    ("numpy.dtype", ["f8", False, True]),
    ("numpy._core.multiarray._reconstruct", [named("numpy.ndarray"), (0,), b"b"]),
    ("numpy._core.numeric._frombuffer", [b"A" * 8, dtype(), (1,), "C"]),
]
DTYPE_STATES = [
    (3, "<", None, None, None, -1, -1, 0),
    (
        3,
        "<",
        None,
        ("a",),
        {"a": (dtype("O8", (3, "|", None, None, None, -1, -1, 63)), 0)},
        8,
        1,
        0,
    ),
    (3, "|", None, None, None, -1, -1, 63),
    (3, "<", (dtype(), (2**31, 2**31)), None, None, 2**40, 1, 0),
    (3, "<", None, ("a",), {"a": (dtype(), -8)}, 8, 1, 16),
    (4, ">", None, None, None, 2**31 - 1, 2**31 - 1, -1, {}),
    (3, "<", None, None, None, 3_000_000_000, 1, 0),
    {"metadata": 1},
]


READ = sorted({name for name, _ in [*SOUND, *NUMPY_CALLS]})


def any_name(rng):
    """Half of them of what is read, so that the other arguments matter as well."""
    return pick(rng, READ if rng.random() < 0.5 else GLOBALS)


def spoiled(rng, arguments):
    """Change one or two arguments, or parts of them; leave one out or add one."""
    changed = list(arguments)
    for _ in range(rng.integers(1, 3)):
        at = int(rng.integers(len(changed))) if changed else 0
        kind = rng.integers(8)
        if kind == 0 and changed:
            del changed[at]
        elif kind == 1:
            changed.insert(at, hostile(rng))
        elif changed and isinstance(changed[at], tuple) and changed[at] and kind < 6:
            parts = list(changed[at])
            parts[int(rng.integers(len(parts)))] = pick(rng, NUMBERS)
            changed[at] = tuple(parts)
        elif changed and isinstance(changed[at], Raw) and kind < 6:
            changed[at] = odd_storage(rng) if rng.random() < 0.5 else hostile(rng)
        elif changed and type(changed[at]) is int:
            changed[at] = pick(rng, HUGE)
        elif changed:
            changed[at] = hostile(rng)
    return changed


def odd_storage(rng):
    kinds = [name for name in GLOBALS if "Storage" in name]
    return storage(pick(rng, kinds), pick(rng, ["0", "1", "9", "../x", ""]),
                   pick(rng, ["cpu", "cuda:0", "meta", "hpu"]),
                   pick(rng, [16, 8, 64, 1, 0, -1, 17, *HUGE]))  # fmt: skip


# Programs.


def reduced(rng):
    if rng.random() < 0.5:
        name, arguments = pick(rng, SOUND)
        return called(name, *spoiled(rng, arguments))
    return called(any_name(rng), *hostile_arguments(rng))


def made_anew(rng):
    name, arguments = pick(rng, SOUND) if rng.random() < 0.5 else (any_name(rng), [])
    arguments = spoiled(rng, arguments) if arguments else hostile_arguments(rng)
    return Raw(named(name) + emit(tuple(arguments)) + b"\x81")


def made_with_keywords(rng):
    keywords = {pick(rng, TEXTS): hostile(rng) for _ in range(rng.integers(3))}
    arguments = tuple(hostile_arguments(rng))
    return Raw(named(pick(rng, GLOBALS)) + emit(arguments) + emit(keywords) + b"\x92")


def made_the_old_way(rng):
    arguments = b"".join(map(emit, hostile_arguments(rng)))
    name = pick(rng, GLOBALS)
    if rng.random() < 0.5:
        return Raw(b"(" + named(name) + arguments + b"o")
    return Raw(b"(" + arguments + b"i" + named(name)[1:])


def any_target(rng):
    """Something whose state or items a file may try to set."""
    choice = rng.integers(8)
    if choice == 0:
        return emit(hostile(rng))
    if choice == 1:
        return named(any_name(rng))
    if choice == 2:
        return called(any_name(rng), *hostile_arguments(rng))
    if choice == 3:
        return called(any_name(rng))
    if choice == 4:
        return pick(rng, [b"}", b"]", b"\x8f", b")", b"N"])
    name, arguments = pick(rng, [*SOUND, *NUMPY_CALLS])
    return called(name, *arguments)


def built(rng):
    """A state for something, of the kind that belongs to it or not."""
    array = called("numpy.core.multiarray._reconstruct", named("numpy.ndarray"), (0,), b"b")
    state = pick(rng, DTYPE_STATES)
    state = tuple(spoiled(rng, state)) if isinstance(state, tuple) and rng.random() < 0.5 else state
    kind = called("numpy.dtype", pick(rng, ["f8", "i2", "U3", "b1"]), False, True)
    fitting = [
        (called("argparse.Namespace"), {pick(rng, TEXTS): hostile(rng)}),
        (called("collections.OrderedDict"), {pick(rng, TEXTS): hostile(rng)}),
        (array, tuple(spoiled(rng, (1, (1,), dtype(), False, b"A" * 8)))),
        (kind, state),
    ]
    if rng.random() < 0.4:
        target, state = pick(rng, fitting)
        again = b"" if rng.random() < 0.8 else emit(state) + b"b"
        return Raw(bytes(target) + emit(state) + b"b" + again)
    states = [
        hostile(rng),
        {pick(rng, TEXTS): hostile(rng)},
        (hostile(rng), {pick(rng, TEXTS): hostile(rng)}),
        (storage(), 0, (2**31, 2), (1, 1)),
        (tensor(), True, called("collections.OrderedDict")),
        pick(rng, DTYPE_STATES),
    ]
    return Raw(any_target(rng) + emit(pick(rng, states)) + b"b" * int(rng.integers(1, 3)))


def filled(rng):
    items = b"".join(emit(hostile(rng)) for _ in range(rng.integers(7)))
    return Raw(pick(rng, [
        any_target(rng) + b"(" + items + pick(rng, [b"u", b"e", b"\x90"]),
        any_target(rng) + emit(hostile(rng)) + emit(hostile(rng)) + b"s",
        any_target(rng) + emit(hostile(rng)) + b"a",
    ]))  # fmt: skip


def from_registers(rng):
    """Extension codes, buffers, persistent names, the memo and the bare stack."""
    place = struct.pack("<I", pick(rng, [0, 1, 255, 2**31 - 1, 2**32 - 1]))
    return Raw(pick(rng, [
        b"\x82" + bytes([pick(rng, [0, 1, 255])]),
        b"\x83" + place[:2],
        b"\x84" + place,
        b"\x97", b"N\x98", b"Pname\n", b"Pstorage\n",
        b"Nr" + place, b"]r" + place + b"j" + place + b"a",
        b"j" + place, b"Np99999999999\n", b"g99999999999\n", b"Np-1\n",
        b"N2", b"N0", b"0", b"1", b"(1N", b"(((N", b"t", b"\x85", b"\x86", b"e", b"u", b"s", b"R",
        b"\x81", b"b", b"Q", b"\x93", b"." * 3, b"](h\x00e", b"\x95" + struct.pack("<Q", 2**62),
        b"]q\x00h\x00a", b"}q\x00X\x01\0\0\0ah\x00s", b"(q\x00N", b"]q\x00(h\x00t",
        emit("os") + emit("system") + b"\x93" + emit(("mkdir skte-ran",)) + b"R",
        emit(hostile(rng)) + emit(hostile(rng)) + b"\x93",
        emit(hostile(rng)) + emit(("mkdir skte-ran",)) + b"R",
    ]))  # fmt: skip


def referred(rng):
    """Persistent ids, which torch uses for storages."""
    parts = ["storage", named("torch.FloatStorage"), "0", "cpu", 16]
    identity = tuple(spoiled(rng, parts)) if rng.random() < 0.7 else hostile(rng)
    source = Raw(emit(identity) + b"Q")
    if rng.random() < 0.2:
        source = Raw(emit((*parts, (pick(rng, ["1", 3]), pick(rng, NUMBERS), 2))) + b"Q")
    if rng.random() < 0.2:  # one storage of two kinds
        return Raw(emit([tensor(storage()), tensor(odd_storage(rng))]))
    return pick(rng, [source, tensor(source), tensor(odd_storage(rng))])


def viewed(rng):
    """Tensors that reach beyond their storage, or unfold it to terabytes."""
    source = pick(rng, [storage(), storage("torch.BoolStorage", n=64), odd_storage(rng)])
    edges = [0, 1, 2, 3, 4, 15, 16, 17, -1, *HUGE]
    n_axes = int(rng.integers(5))
    sizes, strides = pick(rng, [(edges, edges), ([1, 2, 3], [0, 1, 2, 3]), (HUGE[:5], [0])])
    size = tuple(pick(rng, sizes) for _ in range(n_axes))
    stride = tuple(pick(rng, strides) for _ in range(n_axes if rng.random() < 0.9 else 2))
    found = tensor(source, pick(rng, [0, 0, 0, *edges]), size, stride)
    if rng.random() < 0.3:
        found = called("torch._utils._rebuild_parameter", found, pick(rng, [True, False, 2]), {})
    return Raw(emit([found] * int(rng.integers(1, 4))))


def from_numpy(rng):
    kind = Raw(called("numpy.dtype", *pick(rng, [
        ("f8", False, True), (pick(rng, TEXTS), False, True), ("f8", 0, 1), hostile_arguments(rng),
    ])) + emit(pick(rng, DTYPE_STATES)) + b"b")  # fmt: skip
    name, arguments = pick(rng, NUMPY_CALLS)
    if "scalar" in name and rng.random() < 0.7:
        return called(name, kind, pick(rng, BYTES))
    if "_reconstruct" in name or rng.random() < 0.3:
        state = (1, (1,), kind, False, b"A" * 8)
        state = tuple(spoiled(rng, state)) if rng.random() < 0.7 else state
        array = called("numpy.core.multiarray._reconstruct", named("numpy.ndarray"), (0,), b"b")
        return Raw(array + emit(state) + b"b")
    return called(name, *spoiled(rng, arguments))


def endless(rng):
    """Small programs that take long, or build what takes long to look at."""
    n = int(rng.integers(1000, 60_000))
    twice = b"".join(b"\x86r%sj%sj%s" % ((struct.pack("<I", i),) * 3) for i in range(60))
    text = b"X" + struct.pack("<I", 10_000) + b"a" * 10_000 + b"q\x01"
    big = b"".join(emit(k * (2**61 - 1)) + b"N" for k in range(1, n // 4))
    mod = 2**61 - 1
    pairs = b"".join(emit(called("builtins.complex", float(-1000003 * k % mod), float(k))) + b"N"
                     for k in range(1, 1 + n // 60))  # fmt: skip
    tuples = b"".join(emit((k, mod - k)) + b"N" for k in range(n // 10))
    again = [
        (b"c_codecs\nencode\nq\x00" + text + b"h\x01" + emit("latin1") + b"\x86q\x02",
         b"h\x00h\x02R"),
        (b"c__builtin__\nset\nq\x00](" + b"N" * n + b"e\x85q\x02", b"h\x00h\x02R"),
        (b"ccollections\nCounter\nq\x00}(" + emit(1) + b"Nu\x85q\x02", b"h\x00h\x02R"),
        (bytes(named("builtins.bytearray")) + b"q\x00" + emit((b"a" * 60_000,)) + b"q\x02",
         b"h\x00h\x02R"),
        (bytes(tensor()) + b"q\x00", b"h\x00"),
        (bytes(named("argparse.Namespace")) + b"q\x00)q\x01}(" + emit("a") + b"Nuq\x02",
         b"h\x00h\x01Rh\x02b"),
    ]  # fmt: skip
    before, step = pick(rng, again)
    return Raw(pick(rng, [
        b"]" * n + b"a" * (n - 1),
        b"N" + b"\x85" * n,
        b"}" + b"N" + b"\x85" * n + b"Ns",
        b"\x8f(" + b"N" + b"\x85" * n + b"\x90",
        b"]q\x00h\x00a",
        b"NN" + twice,
        b"}NN" + twice + b"Ns",
        b"NN" + twice + b"q\x00" + emit(tensor(size=Raw(b"h\x00"))),
        b"}(" + big + b"u",
        b"}(" + pairs + b"u",
        b"}(" + tuples + b"u",
        b"](" + pick(rng, [b"\x8f", b"}", b"]", b")", b"(", b"N"]) * n + b"e",
        b"(" + before + step * n + b"t",
    ]))  # fmt: skip


def lying(rng):
    """Lengths that are not there, and plain noise."""
    length = pick(rng, [0, 1, 255, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63])
    four, eight = struct.pack("<I", length % 2**32), struct.pack("<Q", length)
    program = bytes(emit([hostile(rng), tensor(), hostile(rng)]))
    return Raw(pick(rng, [
        *(code + four + b"abc" for code in (b"X", b"B", b"T", b"\x8b")),
        *(code + eight + b"abc" for code in (b"\x8d", b"\x8e", b"\x96")),
        b"\x8a\xff" + b"\xff" * 255, b"\x8b" + struct.pack("<I", 60_000) + b"\x7f" * 60_000,
        b"I" + b"9" * 60_000 + b"\n", b"L" + b"9" * 5000 + b"L\n", b"Fnan\n", b"S'a'\n",
        b"V\\ud800\n", b"c" + b"a" * 60_000 + b"\n\n", b"cos\n", b"c\xff\xff\nx\n",
        bytes_mutated(rng, program), bytes_mutated(rng, program), bytes_mutated(rng, program),
        rng.integers(0, 256, 60, dtype=np.uint8).tobytes(),
    ]))  # fmt: skip


# Files around programs.

SIXTEEN = struct.pack("<q", 16)
VALUES = np.random.default_rng(0).integers(0, 256, 64, dtype=np.uint8).tobytes()


def zipped(program, extra=(), compression=zipfile.ZIP_STORED):
    file = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(file, "w", compression) as archive:
        warnings.simplefilter("ignore")  # of names that occur twice
        archive.writestr("archive/data.pkl", program)
        archive.writestr("archive/byteorder", b"little")
        archive.writestr("archive/data/0", VALUES)
        archive.writestr("archive/data/1", VALUES)
        for name, data in extra:
            archive.writestr(name, data)
        archive.writestr("archive/version", b"3\n")
    return file.getvalue()


def legacy(program, keys=("0",), values=SIXTEEN + VALUES, system=None):
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {}} | (system or {})
    start = [0x1950A86A20F9469CFC6C, 1001, system]
    return b"".join(
        [*(b"\x80\x02" + emit(part) + b"." for part in start), program,
         b"\x80\x02" + emit(list(keys)) + b".", values]
    )  # fmt: skip


def in_a_file(build):
    """An attack by a program, in either format, alone or within a state dict."""

    def attack(rng):
        body = bytes(build(rng))
        if rng.random() < 0.3:
            body = b"}(" + emit("weight") + emit(tensor()) + emit("x") + body + b"u"
        program = b"\x80" + bytes([pick(rng, [2, 2, 2, 4, 5])]) + body + b"."
        return (zipped if rng.random() < 0.7 else legacy)(program), ".pt"

    return attack


def odd_archive(rng):
    program = b"\x80\x02" + emit({"w": tensor(odd_storage(rng) if rng.random() < 0.5 else None)})
    program += b"."
    kind = rng.integers(7)
    if kind == 0:
        return zipped(
            program + bytes(pick(rng, [0, 2**22])), compression=zipfile.ZIP_DEFLATED
        ), ".pt"
    if kind == 1:
        names = ["archive/data/0", "archive/data.pkl", "other/data.pkl", "archive/byteorder",
                 "archive/code/x.py", "/data.pkl", "a" * 5000, "archive/data/\u00e9"]  # fmt: skip
        data = pick(rng, [b"big", program, bytes(2**16)])
        return zipped(program, [(pick(rng, names), data)]), ".pt"
    if kind == 2:  # sizes and places in the directory
        data = bytearray(zipped(program))
        at = data.index(b"PK\1\2")
        for _ in range(int(rng.integers(1, 5))):
            field = at + pick(rng, [8, 10, 16, 20, 24, 28, 30, 32, 38, 42, 43, 45])
            struct.pack_into("<H", data, field, pick(rng, [0, 1, 8, 46, 99, 0x7FFF, 0xFFFF]))
            at = data.index(b"PK\1\2", at + 4) if rng.random() < 0.5 else at
        return bytes(data), ".pt"
    if kind == 3:
        many = [(f"archive/data/{i}", b"") for i in range(2, int(rng.integers(3, 3000)))]
        return zipped(program, many), ".pt"
    return bytes_mutated(rng, zipped(program)), ".pt"


def odd_legacy(rng):
    program = b"\x80\x02" + emit({"w": tensor(odd_storage(rng) if rng.random() < 0.5 else None)})
    program += b"."
    keys = pick(rng, [("0",), (), ("0", "0"), ("1",), ("0", "1"), (0,), (None,), ("0", ["0"])])
    if rng.random() < 0.5:
        keys = ("0",)
    n = pick(rng, [16, 16, 16, 16, 0, -1, 17, *HUGE[:-2]])
    system = pick(rng, [*[{}] * 8, {"little_endian": []}])
    values = struct.pack("<q", n) + VALUES * int(rng.integers(1, 4) % 3)
    data = legacy(program, keys, values, system)
    return (bytes_mutated(rng, data) if rng.random() < 0.5 else data), ".pth"


def odd_safetensors(rng):
    kinds = ["F32", "F64", "BOOL", "I8", "U64", "BF16", "F8_E4M3", "F4", "C64", "O", "", None, 7]
    offsets = [0, 8, 16, 32, 48, 64, -8, 2**31, 2**63, 2**64, 1.5, None, "0", True]
    header = {}
    for i in range(int(rng.integers(1, 5))):
        start = 16 * i if rng.random() < 0.9 else pick(rng, offsets)
        stop = 16 * (i + 1) if rng.random() < 0.9 else pick(rng, offsets)
        shape = [4] if rng.random() < 0.8 else list(pick(rng, SHAPES))
        header[f"w{i}"] = {"dtype": pick(rng, kinds) if rng.random() < 0.2 else "F32",
                           "shape": shape, "data_offsets": [start, stop]}  # fmt: skip
    text = json.dumps(header)
    kind = rng.integers(8)
    if kind == 0:
        text = text[:-1] + ", " + text[1:]  # every name twice
    elif kind == 1:
        text = pick(rng, ["[" * 100_000, '{"a":' * 50_000, "[]", "null", "", "{}", '{"w": []}',
                          '{"__metadata__": 1}', "9" * 10_000, text + " " * 10_000])  # fmt: skip
    data = text.encode(errors="surrogatepass")
    length = len(data) if kind != 2 else pick(rng, [0, 1, 2**31, 10**8, 2**62, 2**64 - 1])
    n_bytes = 16 * len(header) if rng.random() < 0.7 else int(rng.integers(65))
    data = struct.pack("<Q", length) + data + VALUES[:n_bytes]
    return (bytes_mutated(rng, data) if kind == 3 else data), ".safetensors"


def odd_arrays(rng):
    """Files of numpy and of torch.export: refused by their ending, or not a checkpoint."""
    evil = pickle.dumps({"x": _Evil()}, protocol=2)
    file = io.BytesIO()
    with suppress(ValueError):
        np.save(file, np.array([_Evil()], dtype=object), allow_pickle=True)
    header = f"{{'descr': '{pick(rng, ['|O', '<f8', '|V3000000000'])}', 'fortran_order': False, "
    header += f"'shape': {pick(rng, SHAPES)}}}\n"
    lying = b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header.encode() + b"A" * 64
    single = pick(rng, [file.getvalue(), lying])
    kinds = {".npy": single, ".npz": zipped(evil, [("x.npy", single)]),
             ".pt2": zipped(evil, [("archive/exported_program.json", evil)])}  # fmt: skip
    ending = pick(rng, list(kinds))
    return kinds[ending], pick(rng, [ending, ending, ".pt", ".pth", ".safetensors"])


class _Evil:
    def __reduce__(self):
        import os

        return os.mkdir, ("skte-ran",)


_BUILDERS = {
    "REDUCE": reduced,
    "NEWOBJ": made_anew,
    "NEWOBJ_EX": made_with_keywords,
    "OBJ and INST": made_the_old_way,
    "BUILD": built,
    "SETITEM(S), APPEND(S), ADDITEMS": filled,
    "EXT, buffers, memo and bare stack": from_registers,
    "persistent ids": referred,
    "views beyond or larger than their storage": viewed,
    "types, numbers and arrays of numpy": from_numpy,
    "nesting, sharing, repetition, colliding keys": endless,
    "lengths that lie, and noise": lying,
}
_FILES = {
    "archives that lie": odd_archive,
    "the format before torch 1.6": odd_legacy,
    "headers of safetensors": odd_safetensors,
    "npy, npz and pt2": odd_arrays,
}
#: What is tried, by name: a function from a generator of random numbers to bytes and ending.
ATTACKS = {**{name: in_a_file(build) for name, build in _BUILDERS.items()}, **_FILES}


def attempt(attack, rng, folder):
    """Read one file: plain data within the limits, or a named error."""
    data, ending = attack(rng)
    path = Path(folder, f"tried{ending}")
    path.write_bytes(data)
    before = _memory(reset=True)
    try:
        for lazily in (True, False):
            touch(read_checkpoint(path, lazily=lazily))
        outcome = "result"
    except BankError as error:
        outcome = "named error"
        require(not _ran_out(error), f"it asked for memory without end: {str(error)[:200]}")
    finally:
        path.unlink()
    taken = _memory() - before
    require(taken <= MOST_MEMORY, f"it took {taken // 2**20} MiB")
    require(not Path("skte-ran").exists(), "a file ran code")
    return outcome


def touch(found, most_steps=5_000_000):
    """Walk through a result as code does that knows of no sharing; copy every tensor."""
    waiting, tensors, n_steps = [found], {}, 0
    while waiting:
        value = waiting.pop()
        n_steps += 1
        require(n_steps < most_steps, "a walk through it does not end")
        if type(value) in (torch.Tensor, torch.nn.Parameter):
            tensors[id(value)] = value
        elif isinstance(value, (dict, list, tuple, set)):
            kinds = (dict, OrderedDict, Counter, list, tuple, set)
            require(type(value) in kinds, f"a {type(value)}")
            waiting += list(value)
            waiting += value.values() if isinstance(value, dict) else []
        else:
            require(type(value) in PLAIN, f"a {type(value)}")
    for value in tensors.values():
        require(value.layout == torch.strided, f"a tensor that is {value.layout}")
        if value.device.type != "meta" and value.numel():
            copied = value.detach().clone(memory_format=torch.contiguous_format)
            copied.reshape(-1).view(torch.uint8).amax()
            raw = torch.empty(0, dtype=torch.uint8).set_(value.untyped_storage())
            require(value.dtype != torch.bool or int(raw.amax()) <= 1, "neither true nor false")


def _ran_out(error):
    """Tell whether an error comes from memory that was not to be had."""
    while error is not None:
        if isinstance(error, MemoryError) or "can't allocate" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def _memory(reset=False):
    """Most bytes in memory since the last reset."""
    if reset:
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
