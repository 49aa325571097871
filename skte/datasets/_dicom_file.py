"""The structure of DICOM files, walked without believing their lengths."""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

__all__ = ["DicomFile", "is_dicom", "read_dicom"]

_DEEPEST = 16  # sequences within sequences: the reader calls itself for each
_MOST_ELEMENTS = 1_000_000
_MOST_VALUE = 1024  # bytes of a value that is kept
_UNDEFINED = 0xFFFFFFFF
_LONG = {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_SYNTAX, _ROWS, _COLUMNS, _PIXELS = 0x00020010, 0x00280010, 0x00280011, 0x7FE00010
_SERIES, _POSITION, _DIRECTION = 0x0020000E, 0x00200032, 0x00200037
_BIG_ENDIAN = "1.2.840.10008.1.2.2"
_IMPLICIT = "1.2.840.10008.1.2"
_PLAIN = (_IMPLICIT, "1.2.840.10008.1.2.1", _BIG_ENDIAN)
# RLE, JPEG, JPEG-LS and JPEG 2000. Not deflated (the file may become a thousand times larger),
# and no films.
_RUN_LENGTHS = "1.2.840.10008.1.2.5"
_PACKED = (_RUN_LENGTHS, "1.2.840.10008.1.2.4.")
_FILMS = tuple(f"1.2.840.10008.1.2.4.{n}" for n in (*range(94, 109), *range(201, 206)))


@dataclass
class DicomFile:
    """What the elements of a file say.

    Parameters
    ----------
    values : dict of int to bytes
        Short values of the elements that lie in no sequence, by tag.
    endian : str
        "<" or ">".
    """

    values: dict[int, bytes] = field(default_factory=dict)
    endian: str = "<"

    def text(self, tag: int) -> str:
        """Value of an element as text; empty where there is none."""
        return self.values.get(tag, b"").decode("latin-1").strip(" \0")

    @property
    def series(self) -> str:
        """The series that the file is of."""
        return self.text(_SERIES)

    @property
    def is_image(self) -> bool:
        """Whether it holds pixels."""
        return _PIXELS in self.values

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns."""
        rows, columns = (
            int.from_bytes(self.values.get(tag, b"")[:2], "big" if self.endian == ">" else "little")
            for tag in (_ROWS, _COLUMNS)
        )
        return rows, columns

    @property
    def place(self) -> float:
        """Distance of the slice along the normal of its plane; 0 where it states none."""
        try:
            x, y, z = map(float, self.text(_POSITION).split("\\"))
            a, b, c, d, e, f = map(float, self.text(_DIRECTION).split("\\"))
        except ValueError:
            return 0.0
        return x * (b * f - c * e) + y * (c * d - a * f) + z * (a * e - b * d)


def is_dicom(path: Path) -> bool:
    """Tell by its first bytes whether a file is DICOM."""
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def read_dicom(path: Path) -> DicomFile:
    """Walk through all elements of a file.

    Raises
    ------
    ValueError
        If a length leads out of the file, sequences are nested too deep, or the pixels are
        compressed in a way that is not read.
    """
    found = DicomFile()
    with path.open("rb") as file, _mapped(file) as content:
        _read(_Walk(content, found), found)
    return found


def _mapped(file: BinaryIO) -> mmap.mmap:
    if file.read(132)[128:] != b"DICM":
        raise ValueError("is not a DICOM file")
    return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _read(walk: _Walk, found: DicomFile) -> None:
    content = walk.content
    begin = walk.elements(132, len(content), group=2)
    syntax = found.text(_SYNTAX)
    if syntax not in _PLAIN and (not syntax.startswith(_PACKED) or syntax in _FILMS):
        raise ValueError(f"has transfer syntax {syntax!r:.100}, which is not read")
    walk.implicit = syntax == _IMPLICIT
    found.endian = walk.endian = ">" if syntax == _BIG_ENDIAN else "<"
    walk.elements(begin, len(content))
    for part in walk.fragments[1:]:  # the first is a table of offsets
        if syntax == _RUN_LENGTHS and not 1 <= int.from_bytes(part[:4], "little") <= 15:
            raise ValueError("has a frame of run lengths without 1 to 15 segments")
        _check_picture(part, found)


class _Walk:
    """A way through the bytes of a file that never leaves them."""

    def __init__(self, content: mmap.mmap, found: DicomFile) -> None:
        self.content, self.found = content, found
        self.implicit, self.endian, self.left = False, "<", _MOST_ELEMENTS
        self.fragments: list[bytes] = []

    def elements(self, position: int, end: int, depth: int = 0, group: int | None = None) -> int:
        """Pass elements up to an end, or the first of another group; return where it is."""
        while position + 8 <= end:
            tag, kind, length, begin = self._head(position)
            if tag in (_ITEM_END, _SEQUENCE_END):
                return begin
            if group is not None and tag >> 16 != group:
                return position
            if length == _UNDEFINED or kind == b"SQ":
                keep = tag == _PIXELS and depth == 0
                position = self._items(begin, end, length, depth + 1, keep, kind == b"UN")
            else:
                position = self._within(begin, length, end)
            if depth == 0:
                self.found.values[tag] = self.content[begin : min(position, begin + _MOST_VALUE)]
        return end

    def _head(self, position: int) -> tuple[int, bytes, int, int]:
        self.left -= 1
        if self.left < 0:
            raise ValueError(f"has more than {_MOST_ELEMENTS} elements")
        first, second = struct.unpack_from(f"{self.endian}HH", self.content, position)
        tag, kind = first << 16 | second, self.content[position + 4 : position + 6]
        if first == 0xFFFE or self.implicit:
            length = struct.unpack_from(f"{self.endian}I", self.content, position + 4)[0]
            return tag, b"", length, position + 8
        if kind not in _LONG:
            return tag, kind, *self._number("H", position + 6)
        return tag, kind, *self._number("I", position + 8)

    def _number(self, form: str, position: int) -> tuple[int, int]:
        after = position + struct.calcsize(form)
        if after > len(self.content):
            raise ValueError("ends within an element")
        return struct.unpack_from(self.endian + form, self.content, position)[0], after

    def _within(self, begin: int, length: int, end: int) -> int:
        if length > end - begin:
            raise ValueError(f"states an element of {length} bytes, more than it has")
        return begin + length

    def _items(
        self, position: int, end: int, length: int, depth: int, keep: bool, unknown: bool
    ) -> int:
        """Pass the items of a sequence, or the fragments of compressed pixels."""
        if depth > _DEEPEST:
            raise ValueError(f"nests sequences more than {_DEEPEST} deep")
        if length != _UNDEFINED:
            end = self._within(position, length, end)
        before, self.implicit = self.implicit, self.implicit or unknown
        position = self._each_item(position, end, depth, keep)
        self.implicit = before
        return position

    def _each_item(self, position: int, end: int, depth: int, keep: bool) -> int:
        while position + 8 <= end:
            tag, _, length, begin = self._head(position)
            if tag == _SEQUENCE_END:
                return begin
            if tag != _ITEM:
                raise ValueError("has a sequence of what are not items")
            if length == _UNDEFINED:
                position = self.elements(begin, end, depth)
            else:
                position = self._within(begin, length, end)
                if keep:
                    self.fragments.append(self.content[begin : min(position, begin + 65_536)])
                else:
                    self.elements(begin, position, depth)
        return position


def _check_picture(part: bytes, found: DicomFile) -> None:
    """Compare the size in a compressed frame, which its decoder believes, with the header's."""
    size = None
    if part.startswith(b"\xff\xd8"):
        size = _jpeg_size(part)
    elif part.startswith(b"\xff\x4f\xff\x51") and len(part) > 40:
        x1, y1, x0, y0, tile_x, tile_y = struct.unpack_from(">6I", part, 8)
        size = y1 - y0, x1 - x0
        if min(tile_x, tile_y) < 1 or -(-x1 // tile_x) * -(-y1 // tile_y) > 10_000:
            raise ValueError("has a JPEG 2000 frame of too many tiles")
        style = part.find(b"\xff\x52")
        if (
            style >= 0
            and part[style + 4 : style + 5] >= b"\1"
            and min(_precincts(part[style:])) < 4
        ):
            raise ValueError("has a JPEG 2000 frame of too many precincts")
    if size is not None and size != found.size:
        raise ValueError(f"has a frame of size {size} where its header states {found.size}")


def _precincts(style: bytes) -> list[int]:
    """Exponents of the precinct sizes in a COD segment."""
    levels = style[9] if len(style) > 9 else 0
    sizes = style[14 : 14 + levels + 1]
    return [n for byte in sizes[1:] for n in (byte & 15, byte >> 4)] or [15]


def _jpeg_size(part: bytes) -> tuple[int, int] | None:
    """Rows and columns in the frame header of a JPEG or JPEG-LS stream."""
    position = 2
    while position + 9 <= len(part) and part[position] == 0xFF:
        marker = part[position + 1]
        if marker == 0xFF:
            position += 1
            continue
        is_frame = 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)
        if is_frame or marker == 0xF7:
            rows, columns = struct.unpack_from(">HH", part, position + 5)
            return rows, columns
        position += 2 + int(struct.unpack_from(">H", part, position + 2)[0])
    raise ValueError("has a JPEG frame without a size")
