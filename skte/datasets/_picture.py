"""Pictures (PNG, JPEG, BMP) as the numbers that they store.

Readers of pictures give what a screen shows: the colours of a palette where a label map means
its indices, 255 for a bit, the resolution for printing as the size of a voxel. What a file
stores is therefore found here from its own header; ITK decodes the pixels of PNG and JPEG.
"""

from __future__ import annotations

import mmap
import struct
import tempfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from shlex import quote
from typing import Any

import numpy as np
import SimpleITK as sitk  # noqa: N813 (its own habit; torchio depends on it)
from numpy.typing import NDArray

from skte.datasets._dicom_file import jpeg_frame
from skte.datasets._problem import Flaw, ImageFileError

PICTURE_ENDINGS = (".png", ".jpeg", ".jpg", ".bmp", ".tiff", ".tif")
MOST_TEXT = 2**26  # bytes of the compressed texts of a PNG, unpacked
_MOST_CHUNKS = 1_000_000  # of a PNG
_BMP_MASKS = (0xFF0000, 0xFF00, 0xFF)
_MOST_SCANS = 100  # of a progressive JPEG: encoders write about ten
_CONVERT = "convert it to PNG or plain TIFF (`magick {} {}`)"
CUT_SHORT = "is cut short: its header promises more pixels than the file holds"


@dataclass(frozen=True, eq=False)
class Picture:
    """What the header of a picture says, and how its pixels are read."""

    size: tuple[int, int, int]  # x, y, z
    samples: int  # per pixel, alpha included
    dtype: np.dtype[Any]
    read: Callable[[], NDArray[Any]]  # (z, y, x, samples)
    alpha: bool = False  # whether the last sample is opacity
    palette: NDArray[np.uint8] | None = None  # colours (n, 3), or greys (n, 1), of the indices
    lossy: bool = False
    spacing: tuple[float, float, float] | None = None  # x, y, z in mm, of a microscope
    scratch: int = 0  # bytes for each value that reading takes beyond the value
    notes: tuple[Flaw, ...] = ()

    def n_channels(self, *, label: bool, alpha: bool) -> int:
        """Count channels: an index in a label, colours in an image; `alpha` counts if asked."""
        if self.palette is not None:
            return 1 if label else self.palette.shape[1]
        return self.samples - (self.alpha and not alpha)

    def values(self, *, label: bool, alpha: bool) -> tuple[NDArray[Any], list[Flaw]]:
        """Return values (channels, x, y, z) and notes."""
        pixels, notes = self.read(), list(self.notes)
        if self.palette is not None and not label:
            if pixels.max() >= len(self.palette):
                raise ImageFileError("has pixels beyond its palette")
            pixels = self.palette[pixels[..., 0]]
        elif self.alpha and not alpha:
            opacity, pixels = pixels[..., -1], pixels[..., :-1]
            if opacity.min() != opacity.max():
                what = "its alpha channel differs between pixels and is left out"
                notes.append((what, "store it as a channel of its own if it matters"))
        return pixels.transpose(3, 2, 1, 0), notes


def open_picture(path: Path, start: bytes) -> Picture:
    """Read the header of a PNG, JPEG or BMP; the content decides: many a JPEG is called .png."""
    for magic, read in ((b"\x89PNG\r\n\x1a\n", _png), (b"\xff\xd8\xff", _jpeg), (b"BM", _bmp)):
        if start.startswith(magic):
            return read_header(path, read)
    raise ImageFileError("is not a PNG, JPEG, BMP or TIFF picture", "replace or convert it")


def read_header(path: Path, read: Callable[[Path, mmap.mmap], Picture]) -> Picture:
    """Read the header of a picture from its bytes, which are not all loaded."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        try:
            return read(path, content)
        except (struct.error, IndexError) as error:
            raise ImageFileError(f"is cut short or damaged ({error})") from error


def unread(path: Path, what: str) -> ImageFileError:
    """Error for what is not read, with the command that converts it."""
    return ImageFileError(what, _CONVERT.format(*map(quote, (path.name, f"{path.stem}.png"))))


def read_by_itk(path: Path, reader: str) -> NDArray[Any]:
    """Pixels (z, y, x, samples) that ITK reads."""
    image = sitk.ReadImage(str(path), imageIO=reader)
    pixels = np.array(sitk.GetArrayViewFromImage(image))
    if image.GetNumberOfComponentsPerPixel() == 1:
        pixels = pixels[..., None]
    return pixels if pixels.ndim == 4 else pixels[None]


def without_colour(palette: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a palette (n, 3), as (n, 1) where it has no colour."""
    return palette[:, :1] if (palette == palette[:, :1]).all() else palette


# PNG.


def _png(path: Path, content: mmap.mmap) -> Picture:
    chunks = _chunks(content)
    width, height, bits, colour = struct.unpack_from(">IIBB", content, 16)
    parts = {kind: content[begin + 8 : end - 4] for kind, begin, end in chunks if kind != b"IDAT"}
    samples = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}.get(colour, 0)
    if not (samples and width and height and bits in (1, 2, 4, 8, 16)):
        raise ImageFileError(
            f"states the colour type {colour} with {bits} bits, which PNG does not allow"
        )
    palette, notes = None, turning_notes(path, parts.get(b"eXIf", b""))
    if colour == 3:
        colours = parts.get(b"PLTE", b"")
        palette = without_colour(
            np.frombuffer(colours[: len(colours) // 3 * 3], np.uint8).reshape(-1, 3)
        )
    if any(byte != 255 for byte in parts.get(b"tRNS", b"")):
        what = "it names a transparent colour, which is kept like any other"
        notes.append((what, "store a mask as a channel of its own if it matters"))
    plain = [span for span in chunks if span[0] in (b"IHDR", b"IDAT", b"IEND")]
    # What ITK shows otherwise, or fails on, it reads under the name of a kind of as many bytes.
    stand_in = {3: (bits, 0), 4: {8: (16, 0), 16: (8, 6)}.get(bits, (bits, colour))}.get(colour)
    if stand_in is None and parts.keys() & {b"tRNS", b"sBIT"}:  # it shifts by those bits
        stand_in = bits, colour
    return Picture(
        (width, height, 1),
        samples,
        np.dtype(np.uint16 if bits == 16 else np.uint8),
        partial(_read_png, path, (bits, colour), stand_in, plain),
        alpha=colour in (4, 6),
        palette=palette,
        notes=tuple(notes),
    )


def _chunks(content: mmap.mmap) -> list[tuple[bytes, int, int]]:
    """Kind, begin and end of each chunk; texts that unpack to too much are refused."""
    position, text = 8, 0
    chunks: list[tuple[bytes, int, int]] = []
    while position + 8 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, position)
        chunks.append((kind, position, min(position + 12 + length, len(content))))
        if len(chunks) > _MOST_CHUNKS:
            raise ImageFileError(f"has more than {_MOST_CHUNKS} chunks")
        if kind in (b"zTXt", b"iTXt", b"iCCP"):  # the reader unpacks them all
            part = content[position + 8 : position + 8 + length]
            text += length + _unpacked(kind, part, MOST_TEXT - text)
            if text >= MOST_TEXT:
                raise ImageFileError(f"holds more than {MOST_TEXT} bytes of compressed text")
        position += 12 + length
    return chunks


def _read_png(
    path: Path,
    kind: tuple[int, int],
    stand_in: tuple[int, int] | None,
    chunks: list[tuple[bytes, int, int]],
) -> NDArray[Any]:
    """Pixels as stored; `kind` and `stand_in` are bits and colour types."""
    bits, colour = kind
    pixels = read_by_itk(path, "PNGImageIO") if stand_in is None else _as_if(path, stand_in, chunks)
    if bits < 8:
        pixels //= 255 // (2**bits - 1)  # ITK spreads them over 8 bits
    if colour == 4 and bits == 8:
        pixels = np.concatenate([pixels >> 8, pixels & 255], axis=-1).astype(np.uint8)
    if colour == 4 and bits == 16:
        pixels = pixels[..., ::2].astype(np.uint16) << 8 | pixels[..., 1::2]
    return pixels


def _as_if(path: Path, kind: tuple[int, int], chunks: list[tuple[bytes, int, int]]) -> NDArray[Any]:
    """Pixels of a copy of some chunks, whose header states other bits and another colour type."""
    content = path.read_bytes()
    with tempfile.TemporaryDirectory(prefix="skte-") as folder:
        copy = Path(folder) / "a.png"
        with copy.open("wb") as file:
            file.write(content[:8])
            for name, begin, end in chunks:
                chunk = content[begin:end]
                if name == b"IHDR":
                    chunk = chunk[:16] + bytes(kind) + chunk[18:-4]
                    chunk += struct.pack(">I", zlib.crc32(chunk[4:]))
                file.write(chunk)
        return read_by_itk(copy, "PNGImageIO")


def _unpacked(kind: bytes, chunk: bytes, most: int) -> int:
    """Bytes that the text of a chunk becomes, as far as `most`."""
    _, _, rest = chunk.partition(b"\0")
    if kind == b"iTXt":  # flag, method, language, translated keyword
        if not rest.startswith(b"\1"):
            return 0
        rest = rest[1:].split(b"\0", 2)[-1]
    stream, rest, n_bytes = zlib.decompressobj(), rest[1:], 0
    try:
        while rest and n_bytes < most:
            n_bytes += len(stream.decompress(rest, 2**20))
            rest = stream.unconsumed_tail
    except zlib.error:  # the reader warns, and goes on without it
        pass
    return n_bytes


# JPEG and BMP.


def _jpeg(path: Path, content: mmap.mmap) -> Picture:
    scans, progressive, position = 0, content.find(b"\xff\xc2") >= 0, -1
    while (position := content.find(b"\xff\xda", position + 1)) >= 0:
        scans += 1
        if scans > _MOST_SCANS:
            raise ImageFileError(f"has more than {_MOST_SCANS} scans, more than a JPEG needs")
    if content.rfind(b"\xff\xd9") < content.rfind(b"\xff\xda"):  # ITK fills the rest with grey
        raise ImageFileError("is cut short: its end is missing")
    try:
        height, width, samples = jpeg_frame(content)
    except ValueError as error:
        raise ImageFileError(str(error)) from error
    if samples not in (1, 3):
        what = f"has {samples} samples per pixel, as CMYK pictures for printing have"
        raise unread(path, what)
    exif = content.find(b"Exif\0\0", 0, 2**16)
    return Picture(
        (width, height, 1),
        samples,
        np.dtype(np.uint8),
        partial(read_by_itk, path, "JPEGImageIO"),
        lossy=True,
        scratch=2 if progressive else 0,
        notes=tuple(
            turning_notes(path, content[exif + 6 : exif + 6 + 2**16] if exif >= 0 else b"")
        ),
    )


def turning_notes(path: Path, exif: bytes, stated: int = 0) -> list[Flaw]:
    """Note that a camera says how a picture is to be shown."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if order and len(exif) >= 8:
        at = struct.unpack_from(f"{order}I", exif, 4)[0]
        n_entries = struct.unpack_from(f"{order}H", exif, at)[0] if at + 2 <= len(exif) else 0
        for begin in range(at + 2, min(at + 2 + 12 * n_entries, len(exif) - 11), 12):
            if struct.unpack_from(f"{order}HH", exif, begin) == (274, 3):
                stated = struct.unpack_from(f"{order}H", exif, begin + 8)[0]
    if stated in (0, 1):
        return []
    what = f"it states that viewers should rotate it (orientation {stated}), which is not done"
    name = quote(path.name)
    remedy = f"if its label was drawn upright, `magick {name} -auto-orient {name}`"
    return [(what, remedy)]


def _bmp(path: Path, content: mmap.mmap) -> Picture:
    offset, size = (
        struct.unpack_from("<I", content, 10)[0],
        struct.unpack_from("<I", content, 14)[0],
    )
    width, height, _, bits, packing = struct.unpack_from("<iiHHI", content, 18)
    masks = struct.unpack_from("<III", content, 54) if packing in (3, 6) else _BMP_MASKS
    if size < 40 or packing not in (0, 3, 6) or masks != _BMP_MASKS or (packing and bits != 32):
        what = f"is a BMP picture of compression {packing} and {bits} bits, which is not read"
        raise unread(path, what)
    if bits not in (1, 4, 8, 24, 32) or width < 1 or not height:
        raise unread(path, f"is a BMP picture of {width} x {height} pixels of {bits} bits")
    row = (width * bits + 31) // 32 * 4
    if offset + row * abs(height) > len(content):
        raise ImageFileError(CUT_SHORT)
    palette: NDArray[np.uint8] | None = None
    dark = 0  # the bit that is black
    if bits <= 8:
        n_colours = min(struct.unpack_from("<I", content, 46)[0] or 2**bits, 2**bits)
        colours = np.frombuffer(content[14 + size : 14 + size + 4 * n_colours], np.uint8)
        palette = without_colour(colours[: len(colours) // 4 * 4].reshape(-1, 4)[:, 2::-1])
        if bits == 1 and palette.tolist() in ([[0], [255]], [[255], [0]]):
            dark, palette = int(palette[0, 0] == 255), None
    return Picture(
        (width, abs(height), 1),
        max(bits // 8, 1),
        np.dtype(np.uint8),
        partial(_read_bmp, path, offset, (height, width, bits, row), dark),
        alpha=bits == 32,
        palette=palette,
        scratch=8,
    )


def _read_bmp(path: Path, offset: int, shape: tuple[int, int, int, int], dark: int) -> NDArray[Any]:
    height, width, bits, row = shape
    stored = np.fromfile(path, np.uint8, row * abs(height), offset=offset)
    rows = stored.reshape(abs(height), row)[:: -1 if height > 0 else 1]
    if bits <= 8:
        return (unpack_bits(rows, width, bits)[..., None] ^ np.uint8(dark))[None]
    pixels = rows[:, : width * bits // 8].reshape(abs(height), width, bits // 8)
    return pixels[None, ..., [2, 1, 0, 3][: bits // 8]]  # they are blue, green, red, alpha


def unpack_bits(rows: NDArray[np.uint8], n: int, bits: int) -> NDArray[Any]:
    """Return the first `n` numbers of some bits of each row, the highest bit first."""
    kind = np.dtype(np.uint8 if bits <= 8 else np.uint16 if bits <= 16 else np.uint32)
    if bits == 8:
        return rows[:, :n].copy()
    each = np.unpackbits(rows, axis=1, count=n * bits).reshape(len(rows), n, bits)
    result = np.zeros((len(rows), n), kind)
    for bit in range(bits):
        result = (result << 1) | each[..., bit]
    return result
