"""Files of ``torch.save``, read by a machine that can build nothing but data.

A checkpoint is a program for the pickle machine. ``torch.load(weights_only=True)`` runs it with
a list of allowed classes and functions, real ones: what these do with hostile arguments
(allocate gigabytes, set the state of an object, read beyond a storage), what other code in the
process adds to the list, and how C++ reads the archive are all within reach of the file. So
torch's reader is not used here, and neither is the `pickle` module's, whose BUILD, APPENDS and
memo act on any object at hand. `pickletools.genops` of the standard library cuts the program
into instructions, and `_Machine` interprets the few that ``torch.save`` writes:

- no class or function ever stands on the stack: a global is a `LeftOut`, which holds its name,
  and so is whatever it would have made, unless `_CALLS` has a function of this file for it;
- only lists and dicts made here are filled; what is set of anything else is dropped;
- a tensor is a view whose sizes, strides and offset were checked against a storage, whose
  bytes are a stored (never compressed) part of the archive, or of the file in the older format.

So what stands beside the weights costs nothing, and is refused by name where it is asked for. The
program runs twice. First all tensors are on the meta device, which takes no memory, and what
came out is measured: nested moderately, without cycles, and what it will take compared with the
limit on memory. Only then are values read.
"""

from __future__ import annotations

import io
import math
import pickletools
import re
import struct
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch

from skte._memory import memory_problem
from skte._text import clean_text

# A program of this many steps takes two seconds. A network of 1000 tensors with the state of its
# optimizer has a tenth of it.
_MOST_STEPS = 500_000
_MOST_ITEMS = 2_000_000  # where shared containers are counted as often as they occur
_MOST_DEPTH = 100
_MOST_EDGE = 2**48
_MOST_AXES = 64
_TENSOR_STEPS = 10
_LONGEST_LINE = 1000

_REMEDY = "the file is damaged or was not written by torch.save, and was refused"
_NOT_PLAIN = (
    "save network.state_dict() alone with torch.save, or pass trusted=True where you trust its "
    "origin"
)
_BIG_ENDIAN = "its numbers are not little-endian", "save it again on another kind of machine"
_TORCH_MAGIC = 0x1950A86A20F9469CFC6C
_TORCH_PROTOCOL = 1001

_STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexDoubleStorage": torch.complex128,
    "ComplexFloatStorage": torch.complex64,
    "UntypedStorage": torch.uint8,
}
_STORAGE_NAMES = {
    f"{module}.{name}": dtype
    for module in ("torch", "torch.cuda", "torch.storage")
    for name, dtype in _STORAGES.items()
}
_DTYPES = {
    str(value): value
    for value in vars(torch).values()
    if isinstance(value, torch.dtype)
    # Not those of quantized and packed tensors, whose values are not numbers by themselves.
    and re.fullmatch(r"torch\.(bool|u?int(8|16|32|64)|b?float\w+|complex\d+)", str(value))
    and "x2" not in str(value)
}
_PLAIN = (str, bytes, int, float, bool, type(None))


class MalformedError(Exception):
    """A file is not what it should be; the text says why, and what to do."""

    def __init__(self, problem: str, remedy: str = _REMEDY) -> None:
        super().__init__(f"{problem}; {remedy}" if remedy else problem)


class LeftOut:
    """Stands for what is not read: a class or function, or what it would have made."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = clean_text(name, 100)

    def __repr__(self) -> str:
        return f"<{self.name}, not read>"


@dataclass(frozen=True)
class _Storage:
    """Bytes in the file that tensors are views of."""

    key: str
    dtype: torch.dtype
    n_elements: int

    @property
    def n_bytes(self) -> int:
        return self.n_elements * self.dtype.itemsize


_Read = Callable[[_Storage], torch.UntypedStorage]


def read_torch_file(path: Path, *, values: bool) -> Any:
    """Read what ``torch.save`` wrote, as an archive or as it did before torch 1.6."""
    with path.open("rb") as file:
        if file.read(2) == b"PK":
            with zipfile.ZipFile(file) as archive:
                return _read_archive(archive, path.stat().st_size, values)
        file.seek(0)
        return _read_legacy(file, path.stat().st_size, values)


def check_archive(archive: zipfile.ZipFile, size: int, *, whole: bool) -> None:
    """Refuse TorchScript, what torch.save does not write, and, if told so, wrong checksums."""
    parts = archive.infolist()
    names = Counter(part.filename for part in parts)
    if any(re.match("[^/]*/(constants.pkl$|code/)", name) for name in names):
        raise MalformedError(
            "this is TorchScript, whose layers cannot be hooked, so no features can be read; "
            "save the state_dict() of the original nn.Module with torch.save",
            "",
        )
    unpacked = sum(part.file_size for part in parts)
    if unpacked > size or any(part.compress_type != zipfile.ZIP_STORED for part in parts):
        raise MalformedError(
            f"the archive unpacks to {unpacked} bytes from {size}, but torch.save does not compress"
        )
    if any(part.flag_bits & 1 or part.file_size != part.compress_size for part in parts):
        raise MalformedError("parts of the archive are encrypted")
    twice, n = names.most_common(1)[0] if names else ("", 0)
    if n > 1:
        raise MalformedError(f"the archive holds {clean_text(twice, 100)} twice")
    if not any(part.CRC for part in parts):  # torch.save can be set to write none
        for part in parts:
            del part.CRC
    elif whole and (damaged := archive.testzip()):  # torch.load does not look at them
        raise MalformedError(
            f"the checksum does not fit in: {clean_text(damaged, 200)}: the file was changed or "
            "damaged after it was written",
            "copy or download it again",
        )


def check_shape(shape: Any, itemsize: int) -> int:
    """Return how many bytes a shape from a file takes, if it is one."""
    if type(shape) not in (tuple, list) or len(shape) > _MOST_AXES:
        raise MalformedError("the shape of a tensor is malformed")
    if not all(type(edge) is int and 0 <= edge <= _MOST_EDGE for edge in shape):
        raise MalformedError("a tensor has an impossible shape")  # whose text might never end
    # Beside an edge of 0 the others would pass, and their product overflow in C++.
    if math.prod(max(edge, 1) for edge in shape) > _MOST_EDGE:
        raise MalformedError(f"a tensor has the impossible shape {clean_text(shape, 100)}")
    n_bytes: int = math.prod(shape) * itemsize
    return n_bytes


def _read_archive(archive: zipfile.ZipFile, file_bytes: int, values: bool) -> Any:
    check_archive(archive, file_bytes, whole=values)
    sizes = {part.filename: part.file_size for part in archive.infolist()}
    programs = [name for name in sizes if name.partition("/")[2] == "data.pkl"]
    if len(programs) != 1:
        raise MalformedError("the archive holds no data.pkl, or several")
    root = programs[0].partition("/")[0]
    order = f"{root}/byteorder"
    if order in sizes and archive.read(order) != b"little":
        raise MalformedError(*_BIG_ENDIAN)
    size = sizes[programs[0]]
    _check_memory(4 * size, size)  # before it is read; text may take four bytes for one
    program = archive.read(programs[0])
    shapes = _Machine()
    found = shapes.run(io.BytesIO(program))
    _check_content(found, shapes, file_bytes)
    for storage in shapes.storages.values():
        if storage.n_bytes > sizes.get(f"{root}/data/{storage.key}", -1):
            raise MalformedError(f"storage {clean_text(storage.key, 100)} is missing or cut off")
    if not values or not shapes.n_tensors:
        return found

    def read(storage: _Storage) -> torch.UntypedStorage:
        with archive.open(f"{root}/data/{storage.key}") as part:
            return _fill(part, storage)

    return _Machine(read).run(io.BytesIO(program))


def _read_legacy(file: IO[bytes], size: int, values: bool) -> Any:
    stream = _Stream(file, size)
    machine = _Machine()
    if machine.run(stream) != _TORCH_MAGIC or machine.run(stream) != _TORCH_PROTOCOL:
        raise MalformedError("it does not start as a file of torch.save does")
    system = machine.run(stream)
    if type(system) is not dict or system.get("little_endian") is not True:
        raise MalformedError(*_BIG_ENDIAN)
    start = stream.at
    found = machine.run(stream)
    stop = stream.at
    keys = machine.run(stream)
    places = _legacy_places(stream, keys, machine.storages)
    _check_content(found, machine, size)
    if not values or not machine.n_tensors:
        return found
    file.seek(start)
    program = io.BytesIO(file.read(stop - start))

    def read(storage: _Storage) -> torch.UntypedStorage:
        file.seek(places[storage.key])
        return _fill(file, storage)

    return _Machine(read).run(program)


def _legacy_places(stream: _Stream, keys: Any, storages: Mapping[str, _Storage]) -> dict[str, int]:
    """Where the bytes of each storage begin: they follow the program, in the order of the keys."""
    if type(keys) is not list or Counter(map(type, keys)).keys() - {str}:
        raise MalformedError("the list of storages is malformed")
    if len(set(keys)) < len(keys) or set(keys) != set(storages):
        raise MalformedError("the list of storages is not that of its tensors")
    places = {}
    for key in keys:
        (n_elements,) = struct.unpack("<q", stream.read(8))
        if n_elements != storages[key].n_elements:
            raise MalformedError(
                f"storage {clean_text(key, 100)} does not have the size that is stated"
            )
        places[key] = stream.at
        stream.skip(storages[key].n_bytes)
    return places


def _fill(file: IO[bytes], storage: _Storage) -> torch.UntypedStorage:
    """Read the bytes of a storage."""
    raw = torch.empty(storage.n_bytes, dtype=torch.uint8, device="cpu")
    if storage.n_bytes and file.readinto(raw.numpy()) < storage.n_bytes:  # type: ignore[attr-defined]
        raise MalformedError(f"storage {clean_text(storage.key, 100)} is cut off")
    if storage.dtype == torch.bool:
        raw.clamp_(max=1)  # code that counts and indexes by truth relies on 0 and 1
    return raw.untyped_storage()


def _check_memory(n_bytes: int, file_bytes: int) -> None:
    problem = memory_problem(n_bytes, file_bytes)
    if problem:
        raise MalformedError(f"the file {problem}", "")


class _Stream:
    """A file whose reads are bounded by what is left of it."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file, self._size, self.at = file, size, 0

    def read(self, n: int) -> bytes:
        self._take(n)
        return self._file.read(n)

    def readline(self) -> bytes:
        line = self._file.readline(_LONGEST_LINE)
        self._take(len(line))
        return line

    def skip(self, n: int) -> None:
        self._take(n)
        self._file.seek(self.at)

    def _take(self, n: int) -> None:
        if n > self._size - self.at:
            raise MalformedError("the file is cut off")
        self.at += n


class _Machine:
    """Interprets pickled programs whose only effect is plain data."""

    def __init__(self, read: _Read | None = None) -> None:
        self.storages: dict[str, _Storage] = {}
        self.n_tensors = 0
        self._read = read
        self._filled: dict[str, torch.UntypedStorage] = {}
        self._left = _MOST_STEPS

    def run(self, stream: Any) -> Any:
        """Run one program and return its result."""
        self._memo: dict[int, Any] = {}
        self._stack: list[Any] = []
        self._marks: list[list[Any]] = []
        for opcode, argument, _ in pickletools.genops(stream):
            self.spend(1)
            step = _STEPS.get(opcode.name)
            if step is None:
                raise MalformedError(f"it holds the instruction {opcode.name}", _NOT_PLAIN)
            step(self, argument)
        if self._marks or self._stack:
            raise MalformedError("its program leaves something behind")
        return self._result

    def spend(self, n_steps: int) -> None:
        """Count steps, so that a small file cannot take for ever."""
        self._left -= n_steps
        if self._left < 0:
            raise MalformedError(f"its program takes more than {_MOST_STEPS} steps", _NOT_PLAIN)

    def tensor(
        self, storage: Any, offset: Any, size: Any, stride: Any, dtype: torch.dtype | None = None
    ) -> torch.Tensor:
        """Make a tensor that lies within its storage."""
        if type(storage) is not _Storage:
            raise MalformedError("a tensor has no storage")
        self.spend(_TENSOR_STEPS)  # it takes longer to make than a number
        self.n_tensors += 1
        kind = dtype or storage.dtype
        check_shape(size, kind.itemsize)
        if type(stride) not in (tuple, list) or len(stride) != len(size):
            raise MalformedError("the strides of a tensor do not fit its shape")
        if not all(type(n) is int and 0 <= n <= _MOST_EDGE for n in (offset, *stride)):
            raise MalformedError("a tensor has impossible strides or an impossible offset")
        last = offset + sum((e - 1) * s for e, s in zip(size, stride, strict=True))
        if 0 not in size and (last + 1) * kind.itemsize > storage.n_bytes:
            raise MalformedError("a tensor reaches beyond its storage")
        if self._read is None:
            return torch.empty_strided(size, stride, dtype=kind, device="meta")
        if storage.key not in self._filled:
            self._filled[storage.key] = self._read(storage)
        offset = 0 if 0 in size else offset
        tensor = torch.empty(0, dtype=kind, device="cpu")
        return tensor.set_(self._filled[storage.key], offset, size, stride)

    # Steps of a program, by the names that pickletools has for them.

    def push(self, value: Any) -> None:
        self._stack.append(value)

    def mark(self, _: Any) -> None:
        self._marks.append(self._stack)
        self._stack = []

    def marked(self) -> list[Any]:
        items, self._stack = self._stack, self._marks.pop()
        return items

    def drop(self, _: Any) -> None:
        self.marked()
        self.push(LeftOut("builtins.frozenset"))

    def pack(self, n: int) -> None:
        self._stack[-n:] = [tuple(self._stack[-n:])]

    def stop(self, _: Any) -> None:
        self._result = self._stack.pop()

    def put(self, place: int | None) -> None:
        self._memo[len(self._memo) if place is None else place] = self._stack[-1]

    def get(self, place: int) -> None:
        self.push(self._memo[place])

    def append(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if type(target) is list:
            target.extend(items)
        elif type(target) is not LeftOut:
            raise MalformedError("it appends to what is not a list")

    def set_items(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if type(target) not in (dict, OrderedDict, LeftOut) or len(items) % 2:
            raise MalformedError("it sets items of what is not a dict")
        if type(target) is not LeftOut:
            target.update(zip(map(_key, items[::2]), items[1::2], strict=True))

    def name(self, module: Any, name: Any) -> None:
        if type(name) is not str or type(module) is not str:
            raise MalformedError("the name of a global is not text")
        self.push(LeftOut(f"{module:.200}.{name:.200}"))

    def call(self, _: Any) -> None:
        arguments, function = self._stack.pop(), self._stack.pop()
        if type(function) is not LeftOut or type(arguments) is not tuple:
            raise MalformedError(f"it calls a {type(function).__name__}")
        make = _CALLS.get(function.name)
        self.push(make(self, *arguments) if make else function)

    def build(self, _: Any) -> None:
        # Versions of modules, which skte leaves out with all else around the weights, or nothing.
        self._stack.pop()
        if type(self._stack[-1]) not in (OrderedDict, LeftOut):
            raise MalformedError(f"it sets the state of a {type(self._stack[-1]).__name__}")

    def persistent(self, _: Any) -> None:
        match self._stack.pop():
            case ("module", LeftOut() as kind, *_):
                return self.push(kind)
            case ("storage", LeftOut(name=name), str() as key, str(), int() as n, *rest):
                pass
            case _:
                raise MalformedError("it refers to something other than a storage")
        if rest not in ([], [None]) or type(n) is bool or not 0 <= n <= _MOST_EDGE:
            raise MalformedError("a storage has an impossible size, or is a view of another")
        if name not in _STORAGE_NAMES:
            raise MalformedError(f"a storage is of the kind {clean_text(name, 100)}", _NOT_PLAIN)
        storage = _Storage(str(key), _STORAGE_NAMES[name], n)
        if self.storages.setdefault(storage.key, storage) != storage:
            raise MalformedError("a storage has two sizes or types")
        self.push(self.storages[storage.key])


def _key(value: Any) -> Any:
    """Return a key of a dict: its hash must neither recurse nor be made to collide."""
    plain = type(value) in _PLAIN and (type(value) is not int or value.bit_length() <= 64)
    return value if plain else LeftOut("a key that is not text or a number")


def _check_content(found: Any, machine: _Machine, file_bytes: int) -> None:
    """Look through a result, without recursion: plain types, no cycles, and of what size."""
    done: dict[int, tuple[int, int, int]] = {}  # items, bytes, depth
    above: set[int] = set()
    waiting = [(found, False)]
    while waiting:
        value, is_finished = waiting.pop()
        number = id(value)
        if is_finished:
            above.remove(number)
            parts = [done[id(part)] for part in _parts(value)]
            items = len(value) + 1 + sum(part[0] for part in parts)
            depth = 1 + max((part[2] for part in parts), default=0)
            if items > _MOST_ITEMS or depth > _MOST_DEPTH:
                raise MalformedError(
                    "its content is nested too deeply, or repeats itself too often", _NOT_PLAIN
                )
            done[number] = items, sum(part[1] for part in parts), depth
        elif number in above:
            raise MalformedError("its content holds itself", _NOT_PLAIN)
        elif number not in done:
            if type(value) in (torch.Tensor, torch.nn.Parameter):
                done[number] = 1, value.numel() * value.element_size(), 0
            elif type(value) is LeftOut or type(value) in _PLAIN:
                done[number] = 1, 0, 0
            elif type(value) in (list, tuple, dict, OrderedDict):
                above.add(number)
                waiting.append((value, True))
                waiting += [(part, False) for part in _parts(value)]
            else:
                raise MalformedError(f"it holds a {type(value).__name__} as a value", _NOT_PLAIN)
    n_bytes = max(done[id(found)][1], sum(s.n_bytes for s in machine.storages.values()))
    _check_memory(n_bytes, file_bytes)


def _parts(value: Any) -> list[Any]:
    """List what a container holds; plain values need no second look."""
    inner = value.values() if isinstance(value, dict) else value
    return [part for part in inner if type(part) not in _PLAIN]


# What globals stand for. Each takes the machine and the arguments that the file gives.


def _dict(machine: _Machine, pairs: Any = ()) -> OrderedDict[Any, Any]:
    """Make a dict; a factory of default values is dropped."""
    if type(pairs) is LeftOut or pairs is None:
        pairs = ()
    if type(pairs) not in (list, tuple) or not all(
        type(pair) in (list, tuple) and len(pair) == 2 for pair in pairs
    ):
        raise MalformedError("it makes a dict of what is not pairs")
    machine.spend(len(pairs))
    return OrderedDict((_key(key), value) for key, value in pairs)


def _tensor(
    machine: _Machine, storage: Any, offset: Any, size: Any, stride: Any, grad: Any = False,
    hooks: Any = None, metadata: Any = None, *, kind: torch.dtype | None = None,
) -> torch.Tensor:  # fmt: skip
    if not (_is_empty(hooks) and _is_empty(metadata)):
        raise MalformedError("a tensor has hooks, or is a conjugated or negative view", _NOT_PLAIN)
    tensor = machine.tensor(storage, offset, size, stride, kind)
    if grad is True and (tensor.is_floating_point() or tensor.is_complex()):
        tensor.requires_grad = True
    return tensor


def _typed_tensor(
    machine: _Machine, storage: Any, offset: Any, size: Any, stride: Any, grad: Any,
    hooks: Any, dtype: Any, metadata: Any = None,
) -> torch.Tensor:  # fmt: skip
    kind = _DTYPES.get(dtype.name) if type(dtype) is LeftOut else None
    if kind in (None, torch.bool):
        raise MalformedError("a tensor is not of a plain type", _NOT_PLAIN)
    return _tensor(machine, storage, offset, size, stride, grad, hooks, metadata, kind=kind)


def _is_empty(value: Any) -> bool:
    return value is None or (type(value) in (dict, OrderedDict) and not value)


def _parameter(machine: _Machine, data: Any, grad: Any, *hooks_and_state: Any) -> torch.Tensor:
    if type(data) is not torch.Tensor or data.requires_grad:
        raise MalformedError("a parameter is not made of a tensor")
    able = data.is_floating_point() or data.is_complex()
    return torch.nn.Parameter(data, grad is True and able)


def _of_type(machine: _Machine, function: Any, kind: Any, arguments: Any, *state: Any) -> Any:
    """Make a plain tensor of one with attributes, or of a derived class."""
    name = function.name if type(function) is LeftOut else ""
    if not name.startswith("torch._utils.") or type(arguments) is not tuple:
        raise MalformedError("a tensor of a derived class is not made of a tensor")
    return _CALLS[name](machine, *arguments) if name in _CALLS else function


_CALLS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": _dict,
    "collections.defaultdict": _dict,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _typed_tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch._tensor._rebuild_from_type_v2": _of_type,
    "torch._tensor._rebuild_from_type": _of_type,
}


_STEPS: dict[str, Callable[[_Machine, Any], None]] = {
    "PROTO": lambda m, a: None,
    "FRAME": lambda m, a: None,
    "STOP": _Machine.stop,
    "MARK": _Machine.mark,
    "NONE": lambda m, a: m.push(None),
    "NEWTRUE": lambda m, a: m.push(True),
    "NEWFALSE": lambda m, a: m.push(False),
    **dict.fromkeys(["BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"], _Machine.push),
    **dict.fromkeys(["BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"], _Machine.push),
    **dict.fromkeys(["BINBYTES", "SHORT_BINBYTES", "BINBYTES8"], _Machine.push),
    **dict.fromkeys(["BINSTRING", "SHORT_BINSTRING"], _Machine.push),  # text of Python 2
    "BYTEARRAY8": lambda m, a: m.push(LeftOut("builtins.bytearray")),
    "EMPTY_TUPLE": lambda m, a: m.push(()),
    "EMPTY_LIST": lambda m, a: m.push([]),
    "EMPTY_DICT": lambda m, a: m.push({}),
    "EMPTY_SET": lambda m, a: m.push(LeftOut("builtins.set")),
    "TUPLE": lambda m, a: m.push(tuple(m.marked())),
    "TUPLE1": lambda m, a: m.pack(1),
    "TUPLE2": lambda m, a: m.pack(2),
    "TUPLE3": lambda m, a: m.pack(3),
    "APPEND": lambda m, a: m.append([m._stack.pop()]),
    "APPENDS": lambda m, a: m.append(m.marked()),
    "SETITEM": lambda m, a: m.set_items([m._stack.pop(-2), m._stack.pop()]),
    "SETITEMS": lambda m, a: m.set_items(m.marked()),
    "ADDITEMS": lambda m, a: m.append(m.marked()),
    "FROZENSET": _Machine.drop,
    **dict.fromkeys(["BINPUT", "LONG_BINPUT", "MEMOIZE"], _Machine.put),
    **dict.fromkeys(["BINGET", "LONG_BINGET"], _Machine.get),
    "GLOBAL": lambda m, a: m.name(*a.split(" ", 1)),
    "STACK_GLOBAL": lambda m, a: m.name(m._stack.pop(-2), m._stack.pop()),
    "REDUCE": _Machine.call,
    "NEWOBJ": _Machine.call,  # as good as a call: no class stands on the stack
    "BUILD": _Machine.build,
    "BINPERSID": _Machine.persistent,
}
