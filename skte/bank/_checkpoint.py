"""Files of ``torch.save``, read by a machine that can build nothing but data.

A checkpoint is a program for the pickle machine. ``torch.load(weights_only=True)`` runs it with
a list of allowed classes and functions, real ones: what these do with hostile arguments
(allocate gigabytes, set the state of an object, read beyond a storage), what other code in the
process adds to the list, and how C++ reads the archive are all within reach of the file. So
torch's reader is not used here, and neither is the `pickle` module's, whose BUILD, APPENDS and
memo act on any object at hand. `pickletools.genops` of the standard library cuts the program
into instructions, and `_Machine` interprets the few that ``torch.save`` writes:

- no class or function ever stands on the stack: a global is its name, and calling it
  looks the name up in `_CALLS`, whose functions are all of this file, take plain
  arguments, check each, and return plain values;
- only lists, dicts and sets made here are filled, and BUILD sets the content of a
  dict or an array, or nothing;
- a tensor is a view whose sizes, strides and offset were checked against a storage, whose
  bytes are a stored (never compressed) part of the archive, or of the file in the older format.

The program runs twice. First all tensors are on the meta device, which takes no memory, and what
came out is measured: every value of a known plain type, nested moderately, without cycles, and
what it will take compared with the limit on memory. Only then are values read.

Where a class is mere decoration of data its content is kept as numbers, text, tuples and dicts
(numpy's numbers and arrays, `argparse.Namespace`, paths, devices, dtypes). All other
classes, and sparse, quantized, nested and meta tensors, are refused by name.
"""

from __future__ import annotations

import io
import math
import pickletools
import re
import struct
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NoReturn

import numpy as np
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
# What calls copy: a short program could ask for the same long text again and again.
_MOST_COPIED = 64 * 2**20
_TENSOR_STEPS = 10
# Python's hash of such keys can be made to collide, so that a dict of them takes for ever.
_KEY_STEPS = 1000
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
_BUILTINS = ("builtins", "__builtin__")
# Numbers of numpy: letter and size, as in the text of a dtype.
_NUMBERS = re.compile(r"[iu][1248]|f(2|4|8|16)|c(8|16|32)|b1")
_CHARACTERS = re.compile(r"[US](\d{1,9})")
# What stands for itself, as an argument of others or as text.
_NAMES = frozenset(
    [
        *_STORAGE_NAMES,
        *_DTYPES,
        *(
            f"{b}.{t.__name__}"
            for b in _BUILTINS
            for t in (bool, int, float, str, list, tuple, dict)
        ),
        *(f"numpy.{name}" for name in np.sctypeDict if isinstance(name, str)),
        "numpy.ndarray",
        "torch.Tensor",
        "torch.nn.parameter.Parameter",
        "monai.data.meta_tensor.MetaTensor",
    ]
)
_KEYS = (str, bytes, int, float, bool, type(None))
_LEAVES = (*_KEYS, complex)


class MalformedError(Exception):
    """A file is not what it should be; the text says why, and what to do."""

    def __init__(self, problem: str, remedy: str = _REMEDY) -> None:
        super().__init__(f"{problem}; {remedy}" if remedy else problem)


class RefusedGlobalsError(Exception):
    """A file needs classes or functions that are not data."""

    def __init__(self, names: Iterable[str]) -> None:
        self.names = sorted({clean_text(name, 100) for name in names})
        super().__init__(", ".join(self.names))


class _Global(str):
    """Name of something that can be called; it never leaves the machine."""

    __slots__ = ()


class _Kind:
    """What a dtype of numpy says; it never leaves the machine."""

    __slots__ = ("code", "order")

    def __init__(self, code: str) -> None:
        self.code, self.order = code, "<"


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


def read_torch_file(path: Path, archive: Archive | None, *, values: bool) -> Any:
    """Read what ``torch.save`` wrote."""
    with path.open("rb") as file:
        if archive is not None:
            return _read_archive(file, archive, values)
        return _read_legacy(file, path.stat().st_size, values)


class Archive:
    """Parts of a zip archive that are stored as they are."""

    def __init__(self, path: Path) -> None:
        size = path.stat().st_size
        with zipfile.ZipFile(path) as archive:
            parts = archive.infolist()
        self.parts = {part.filename: part for part in parts}
        self._all, self._size = parts, size

    def check(self) -> None:
        """Refuse what torch.save does not write."""
        parts, size = self._all, self._size
        unpacked = sum(part.file_size for part in parts)
        if unpacked > size or any(part.compress_type != zipfile.ZIP_STORED for part in parts):
            raise MalformedError(
                f"the archive unpacks to {unpacked} bytes from {size}, but torch.save does not "
                "compress",
            )
        if any(part.flag_bits & 1 or part.file_size != part.compress_size for part in parts):
            raise MalformedError("parts of the archive are encrypted")
        if len(self.parts) != len(parts):
            twice = next(name for name, n in Counter(p.filename for p in parts).items() if n > 1)
            raise MalformedError(f"the archive holds {clean_text(twice, 100)} twice")

    def place(self, file: IO[bytes], name: str) -> tuple[int, int]:
        """Where a part's bytes begin, and how many there are."""
        part = self.parts.get(name)
        if part is None:
            raise MalformedError(f"the archive has no part {clean_text(name, 100)}")
        file.seek(part.header_offset)
        header = file.read(30)
        if len(header) < 30 or not header.startswith(b"PK\3\4"):
            raise MalformedError(f"part {clean_text(name, 100)} is not where the archive says")
        n_name, n_extra = struct.unpack("<HH", header[26:])
        return part.header_offset + 30 + n_name + n_extra, part.file_size

    def read(self, file: IO[bytes], name: str, most: int) -> bytes:
        """Read a small part."""
        start, size = self.place(file, name)
        if size > most:
            raise MalformedError(f"part {clean_text(name, 100)} has {size} bytes, too many")
        file.seek(start)
        data = file.read(size)
        if len(data) < size:
            raise MalformedError(f"part {clean_text(name, 100)} is cut off")
        return data

    def damaged(self, path: Path) -> list[str]:
        """Names of the parts whose bytes are not what was written, by their checksums."""
        found = []
        with zipfile.ZipFile(path) as archive:
            for name in self.parts:
                try:
                    with archive.open(name) as part:
                        while part.read(2**20):
                            pass
                except (zipfile.BadZipFile, EOFError, OSError):
                    found.append(name)
        return found


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


def _read_archive(file: IO[bytes], archive: Archive, values: bool) -> Any:
    programs = [name for name in archive.parts if name.partition("/")[2] == "data.pkl"]
    if len(programs) != 1:
        raise MalformedError("the archive holds no data.pkl, or several")
    root = programs[0].partition("/")[0]
    if f"{root}/byteorder" in archive.parts:
        order = archive.read(file, f"{root}/byteorder", 16)
        if order != b"little":
            raise MalformedError(*_BIG_ENDIAN)
    size = archive.parts[programs[0]].file_size
    _check_memory(4 * size, size)  # before it is read; text may take four bytes for one
    program = archive.read(file, programs[0], size)

    def place(storage: _Storage) -> tuple[int, int]:
        return archive.place(file, f"{root}/data/{storage.key}")

    shapes = _Machine(None, size)
    found = shapes.run(io.BytesIO(program))
    _check_content(found, shapes, Path(file.name).stat().st_size)
    for storage in shapes.storages.values():
        if storage.n_bytes > place(storage)[1]:
            raise MalformedError(f"storage {clean_text(storage.key, 100)} is cut off")
    if not values or not shapes.n_tensors:
        return found
    machine = _Machine(lambda s: _fill(file, s, place(s)[0]), size)
    return machine.run(io.BytesIO(program))


def _read_legacy(file: IO[bytes], size: int, values: bool) -> Any:
    stream = _Stream(file, size)
    machine = _Machine(None, size)
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
    return _Machine(lambda s: _fill(file, s, places[s.key]), size).run(program)


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


def _fill(file: IO[bytes], storage: _Storage, start: int) -> torch.UntypedStorage:
    """Read the bytes of a storage."""
    raw = torch.empty(storage.n_bytes, dtype=torch.uint8, device="cpu")
    file.seek(start)
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

    def __init__(self, read: _Read | None, size: int) -> None:
        self.storages: dict[str, _Storage] = {}
        self.n_tensors = 0
        self._read = read
        self._filled: dict[str, torch.UntypedStorage] = {}
        self._left, self._room = _MOST_STEPS, _MOST_COPIED + 4 * size
        self._arrays: dict[int, torch.Tensor] = {}  # those that BUILD fills yet

    def run(self, stream: Any) -> Any:
        """Run one program and return its result."""
        self._memo: dict[int, Any] = {}
        self._stack: list[Any] = []
        self._marks: list[list[Any]] = []
        program = pickletools.genops(stream)
        for opcode, argument, _ in program:
            self.spend(1)
            step = _STEPS.get(opcode.name)
            if step is None:
                raise MalformedError(f"it holds the instruction {opcode.name}", _NOT_PLAIN)
            try:
                step(self, argument)
            except RefusedGlobalsError as error:
                raise RefusedGlobalsError([*error.names, *_globals(program)]) from None
        if self._marks or self._stack:
            raise MalformedError("its program leaves something behind")
        return self._result

    def spend(self, n_steps: int) -> None:
        """Count steps, so that a small file cannot take for ever."""
        self._left -= n_steps
        if self._left < 0:
            raise MalformedError(f"its program takes more than {_MOST_STEPS} steps", _NOT_PLAIN)

    def copy(self, n_bytes: int) -> None:
        """Count bytes that are copied."""
        self._room -= n_bytes
        if self._room < 0:
            raise MalformedError("its program copies the same bytes again and again")

    def count_tensor(self) -> None:
        """Count a tensor, which takes longer to make than a number."""
        self.spend(_TENSOR_STEPS)
        self.n_tensors += 1

    def tensor(
        self, storage: Any, offset: Any, size: Any, stride: Any, dtype: torch.dtype | None = None
    ) -> torch.Tensor:
        """Make a tensor that lies within its storage."""
        if type(storage) is not _Storage:
            raise MalformedError("a tensor has no storage")
        self.count_tensor()
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

    def array(self) -> torch.Tensor:
        """Make the tensor that BUILD will fill with a numpy array."""
        self.count_tensor()
        tensor = torch.empty(0, device="meta" if self._read is None else "cpu")
        self._arrays[id(tensor)] = tensor
        return tensor

    # Steps of a program, by the names that pickletools has for them.

    def push(self, value: Any) -> None:
        self._stack.append(value)

    def text(self, value: str) -> None:
        """Text of Python 2, which may be bytes."""
        data = value.encode("latin-1")
        try:
            self.push(data.decode())
        except UnicodeDecodeError:
            self.push(data)

    def mark(self, _: Any) -> None:
        self._marks.append(self._stack)
        self._stack = []

    def marked(self) -> list[Any]:
        items, self._stack = self._stack, self._marks.pop()
        return items

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
        if type(target) is not list:
            raise MalformedError("it appends to what is not a list")
        target.extend(items)

    def set_items(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if type(target) not in (dict, OrderedDict, Counter) or len(items) % 2:
            raise MalformedError("it sets items of what is not a dict")
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[self.key(key)] = value

    def add(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if type(target) is not set:
            raise MalformedError("it adds to what is not a set")
        target.update(map(self.key, items))

    def key(self, value: Any) -> Any:
        """Check a key of a dict or set: its hash must neither recurse nor be Python code."""
        if type(value) is tuple and len(value) <= 16 and all(type(v) in _KEYS for v in value):
            self.spend(_KEY_STEPS)
        elif type(value) not in _KEYS:
            raise MalformedError(f"it uses a {_spoken(value)} as key", _NOT_PLAIN)
        elif type(value) is int and value.bit_length() > 64:
            self.spend(_KEY_STEPS)
        return value

    def name(self, module: str, name: str) -> None:
        full = f"{module}.{name}"
        if full in _CALLS:
            self.push(_Global(full))
        elif full in _NAMES:
            self.push(full)
        else:
            raise RefusedGlobalsError([full])

    def call(self, _: Any) -> None:
        arguments, function = self._stack.pop(), self._stack.pop()
        if type(function) is not _Global or type(arguments) is not tuple:
            raise MalformedError(f"it calls a {_spoken(function)}")
        self.push(_CALLS[function](self, *arguments))

    def build(self, _: Any) -> None:
        state, target = self._stack.pop(), self._stack[-1]
        if type(target) is OrderedDict:
            return  # versions of modules, which skte leaves out with all else around the weights
        if type(target) is dict and type(state) is dict:
            self.spend(len(state))
            target.update(state)  # a namespace
        elif type(target) is _Kind:
            _set_kind(target, state)
        elif id(target) in self._arrays:
            match state:
                case (int(), shape, kind, bool() as turned, data):
                    filled = self.filled(data, kind, shape, "F" if turned else "C")
                    self._arrays.pop(id(target)).data = filled
                case _:
                    raise MalformedError("the content of a numpy array is malformed")
        else:
            raise MalformedError(f"it sets the state of a {_spoken(target)}")

    def persistent(self, _: Any) -> None:
        match self._stack.pop():
            case ("storage", str() as name, str() as key, str(), int() as n, *rest):
                pass
            case _:
                raise MalformedError("it refers to something other than a storage")
        if rest not in ([], [None]) or type(n) is bool or not 0 <= n <= _MOST_EDGE:
            raise MalformedError("a storage has an impossible size, or is a view of another")
        if name not in _STORAGE_NAMES:
            raise MalformedError(f"a storage is of the kind {clean_text(name, 100)}")
        storage = _Storage(str(key), _STORAGE_NAMES[name], n)
        if self.storages.setdefault(storage.key, storage) != storage:
            raise MalformedError("a storage has two sizes or types")
        self.push(self.storages[storage.key])

    def filled(self, data: Any, kind: Any, shape: Any, order: Any) -> torch.Tensor:
        """Make a tensor from the bytes of a numpy array."""
        if type(data) is str:
            data = _encode(self, data, "latin-1")
        if type(kind) is not _Kind or type(data) is not bytes:
            raise MalformedError("the content of a numpy array is not numbers", _NOT_PLAIN)
        if not _NUMBERS.fullmatch(kind.code):
            raise MalformedError(f"a numpy array holds {kind.code!r}, not numbers", _NOT_PLAIN)
        self.count_tensor()
        self.copy(2 * len(data))
        dtype = np.dtype(kind.order + kind.code)
        if check_shape(shape, dtype.itemsize) != len(data) or order not in ("C", "F"):
            raise MalformedError("the size of a numpy array does not match its shape")
        array = _plain_array(np.frombuffer(data, dtype))
        tensor = torch.from_numpy(array.reshape(shape, order=order))
        return tensor.to("meta") if self._read is None else tensor


def _plain_array(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Copy an array to the byte order of this machine and a type that torch has."""
    if array.dtype == bool:
        return np.asarray(array.view(np.uint8) != 0)
    if array.dtype.itemsize > 8 and array.dtype.kind == "f":
        return array.astype(np.float64)
    if array.dtype.itemsize > 16:
        return array.astype(np.complex128)
    return array.astype(array.dtype.newbyteorder("="))


def _globals(program: Iterable[Any]) -> list[str]:
    """Names that the rest of a program needs and that are refused as well."""
    found: list[str] = []
    try:
        for opcode, argument, _ in program:
            full = str(argument).replace(" ", ".", 1)
            known = full in _CALLS or full in _NAMES
            if opcode.name == "GLOBAL" and not known and len(found) < 1000:
                found.append(full)
    except (ValueError, MalformedError):  # cut off
        pass
    return found


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
            elif type(value) in _LEAVES:
                done[number] = 1, 0, 0
            elif type(value) in (list, tuple, dict, OrderedDict, Counter, set):
                above.add(number)
                waiting.append((value, True))
                waiting += [(part, False) for part in _parts(value)]
            else:
                raise MalformedError(f"it holds a {_spoken(value)} as a value", _NOT_PLAIN)
    n_bytes = max(done[id(found)][1], sum(s.n_bytes for s in machine.storages.values()))
    _check_memory(n_bytes, file_bytes)


def _parts(value: Any) -> list[Any]:
    """List what a container holds; plain values need no second look."""
    inner = value.values() if isinstance(value, dict) else value
    return [part for part in inner if type(part) not in _LEAVES]


def _spoken(value: Any) -> str:
    if isinstance(value, _Global):
        return str(value)
    return {_Kind: "numpy.dtype", _Storage: "storage"}.get(type(value), type(value).__name__)


# What globals stand for. Each takes the machine and the arguments that the file gives.


def _refuse(what: str) -> NoReturn:
    raise MalformedError(f"it calls {what} with arguments that training code does not leave")


def _ordered(machine: _Machine, pairs: Any = ()) -> OrderedDict[Any, Any]:
    found: OrderedDict[Any, Any] = OrderedDict()
    if type(pairs) not in (list, tuple):
        _refuse("OrderedDict")
    machine.spend(len(pairs))
    for pair in pairs:
        if type(pair) not in (list, tuple) or len(pair) != 2:
            _refuse("OrderedDict")
        found[machine.key(pair[0])] = pair[1]
    return found


def _counter(machine: _Machine, counts: Any = None) -> Counter[Any]:
    found: Counter[Any] = Counter()
    if counts is not None:
        if type(counts) is not dict:
            _refuse("Counter")
        machine.spend(len(counts))
        dict.update(found, counts)  # its own update would add
    return found


def _default_dict(machine: _Machine, factory: Any = None) -> dict[Any, Any]:
    return {} if factory is None or type(factory) in (str, _Global) else _refuse("defaultdict")


def _set(machine: _Machine, items: Any = ()) -> set[Any]:
    if type(items) not in (list, tuple):
        _refuse("set")
    machine.spend(len(items))
    return set(map(machine.key, items))


def _encode(machine: _Machine, text: Any, codec: Any) -> bytes:
    if type(text) is not str or codec not in ("latin1", "latin-1"):
        _refuse("_codecs.encode")
    machine.copy(len(text))
    return text.encode("latin-1")


def _size(machine: _Machine, edges: Any) -> tuple[int, ...]:
    check_shape(edges, 1)
    return tuple(edges)


def _plain(what: str, kinds: Sequence[type], make: Callable[..., Any]) -> Callable[..., Any]:
    """Make a call that takes at most these arguments, of these very types."""

    def call(machine: _Machine, *arguments: Any) -> Any:
        if len(arguments) > len(kinds) or not all(map(_is_of, arguments, kinds)):
            _refuse(what)
        return make(*arguments)

    return call


def _is_of(value: Any, kind: type) -> bool:
    return type(value) is kind


def _path(machine: _Machine, *parts: Any) -> str:
    if not all(type(part) is str for part in parts):
        _refuse("pathlib.Path")
    machine.copy(sum(map(len, parts)))
    root = parts[0] if parts and parts[0].endswith(("/", "\\")) else ""
    return root + "/".join(parts[1:] if root else parts)


def _kind(machine: _Machine, code: Any, *flags: Any) -> _Kind:
    if type(code) is not str or not all(type(flag) in (int, bool) for flag in flags):
        _refuse("numpy.dtype")
    if not (_NUMBERS.fullmatch(code) or _CHARACTERS.fullmatch(code)):
        raise MalformedError(
            f"it holds values of numpy's type {clean_text(code, 40)!r}, which are neither "
            "numbers nor text",
            _NOT_PLAIN,
        )
    return _Kind(code)


def _set_kind(kind: _Kind, state: Any) -> None:
    """Take the byte order from the state of a dtype, which may say nothing else of weight."""
    match state:
        case (int(), ("<" | ">" | "|" | "=") as order, None, None, None, int(), int(), int()):
            kind.order = ">" if order == ">" else "<"
        case _:
            raise MalformedError("a dtype of numpy has fields, or a malformed state", _NOT_PLAIN)


def _scalar(machine: _Machine, kind: Any, data: Any) -> Any:
    """Make a number of Python from one of numpy, and text from text."""
    if type(data) is str:
        data = _encode(machine, data, "latin-1")
    if type(kind) is not _Kind or type(data) is not bytes:
        _refuse("numpy's scalar")
    characters = _CHARACTERS.fullmatch(kind.code)
    width = {"U": 4, "S": 1}.get(kind.code[0], 0)
    n_bytes = width * int(characters[1]) if characters else int(kind.code[1:])
    if len(data) != n_bytes:
        _refuse("numpy's scalar")
    machine.copy(2 * n_bytes)
    if kind.code[0] == "S":
        return data.rstrip(b"\0")
    if kind.code[0] == "U":
        codec = "utf-32-be" if kind.order == ">" else "utf-32-le"
        return data.decode(codec).rstrip("\0")
    return _plain_array(np.frombuffer(data, np.dtype(kind.order + kind.code)))[0].item()


def _reconstruct(machine: _Machine, name: Any, shape: Any, code: Any) -> torch.Tensor:
    if name != "numpy.ndarray" or shape != (0,):
        _refuse("numpy's _reconstruct")
    return machine.array()


def _from_buffer(machine: _Machine, data: Any, kind: Any, shape: Any, order: Any) -> torch.Tensor:
    return machine.filled(data, kind, shape, order)


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
    kind = _DTYPES.get(dtype) if type(dtype) is str else None
    if kind in (None, torch.bool):
        raise MalformedError("a tensor is not of a plain type", _NOT_PLAIN)
    return _tensor(machine, storage, offset, size, stride, grad, hooks, metadata, kind=kind)


def _is_empty(value: Any) -> bool:
    return value is None or (type(value) in (dict, OrderedDict) and not value)


def _parameter(machine: _Machine, data: Any, grad: Any, *hooks_and_state: Any) -> torch.Tensor:
    if type(data) is not torch.Tensor or data.requires_grad or id(data) in machine._arrays:
        _refuse("a parameter")
    able = data.is_floating_point() or data.is_complex()
    return torch.nn.Parameter(data, grad is True and able)


def _of_type(machine: _Machine, function: Any, kind: Any, arguments: Any, *state: Any) -> Any:
    """Make a plain tensor of one with attributes, or of a derived class."""
    if type(function) is not _Global or function not in _TENSORS or type(arguments) is not tuple:
        _refuse("torch's _rebuild_from_type")
    return _CALLS[function](machine, *arguments)


_TENSORS = (
    "torch._utils._rebuild_tensor",
    "torch._utils._rebuild_tensor_v2",
    "torch._utils._rebuild_tensor_v3",
    "torch._utils._rebuild_parameter",
)
_BUILTIN_CALLS: dict[str, Callable[..., Any]] = {
    "set": _set,
    "frozenset": _set,
    "bytes": _plain("bytes", (), bytes),
    "complex": _plain("complex", (float, float), complex),
}
_CALLS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": _ordered,
    "collections.Counter": _counter,
    "collections.defaultdict": _default_dict,
    "argparse.Namespace": _default_dict,
    "types.SimpleNamespace": _default_dict,
    "pytorch_lightning.utilities.parsing.AttributeDict": _default_dict,
    "lightning.fabric.utilities.data.AttributeDict": _default_dict,
    "lightning_fabric.utilities.data.AttributeDict": _default_dict,
    **{f"{module}.{name}": call for module in _BUILTINS for name, call in _BUILTIN_CALLS.items()},
    "_codecs.encode": _encode,
    "torch.Size": _size,
    "torch.device": _plain("torch.device", (str, int), lambda *parts: ":".join(map(str, parts))),
    "torch.torch_version.TorchVersion": _plain("TorchVersion", (str,), str),
    **{
        f"pathlib{private}.{pure}{system}Path": _path
        for private in ("", "._local")
        for pure in ("", "Pure")
        for system in ("Posix", "Windows")
    },
    "numpy.dtype": _kind,
    **{
        f"numpy.{core}.multiarray.{name}": call
        for core in ("core", "_core")
        for name, call in (("scalar", _scalar), ("_reconstruct", _reconstruct))
    },
    "numpy.core.numeric._frombuffer": _from_buffer,
    "numpy._core.numeric._frombuffer": _from_buffer,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _typed_tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch._tensor._rebuild_from_type_v2": _of_type,
    "torch._tensor._rebuild_from_type": _of_type,
}


def _stack_global(machine: _Machine, _: Any) -> None:
    name, module = machine._stack.pop(), machine._stack.pop()
    if type(name) is not str or type(module) is not str:
        raise MalformedError("the name of a global is not text")
    machine.name(module, name)


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
    "BYTEARRAY8": lambda m, a: m.push(bytes(a)),  # of numpy arrays, by protocol 5
    **dict.fromkeys(["BINSTRING", "SHORT_BINSTRING"], _Machine.text),
    "EMPTY_TUPLE": lambda m, a: m.push(()),
    "EMPTY_LIST": lambda m, a: m.push([]),
    "EMPTY_DICT": lambda m, a: m.push({}),
    "EMPTY_SET": lambda m, a: m.push(set()),
    "TUPLE": lambda m, a: m.push(tuple(m.marked())),
    "TUPLE1": lambda m, a: m.pack(1),
    "TUPLE2": lambda m, a: m.pack(2),
    "TUPLE3": lambda m, a: m.pack(3),
    "APPEND": lambda m, a: m.append([m._stack.pop()]),
    "APPENDS": lambda m, a: m.append(m.marked()),
    "SETITEM": lambda m, a: m.set_items([m._stack.pop(-2), m._stack.pop()]),
    "SETITEMS": lambda m, a: m.set_items(m.marked()),
    "ADDITEMS": lambda m, a: m.add(m.marked()),
    "FROZENSET": lambda m, a: m.push(set(map(m.key, m.marked()))),
    **dict.fromkeys(["BINPUT", "LONG_BINPUT", "MEMOIZE"], _Machine.put),
    **dict.fromkeys(["BINGET", "LONG_BINGET"], _Machine.get),
    "GLOBAL": lambda m, a: m.name(*a.split(" ", 1)),
    "STACK_GLOBAL": _stack_global,
    "REDUCE": _Machine.call,
    "NEWOBJ": _Machine.call,  # as good as a call: no class stands on the stack
    "BUILD": _Machine.build,
    "BINPERSID": _Machine.persistent,
}
