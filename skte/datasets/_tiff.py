"""TIFF pictures and stacks, decoded here.

ITK puts samples and planes in a row, makes colours of bits and palettes, and knows no stacks of
channels. It decodes what it reads rightly and this does not, or not fast: fax, JPEG, plain LZW.
"""

from __future__ import annotations

import math
import mmap
import re
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from skte.datasets._picture import (
    CUT_SHORT,
    MOST_TEXT,
    Picture,
    read_by_itk,
    read_header,
    turning_notes,
    unpack_bits,
    unread,
    without_colour,
)
from skte.datasets._problem import Flaw, ImageFileError

TIFF_MAGICS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_MOST_PAGES = 65_536
_MOST_VALUES = 1_000_000  # of a tag
_MOST_IN_TILE = 2**24  # values of a tile
# Number of bytes, and form, of the types of tags.
_TAG_TYPES = {
    1: "B", 2: "s", 3: "H", 4: "I", 5: "II", 6: "b", 7: "s", 8: "h", 9: "i", 10: "ii", 11: "f",
    12: "d", 13: "I", 16: "Q", 17: "q", 18: "Q",
}  # fmt: skip
_TAGS = {
    254: "subfile", 256: "width", 257: "length", 258: "bits", 259: "compression",
    262: "photometric", 266: "fill_order", 270: "description", 273: "offsets",
    274: "orientation", 277: "samples",
    278: "rows", 279: "counts", 282: "x_resolution", 283: "y_resolution", 284: "planar",
    317: "predictor", 320: "palette", 322: "tile_width", 323: "tile_length", 324: "offsets",
    325: "counts", 338: "extra", 339: "format", 32997: "depth",
}  # fmt: skip
_PHOTOMETRIC = {
    5: "CMYK", 6: "YCbCr", 8: "CIE L*a*b*", 9: "ICC L*a*b*", 10: "ITU L*a*b*", 32803: "raw",
    32844: "LogL", 32845: "LogLuv",
}  # fmt: skip
_BY_ITK = (2, 3, 4, 7)  # fax and JPEG
_LENGTHS_MM = {"nm": 1e-6, "um": 1e-3, "micron": 1e-3, "microns": 1e-3, "micrometer": 1e-3, "mm": 1}


class _Page:
    """Tags of one page, by name, with what they are where the file does not say."""

    def __init__(self, tags: Mapping[str, Any], order: str) -> None:
        def first(name: str, default: int) -> int:
            return int(tags[name][0]) if tags.get(name) else default

        self.order: Literal["<", ">"] = "<" if order == "<" else ">"
        self.subfile, self.orientation = first("subfile", 0), first("orientation", 1)
        self.width, self.length = first("width", 0), first("length", 0)
        self.samples, self.depth = first("samples", 1), first("depth", 1)
        bits, formats = tags.get("bits") or (1,), tags.get("format") or (1,)
        self.bits = int(bits[0]) if len(set(bits)) == 1 else 0
        self.format = int(formats[0]) if len(set(formats)) == 1 else 0
        self.compression = first("compression", 1)
        self.photometric = first("photometric", 1)
        self.fill_order, self.predictor = first("fill_order", 1), first("predictor", 1)
        self.planar = first("planar", 1) == 2 and self.samples > 1
        self.tile = (first("tile_width", 0), first("tile_length", 0))
        self.rows = min(first("rows", self.length), self.length) or self.length
        self.offsets: tuple[int, ...] = tags.get("offsets") or ()
        self.counts: tuple[int, ...] = tags.get("counts") or ()
        self.extra: tuple[int, ...] = tags.get("extra") or ()
        self.colours: tuple[int, ...] = tags.get("palette") or ()
        self.description = bytes(tags.get("description") or b"").split(b"\0")[0]
        resolutions: list[tuple[int, ...]] = [tags.get(f"{a}_resolution") or () for a in "xy"]
        self.edges = [r[1] / r[0] if len(r) == 2 and r[0] else 1.0 for r in resolutions]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of its values, in native byte order."""
        if self.format in (2, 3):
            return np.dtype(f"{'if'[self.format - 2]}{self.bits // 8}")
        n_bytes = next(n for n in (1, 2, 4, 8) if self.bits <= 8 * n)
        return np.dtype(f"u{n_bytes}")

    @property
    def is_plain_lzw(self) -> bool:
        """Whether ITK reads it rightly, and much faster than it is decoded here."""
        colours = {1: 1, 2: 3}.get(self.photometric)
        plain = self.bits in (8, 16) and self.format == 1 and not (self.planar or any(self.tile))
        return self.compression == 5 and plain and self.samples == colours

    @property
    def kind(self) -> tuple[Any, ...]:
        """What all pages of a stack have alike."""
        return (
            self.width, self.length, self.samples, self.bits, self.format, self.photometric,
            self.colours,
        )  # fmt: skip


def _pages(content: mmap.mmap) -> Iterator[_Page]:
    """Pages of a file; no chain of them that leads on without end is followed."""
    order = "<" if content[:2] == b"II" else ">"
    big = content[2:4] in (b"+\0", b"\0+")
    pointer, count, width = ("Q", "Q", 20) if big else ("I", "H", 12)
    seen: set[int] = set()
    left = len(content)  # bytes of values of tags: those of honest pages do not overlap
    position = struct.unpack_from(order + pointer, content, 8 if big else 4)[0]
    while position and position not in seen:
        if len(seen) >= _MOST_PAGES:
            raise ImageFileError(f"has more than {_MOST_PAGES} pages")
        seen.add(position)
        n_entries = struct.unpack_from(order + count, content, position)[0]
        begin = position + struct.calcsize(order + count)
        after = begin + width * n_entries
        if not 0 < n_entries <= 4096:
            raise ImageFileError(f"has a page of {n_entries} tags")
        tags: dict[str, Any] = {}
        for at in range(begin, after, width):
            left -= _read_tag(content, at, order, pointer, tags)
        if left < 0:
            raise ImageFileError("has pages whose tags overlap")
        page = _Page(tags, order)
        _check_tiles(page)
        yield page
        end = content[after : after + struct.calcsize(pointer)]
        position = int.from_bytes(end, "little" if order == "<" else "big")
    if position:
        raise ImageFileError("has pages that lead in a circle")


def _read_tag(content: mmap.mmap, at: int, order: str, pointer: str, tags: dict[str, Any]) -> int:
    """Add a tag to those of a page; return the bytes that its values take elsewhere."""
    tag, kind, n = struct.unpack_from(f"{order}HH{pointer}", content, at)
    if tag not in _TAGS or kind not in _TAG_TYPES:
        return 0
    form = _TAG_TYPES[kind]
    at += 4 + struct.calcsize(pointer)
    n_bytes = n * struct.calcsize(f"{order}{form}")
    inside = n_bytes <= struct.calcsize(pointer)
    if n > (MOST_TEXT if form == "s" else _MOST_VALUES):
        raise ImageFileError(f"has a tag of {n} values")
    if not inside:
        at = struct.unpack_from(order + pointer, content, at)[0]
    tags[_TAGS[tag]] = (
        content[at : at + n]
        if form == "s"
        else struct.unpack_from(f"{order}{n * len(form)}{form[0]}", content, at)
    )
    return 0 if inside else n_bytes


def _check_tiles(page: _Page) -> None:
    """Refuse tiles that are far larger than their image: a decoder asks for whole tiles."""
    width, length = page.tile
    huge = width > max(1024, 2 * page.width) or length > max(1024, 2 * page.length)
    if huge or width * length * page.samples > _MOST_IN_TILE:
        raise ImageFileError(f"has tiles of {width} x {length} pixels of {page.samples} samples")


def open_tiff(path: Path) -> Picture:
    """Read the header of a TIFF file."""
    return read_header(path, _tiff)


def _tiff(path: Path, content: mmap.mmap) -> Picture:
    every = list(_pages(content))
    pages = [page for page in every if not page.subfile & 5 or page is every[0]]
    if not every:
        raise ImageFileError("has no page")
    page = pages[0]
    if len({p.kind for p in pages}) > 1:
        what = "has pages that differ in size, bits or colours"
        raise ImageFileError(what, "split it into one file for each (`tiffsplit`)")
    packed = sum(sum(p.counts) for p in pages if p.compression != 1)
    if packed > 2 * len(content):  # each would be unpacked
        raise ImageFileError("has strips or tiles that overlap")
    if wrong := _not_read(page):
        raise unread(path, wrong)
    stack = _described(page, len(pages))
    palette = None
    if page.photometric == 3 and not stack.of_imagej:
        shades = np.array(page.colours).reshape(3, -1).T
        palette = without_colour(
            (shades // (256 if shades.max(initial=0) > 255 else 1)).astype(np.uint8)
        )
    n_base = 3 if page.photometric == 2 else 1
    is_alpha = page.extra[-1:] and page.extra[-1] in (1, 2)
    is_alpha = is_alpha or (n_base == 3 and page.samples == 4 and not page.extra)
    return Picture(
        (page.width, page.length, stack.n_slices),
        page.samples * stack.n_channels,
        page.dtype,
        partial(_read_tiff, path, pages, stack),
        alpha=bool(is_alpha) and page.samples > n_base and stack.n_channels == 1,
        palette=palette,
        lossy=page.compression == 7,
        spacing=stack.spacing,
        scratch=8 + (0 if page.bits % 8 == 0 else page.bits),
        notes=tuple(
            turning_notes(path, b"", page.orientation)
            + _notes(page, stack, n_left_out=len(every) - len(pages))
        ),
    )


def _notes(page: _Page, stack: _Stack, *, n_left_out: int) -> list[Flaw]:
    """Note what a user may not expect of how a file is read."""
    notes = []
    if n_left_out:
        what = f"it holds {n_left_out} smaller copies or masks, which are left out"
        notes.append((what, "save them as files of their own if they matter"))
    if page.photometric == 0 and page.bits > 1:
        what = "white is zero in it (TIFF's MinIsWhite); values are kept as they are stored"
        notes.append((what, "invert it if bright is high in the other images"))
    if page.photometric == 3 and stack.of_imagej:
        what = "its colours are only those that ImageJ displays; values are kept as stored"
        notes.append((what, "save it as RGB if they are its channels"))
    if stack.unused:
        notes.append((stack.unused, "state it in NAME.json beside it: {'spacing': [z, y, x]}"))
    return notes


def _not_read(page: _Page) -> str:
    """Why a page cannot be read; empty where it can."""
    kinds = {1: (1, 64), 2: (8, 64), 3: (16, 64), 4: (1, 64)}
    low, high = kinds.get(page.format, (1, 0))
    whole = page.bits in (8, 16, 32, 64)
    if page.width < 1 or page.length < 1 or page.samples < 1 or page.depth != 1:
        return f"is a TIFF of {page.width} x {page.length} x {page.depth} pixels per page"
    if not low <= page.bits <= high or not (whole or (page.bits < 32 and page.format in (1, 4))):
        return "has values of a type that is not read: complex, odd, or different in each sample"
    if page.compression in _BY_ITK:
        jpeg = page.compression == 7 and page.bits == 8 and not page.planar
        if (page.bits, page.samples) == (1, 1) or (jpeg and page.samples in (1, 3)):
            return ""
        return f"has {page.samples} samples in a compression that is not read for them"
    if page.compression not in _DECODERS:
        return f"is compressed by a method that is not read (number {page.compression})"
    if page.photometric in _PHOTOMETRIC:
        return f"holds {_PHOTOMETRIC[page.photometric]} values, not grey or red, green and blue"
    if page.predictor not in (1, 2, 3) or (page.predictor > 1 and not whole):
        return f"has a predictor that is not read ({page.predictor})"
    if page.fill_order != 1 and page.compression != 1:
        return "has its bits in reversed order"
    return ""


@dataclass(frozen=True)
class _Stack:
    """What the pages of a TIFF are, as ImageJ and OME describe it; otherwise slices."""

    n_pages: int
    axes: str = "CZT"  # that which changes fastest first
    sizes: Mapping[str, int] = field(default_factory=dict)
    spacing: tuple[float, float, float] | None = None
    unused: str = ""  # what is stated and not used
    follows: bool = False  # whether pages follow the only one that is listed
    of_imagej: bool = False

    @property
    def n_channels(self) -> int:
        """Pages that are channels of one slice."""
        return self.sizes.get("C", 1)

    @property
    def n_slices(self) -> int:
        """Slices, or points in time."""
        return self.n_pages // self.n_channels

    def arrange(self, pixels: NDArray[Any]) -> NDArray[Any]:
        """Pages (page, y, x, samples) as (z, y, x, samples)."""
        if self.n_channels == 1:
            return pixels
        slow_first = self.axes[::-1]
        apart = pixels.reshape(*(self.sizes[a] for a in slow_first), *pixels.shape[1:])
        turned = np.moveaxis(apart, slow_first.index("C"), -1)
        return turned.reshape(self.n_slices, *pixels.shape[1:3], -1)


def _described(page: _Page, n_pages: int) -> _Stack:
    """Understand the description of the first page."""
    text = page.description.decode("utf-8", "replace")
    if text.startswith("ImageJ="):
        return _imagej(page, n_pages, text)
    found = re.search(r"<(?:\w+:)?Pixels\b([^>]*)>", text)
    return _ome(page, n_pages, found[1]) if found else _Stack(n_pages)


def _imagej(page: _Page, n_pages: int, text: str) -> _Stack:
    stated = dict(re.findall(r"^(\w+)=(.*?)\r?$", text, re.MULTILINE))
    counts = {key: int(value) for key, value in stated.items() if value.isdecimal()}
    keys = (("C", "channels"), ("Z", "slices"), ("T", "frames"))
    sizes = {axis: counts.get(key, 1) for axis, key in keys}
    n_images = counts.get("images", n_pages)
    follows = n_pages == 1 < n_images and page.compression == 1
    stack = _checked_stack(page, n_images if follows else n_pages, "CZT", sizes)
    unit = stated.get("unit", "").replace("\\u00B5", "u").replace("µ", "u").replace("�", "u")
    spacing, unused = None, ""
    if unit in _LENGTHS_MM:
        try:
            depth = abs(float(stated.get("spacing", "1"))) or 1.0
        except ValueError:
            depth = 1.0
        spacing = _usable([edge * _LENGTHS_MM[unit] for edge in (*page.edges, depth)])
    elif unit and unit not in ("pixel", "pixels"):
        unused = f"its resolution in {unit!r:.30} is that of printing and is not used"
    return replace(stack, spacing=spacing, unused=unused, follows=follows, of_imagej=True)


def _ome(page: _Page, n_pages: int, attributes: str) -> _Stack:
    stated = dict(re.findall(r"(\w+)\s*=\s*[\"']([^\"']*)[\"']", attributes))
    sizes = {a: int(stated.get(f"Size{a}") or 1) for a in "CZT"}
    sizes["C"] = max(sizes["C"] // page.samples, 1)
    axes = "".join(a for a in stated.get("DimensionOrder", "XYZCT") if a in "CZT")
    if sorted(axes) != ["C", "T", "Z"]:
        raise ImageFileError("has no order of dimensions in its OME description")
    edges = []
    for axis in "XYZ":
        value, unit = stated.get(f"PhysicalSize{axis}"), stated.get(f"PhysicalSize{axis}Unit", "um")
        scale = _LENGTHS_MM.get(re.sub("µ|μ|&#181;|&#xB5;", "u", unit), 0.0)
        given = value is not None and re.fullmatch(r"[\d.eE+-]{1,40}", value)
        edges.append(float(value or 0) * scale if given else 1.0 if axis == "Z" else 0.0)
    return replace(_checked_stack(page, n_pages, axes, sizes), spacing=_usable(edges))


def _checked_stack(page: _Page, n_pages: int, axes: str, sizes: Mapping[str, int]) -> _Stack:
    """Return a stack whose description agrees with its pages."""
    if math.prod(sizes.values()) != n_pages:
        if n_pages == 1:
            what = f"is one of {math.prod(sizes.values())} parts of an image, by its description"
            raise ImageFileError(what, "save the image as one file")
        return _Stack(n_pages)
    if sizes["T"] > 1 and sizes["Z"] > 1:
        raise ImageFileError("has slices and points in time", "save one file for each time")
    if sizes["C"] > 1 and page.samples > 1:
        raise ImageFileError("has channels in pages and in samples", "save it as one or the other")
    return _Stack(n_pages, axes, sizes)


def _usable(edges: Sequence[float]) -> tuple[float, float, float] | None:
    x, y, z = edges
    return (x, y, z) if all(math.isfinite(e) and e > 0 for e in edges) else None


def _read_tiff(path: Path, pages: list[_Page], stack: _Stack) -> NDArray[Any]:
    first = pages[0]
    if first.compression in _BY_ITK or first.is_plain_lzw:
        pixels = read_by_itk(path, "TIFFImageIO")
        # A bit comes as four times 0 or 255; which of both is white is seen to.
        pixels = (pixels[..., :1] > 0).astype(np.uint8) if first.bits == 1 else pixels
        if len(pixels) == stack.n_pages:
            return stack.arrange(pixels)
        if first.compression in _BY_ITK:  # with its thumbnails, for instance
            raise unread(path, "has pages that are not read in this compression")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        shape = (stack.n_pages, first.length, first.width, first.samples)
        if stack.follows:
            n_bytes = math.prod(shape) * first.bits // 8
            part = content[first.offsets[0] : first.offsets[0] + n_bytes]
            if len(part) < n_bytes or first.planar or first.bits % 8:
                raise ImageFileError(CUT_SHORT)
            stored = first.dtype.newbyteorder(first.order)
            return stack.arrange(np.frombuffer(part, stored).reshape(shape))
        pixels = np.empty(shape, first.dtype)
        for page, out in zip(pages, pixels, strict=True):
            _decode(content, page, out)
    if first.bits == 1 and first.photometric == 0:
        pixels ^= 1
    return stack.arrange(pixels)


def _decode(content: mmap.mmap, page: _Page, out: NDArray[Any]) -> None:
    """Decode the strips or tiles of a page into (y, x, samples)."""
    tiled = all(page.tile)
    width, height = page.tile if tiled else (page.width, page.rows)
    across, down = -(-page.width // width), -(-page.length // height)
    samples = 1 if page.planar else page.samples
    n_blocks = across * down * (page.samples if page.planar else 1)
    counts = page.counts
    row = (width * samples * page.bits + 7) // 8
    if len(page.offsets) < n_blocks:
        raise ImageFileError(CUT_SHORT)
    if page.compression == 1:  # whatever is stated
        counts = (row * height,) * n_blocks
    if len(counts) < n_blocks:
        raise ImageFileError(CUT_SHORT)
    for number in range(n_blocks):
        plane, block = divmod(number, across * down)
        y, x = block // across * height, block % across * width
        n_rows = height if tiled else min(height, page.length - y)
        part = content[page.offsets[number] : page.offsets[number] + counts[number]]
        try:
            data = _DECODERS[page.compression](part, row * n_rows)
        except zlib.error as error:
            raise ImageFileError(f"is damaged ({error})") from error
        if len(data) < row * n_rows:
            raise ImageFileError(CUT_SHORT)
        rows = np.frombuffer(data, np.uint8, row * n_rows).reshape(n_rows, row)
        values = _values(rows, page, width, samples)
        into = out[y : y + n_rows, x : x + width, plane : plane + 1 if page.planar else None]
        into[...] = values[: into.shape[0], : into.shape[1]]


def _values(rows: NDArray[np.uint8], page: _Page, width: int, samples: int) -> NDArray[Any]:
    """Numbers (y, x, samples) of unpacked bytes, the predictor undone."""
    if page.fill_order == 2:
        rows = np.packbits(np.unpackbits(rows, axis=1, bitorder="little"), axis=1)
    n_bytes = page.bits // 8
    if page.bits not in (8, 16, 32, 64):
        return unpack_bits(rows, width * samples, page.bits).reshape(len(rows), width, samples)
    if page.predictor == 3:  # bytes of a row lie by their significance
        summed = np.cumsum(rows.reshape(len(rows), -1, samples), axis=1, dtype=np.uint8)
        apart = summed.reshape(len(rows), n_bytes, width * samples)
        values = np.ascontiguousarray(apart.transpose(0, 2, 1)).view(f">f{n_bytes}")
        return values.reshape(len(rows), width, samples)
    values = rows.view(page.dtype.newbyteorder(page.order)).reshape(len(rows), width, samples)
    if page.predictor == 2:
        whole = np.dtype(f"u{n_bytes}")
        native = values.astype(page.dtype).view(whole)
        values = np.cumsum(native, axis=1, dtype=whole).view(page.dtype)
    return values


def _inflate(data: bytes, size: int) -> bytes:
    return zlib.decompressobj().decompress(data, size + 1)  # with the sum at its end


def _unpack_runs(data: bytes, size: int) -> bytes:
    """PackBits."""
    out, at = bytearray(), 0
    while at < len(data) and len(out) < size:
        head = data[at]
        if head < 128:
            out += data[at + 1 : at + 2 + head]
            at += 2 + head
        else:
            out += data[at + 1 : at + 2] * (257 - head if head > 128 else 0)
            at += 2 if head > 128 else 1
    return bytes(out)


def _unlzw(data: bytes, size: int) -> bytes:
    """LZW as TIFF has it: codes of 9 to 12 bits, the first of them 256, which begins a table."""
    start = [bytes((i,)) for i in range(256)] + [b"", b""]
    table, width, previous = list(start), 9, b""
    out, n_bytes, bits, n_bits = [], 0, 0, 0
    for byte in data:
        bits, n_bits = bits << 8 | byte, n_bits + 8
        if n_bits < width:
            continue
        n_bits -= width
        code = bits >> n_bits
        bits &= (1 << n_bits) - 1
        if code == 256:
            table, width, previous = list(start), 9, b""
            continue
        if code == 257 or n_bytes >= size:
            break
        if code < len(table):
            entry = table[code]
        elif previous and code == len(table):
            entry = previous + previous[:1]
        else:
            raise ImageFileError("is damaged (an undefined LZW code)")
        if previous:
            table.append(previous + entry[:1])
            if len(table) >= (1 << width) - 1 and width < 12:
                width += 1
        out.append(entry)
        n_bytes += len(entry)
        previous = entry
        if len(table) > 4096:
            raise ImageFileError("is damaged (an endless LZW table)")
    return b"".join(out)


_DECODERS: dict[int, Callable[[bytes, int], bytes]] = {
    1: lambda data, size: data,
    5: _unlzw,
    8: _inflate,
    32946: _inflate,
    32773: _unpack_runs,
}
