"""Image bombs, lying headers and paths that lead out, each in a child process.

Every hostile input must end in an error of skte's own that names the case, within the limits
of memory and time; the honest counterpart of every kind must load.
"""

from __future__ import annotations

import bz2
import gzip
import multiprocessing
import os
import resource
import struct
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from skte.datasets import inspect_dataset, load_dataset
from skte.exceptions import DatasetError

__all__ = ["ATTACKS", "HONEST", "run", "try_one_image"]

_MEMORY, _SECONDS = 500, 5.0  # MB of growth, and seconds of the process itself
_ROOM = 6 * 2**30  # address space beyond what the process has; more is a failure
_SHAPE = (12, 10, 6)
Write = Callable[[Path, np.random.Generator], None]


def _arrays(rng: np.random.Generator) -> tuple[Any, Any]:
    label = np.zeros(_SHAPE, np.uint8)
    label[2:6, 2:6], label[7:10, 3:8] = 1, 2
    return rng.integers(0, 200, _SHAPE).astype(np.uint8) + label, label


def _dims(rng: np.random.Generator, n_axes: int = 3) -> list[int]:
    """Edges of a volume of 1 to 1000 GB."""
    return [int(n) for n in rng.integers(1100, 10_000, n_axes)]


# Formats: bytes of a file that states a shape and holds some content.


def nifti(
    shape: Any, content: bytes = b"", kind: tuple[int, int] = (2, 1), **changes: float
) -> bytes:
    """NIfTI-1 with the fields that `changes` names by offset and format, ``o108f=352``."""
    header = bytearray(352)
    dims = [len(shape), *shape, *[1] * (7 - len(shape))]
    struct.pack_into("<i", header, 0, 348)
    struct.pack_into("<8h", header, 40, *(((d + 2**15) % 2**16) - 2**15 for d in dims))
    struct.pack_into("<2h", header, 70, kind[0], 8 * kind[1])
    struct.pack_into("<8f", header, 76, *[1.0] * 8)
    struct.pack_into("<f", header, 108, 352.0)
    struct.pack_into("<2h", header, 252, 0, 2)
    for row in range(3):
        struct.pack_into("<4f", header, 280 + 16 * row, *np.eye(4)[row])
    header[344:348] = b"n+1\0"
    for field, value in changes.items():
        struct.pack_into(f"<{field[-1]}", header, int(field[1:-1]), value)
    return bytes(header) + content


def mgh(shape: Any, content: bytes = b"", kind: int = 0) -> bytes:
    head = struct.pack(">7i", 1, *shape, *[1] * (4 - len(shape)), kind, 0)
    affine = struct.pack(">h15f", 1, 1, 1, 1, *np.eye(3).ravel(), 0, 0, 0)
    return (head + affine).ljust(284, b"\0") + content


def nrrd(shape: Any, content: bytes = b"", encoding: str = "raw", more: str = "") -> bytes:
    sizes = " ".join(map(str, shape))
    text = f"NRRD0004\ntype: uchar\ndimension: {len(shape)}\nsizes: {sizes}\n"
    if len(shape) == 3:
        text += "space: left-posterior-superior\nspace origin: (0,0,0)\n"
        text += "space directions: (1,0,0) (0,1,0) (0,0,1)\n"
    return f"{text}encoding: {encoding}\n{more}\n".encode() + content


def meta(shape: Any, content: bytes = b"", data: str = "LOCAL", more: str = "") -> bytes:
    sizes = " ".join(map(str, shape))
    return (
        f"ObjectType = Image\nNDims = {len(shape)}\nBinaryData = True\n{more}DimSize = {sizes}\n"
        f"ElementType = MET_UCHAR\nElementDataFile = {data}\n"
    ).encode() + content


def gipl(shape: Any, content: bytes = b"") -> bytes:
    head = struct.pack(">4HH4f", *shape, 1, 8, 1, 1, 1, 1).ljust(252, b"\0")
    return head + struct.pack(">I", 719555000) + content


def vtk(shape: Any, content: bytes = b"") -> bytes:
    x, y, z = shape
    return (
        f"# vtk DataFile Version 3.0\nx\nBINARY\nDATASET STRUCTURED_POINTS\nDIMENSIONS {x} {y} {z}"
        f"\nSPACING 1 1 1\nORIGIN 0 0 0\nPOINT_DATA {x * y * z}\nSCALARS s unsigned_char 1\n"
        "LOOKUP_TABLE default\n"
    ).encode() + content


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, rows: bytes = b"", color: int = 0, more: bytes = b"") -> bytes:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, color, 0, 0, 0))
    end = chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + head + more + end


def jpeg(width: int, height: int, frame: int = 0xC0, scans: int = 1) -> bytes:
    parts = bytes([1, 0x11, 0, 2, 0x11, 0, 3, 0x11, 0])
    head = b"\xff" + bytes([frame]) + struct.pack(">HBHHB", 17, 8, height, width, 3) + parts
    scan = b"\xff\xda\0\x0c\3\1\0\2\0\3\0\0\x3f\0" + b"\0" * 20
    return b"\xff\xd8" + head + scan * scans + b"\xff\xd9"


def bmp(width: int, height: int, bits: int = 8, packed: int = 0) -> bytes:
    head = struct.pack("<IHHI", 1100, 0, 0, 1078)
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, packed, 0, 1, 1, 256, 0)
    return b"BM" + head + info + bytes(1024) + bytes(64)


def tiff(
    pages: list[list[tuple[int, int, int, int]]], after: int = 0, content: bytes = b""
) -> bytes:
    """Pages of entries (tag, type, count, value); the last leads to `after`."""
    start = 8 + len(content)
    out = b"II*\0" + struct.pack("<I", start) + content
    for number, entries in enumerate(pages):
        end = len(out) + 2 + 12 * len(entries) + 4
        follows = end if number + 1 < len(pages) else after
        body = b"".join(struct.pack("<HHII", *entry) for entry in sorted(entries))
        out += struct.pack("<H", len(entries)) + body + struct.pack("<I", follows)
    return out


def page(width: int, height: int, *more: tuple[int, int, int, int], packed: int = 1) -> Any:
    known = {256: width, 257: height, 258: 8, 259: packed, 262: 1, 273: 8, 277: 1, 278: height}
    entries = {tag: (tag, 4, 1, value) for tag, value in known.items()}
    entries[279] = (279, 4, 1, min(width * height, 2**31))
    return list((entries | {entry[0]: entry for entry in more}).values())


def bigtiff(width: int, height: int, after: int = 0) -> bytes:
    values = {256: width, 257: height, 258: 8, 259: 1, 262: 1, 273: 16, 277: 1, 278: height, 279: 8}
    body = b"".join(struct.pack("<HHQQ", tag, 16, 1, value) for tag, value in values.items())
    return (
        b"II+\0\x08\0\0\0" + struct.pack("<QQ", 16, len(values)) + body + struct.pack("<Q", after)
    )


def element(group: int, tag: int, kind: bytes, value: bytes, length: int | None = None) -> bytes:
    n = len(value) if length is None else length
    long = kind in (b"OB", b"OW", b"SQ", b"UN", b"UT")
    size = b"\0\0" + struct.pack("<I", n) if long else struct.pack("<H", n)
    return struct.pack("<HH", group, tag) + kind + size + value


def dicom(
    rows: int, columns: int, pixels: bytes = b"", *, more: bytes = b"", frames: int = 0,
    syntax: bytes = b"1.2.840.10008.1.2.1\0", n_pixels: int | None = None, place: float = 0,
) -> bytes:  # fmt: skip
    sop = b"1.2.840.10008.5.1.4.1.1.2\0"
    start = element(2, 2, b"UI", sop) + element(2, 3, b"UI", b"1.2.3\0")
    start += element(2, 0x10, b"UI", syntax)
    body = element(8, 0x16, b"UI", sop) + element(8, 0x18, b"UI", b"1.2.3\0") + more
    position = f"0\\0\\{place:.2f}".encode()
    for tag, kind, value in (
        (0x0D, b"UI", b"1.2\0"), (0x0E, b"UI", b"1.22"),
        (0x32, b"DS", position + b" " * (len(position) % 2)), (0x37, b"DS", b"1\\0\\0\\0\\1\\0 "),
    ):  # fmt: skip
        body += element(0x20, tag, kind, value)
    body += element(0x28, 2, b"US", b"\1\0") + element(0x28, 4, b"CS", b"MONOCHROME2 ")
    if frames:
        text = str(frames).encode()
        body += element(0x28, 8, b"IS", text + b" " * (len(text) % 2))
    numbers = ((0x10, rows), (0x11, columns), (0x100, 8), (0x101, 8), (0x102, 7), (0x103, 0))
    for tag, number in numbers:
        body += element(0x28, tag, b"US", struct.pack("<H", number))
    body += element(0x7FE0, 0x10, b"OB", pixels, n_pixels)
    return bytes(128) + b"DICM" + element(2, 0, b"UL", struct.pack("<I", len(start))) + start + body


def _nested(depth: int) -> bytes:
    return (b"\x08\0\x40\x11SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\0\xe0\xff\xff\xff\xff") * depth


def _frame(image: bytes) -> bytes:
    size = struct.pack("<I", len(image) + len(image) % 2)
    item = b"\xfe\xff\0\xe0"
    return (
        item
        + bytes(4)
        + item
        + size
        + image
        + b"\0" * (len(image) % 2)
        + b"\xfe\xff\xdd\xe0"
        + bytes(4)
    )


def _j2k(width: int, height: int, tile: int) -> bytes:
    size = struct.pack(">HHIIIIIIIIH", 41, 0, width, height, 0, 0, tile, tile, 0, 0, 1) + b"\7\1\1"
    return b"\xff\x4f\xff\x51" + size + b"\xff\xd9"


# Kinds of attack: ending and content of the image (or of the label) of one case.


def _bombs(rng: np.random.Generator) -> Iterator[tuple[str, str, bytes]]:
    """Volumes whose honest header asks for more than the file is worth."""
    dims = _dims(rng)
    zeros = bytes(int(rng.integers(10_000, 400_000)))
    yield "NIfTI", ".nii.gz", gzip.compress(nifti(dims, zeros))
    yield "NIfTI", ".nii.gz", gzip.compress(nifti([*dims, 40], zeros, kind=(64, 8)))
    yield "NIfTI, gzip of gzip", ".nii.gz", gzip.compress(gzip.compress(nifti(dims, zeros)))
    yield "MGH", ".mgz", gzip.compress(mgh(dims, zeros))
    for encoding, pack in (("gzip", gzip.compress), ("bzip2", bz2.compress)):
        yield f"NRRD, {encoding}", ".nrrd", nrrd(dims, pack(zeros), encoding)
    yield "NRRD, hex", ".nrrd", nrrd(dims, zeros[:100].hex().encode(), "hex")
    yield "NRRD, ascii", ".nrrd", nrrd(dims, b"1 2 3 4", "ascii")
    packed = zlib.compress(zeros)
    more = f"CompressedData = True\nCompressedDataSize = {len(packed)}\n"
    yield "MetaImage", ".mha", meta(dims, packed, more=more)
    yield "VTK", ".vtk", vtk(dims, zeros[:1000])
    wide, high = (int(n) for n in rng.integers(25_000, 65_000, 2))
    yield "PNG", ".png", png(wide, high, zeros, int(rng.choice([0, 2, 4, 6])))
    yield "JPEG", ".jpg", jpeg(wide, high)
    yield "JPEG, progressive", ".jpg", jpeg(wide, high, 0xC2)
    yield "BMP, run lengths", ".bmp", bmp(wide, high, packed=1)
    yield "TIFF", ".tif", tiff([page(wide, high, packed=8)], content=zeros[:1000])
    yield "TIFF, pages", ".tif", tiff([page(9000, 9000, packed=5)] * 30)
    yield "TIFF, tiles", ".tif", tiff([page(wide, high, (322, 4, 1, 65_520), (323, 4, 1, 65_520))])
    yield "BigTIFF", ".tif", bigtiff(wide, high)
    yield "DICOM", ".dcm", dicom(wide, high, zeros[:100])
    yield "DICOM, frames", ".dcm", dicom(4000, 4000, zeros[:100], frames=100_000)
    rle = b"1.2.840.10008.1.2.5\0"
    yield (
        "DICOM, run lengths",
        ".dcm",
        dicom(wide, high, _frame(bytes(64)), syntax=rle, n_pixels=2**32 - 1),
    )


def _lies(rng: np.random.Generator) -> Iterator[tuple[str, str, bytes]]:
    """Headers that contradict themselves or their file."""
    dims = _dims(rng)
    volume = bytes(_arrays(rng)[0].tobytes("F"))
    big = int(rng.integers(2**30, 2**31 - 1))
    yield "NIfTI, cut short", ".nii", nifti(dims, volume)
    yield "NIfTI, negative size", ".nii", nifti((-dims[0], *_SHAPE[1:]), volume)
    yield "NIfTI, seven axes", ".nii.gz", gzip.compress(nifti([30] * 7, volume))
    yield "NIfTI, no axes", ".nii", nifti(_SHAPE, volume, o40h=0)
    yield "NIfTI, many axes", ".nii", nifti(_SHAPE, volume, o40h=int(rng.integers(8, 30_000)))
    yield "NIfTI, offset", ".nii", nifti(_SHAPE, volume, o108f=float(big))
    extension = struct.pack("<2i", big // 16 * 16, 6) + volume
    extended = nifti(_SHAPE, extension, o108f=float(big), o348b=1)
    yield "NIfTI, offset and extension", ".nii.gz", gzip.compress(extended)
    yield "NIfTI, negative offset", ".nii", nifti(_SHAPE, volume, o108f=-float(big))
    yield "NIfTI, offset not a number", ".nii", nifti(_SHAPE, volume, o108f=float("nan"))
    yield "NIfTI, scale", ".nii", nifti(_SHAPE, volume, o112f=1.0, o116f=float("inf"))
    yield (
        "NIfTI, unknown type",
        ".nii",
        nifti(_SHAPE, volume, kind=(int(rng.integers(3000, 30_000)), 1)),
    )
    yield "NIfTI, not packed", ".nii.gz", nifti(_SHAPE, volume)
    yield "MGH, negative size", ".mgz", gzip.compress(mgh((-5, 5, 5), volume))
    yield "MGH, overflow", ".mgz", gzip.compress(mgh((65_536, 65_536, 65_536), volume))
    yield "MGH, type", ".mgh", mgh(_SHAPE, volume, kind=77)
    yield (
        "NRRD, block",
        ".nrrd",
        nrrd(_SHAPE, volume, more=f"block size: {big}\n").replace(b"uchar", b"block"),
    )
    yield "NRRD, skips", ".nrrd", nrrd(_SHAPE, volume, more=f"line skip: {big}\n")
    yield "NRRD, bytes skipped", ".nrrd", nrrd(_SHAPE, volume, more=f"byte skip: {big}{big}\n")
    yield "NRRD, pattern of files", ".nrrd", nrrd(_SHAPE, more=f"data file: x%d.raw 1 {big} 1\n")
    yield (
        "NRRD, list of files",
        ".nrrd",
        nrrd(_SHAPE, b"a\n" * 400_000, more="data file: LIST\n")[:-1],
    )
    yield "NRRD, overflow", ".nrrd", nrrd((2**22, 2**22, 2**22), volume, "gzip")
    yield "NRRD, axes", ".nrrd", nrrd((2,) * 16, volume)
    yield (
        "NRRD, control characters",
        ".nrrd",
        nrrd(_SHAPE, volume, more="data file:\x0b/etc/passwd\n"),
    )
    yield (
        "MetaImage, axes",
        ".mha",
        meta(_SHAPE, volume).replace(b"NDims = 3", f"NDims = {big}".encode()),
    )
    yield (
        "MetaImage, size",
        ".mha",
        meta(_SHAPE, volume, more=f"CompressedData = True\nCompressedDataSize = {big}{big}\n"),
    )
    yield "MetaImage, pattern", ".mha", meta(_SHAPE, data=f"x%d.raw 1 {big} 1")
    yield "MetaImage, twice", ".mha", meta(_SHAPE, volume, more="DimSize = 1 1 1\n")
    yield "MetaImage, endless header", ".mha", b"ObjectType = Image\nComment = " + b"a" * 3_000_000
    yield (
        "MetaImage, channels",
        ".mha",
        meta(_SHAPE, volume, more=f"ElementNumberOfChannels = {big}\n"),
    )
    yield "GIPL, cut short", ".gipl", gipl(dims, volume)
    yield "VTK, negative", ".vtk", vtk((-3, 4, 5), volume)
    text = _packed_zeros(7_900_000)
    many = b"".join(chunk(b"zTXt", b"k%d\0\0" % i + text) for i in range(300))
    yield "PNG, texts", ".png", png(10, 12, bytes(132), more=many)
    profile = chunk(b"iCCP", b"p\0\0" + _packed_zeros(200_000_000))
    yield "PNG, profile", ".png", png(10, 12, bytes(132), more=profile)
    yield "PNG, zero", ".png", png(0, 12, b"")
    yield "PNG, cut short", ".png", png(12, 10)[:30]
    yield "JPEG, scans", ".jpg", jpeg(4000, 4000, 0xC2, scans=20_000)
    yield "BMP, lowest numbers", ".bmp", bmp(-(2**31), -(2**31))
    yield "TIFF, circle", ".tif", tiff([page(10, 12)], after=8)
    yield "TIFF, page beyond", ".tif", tiff([page(10, 12)], after=big)
    yield (
        "TIFF, counts",
        ".tif",
        tiff([page(dims[0] * 40, dims[1] * 40, (270, 2, 2**32 - 16, 8), (273, 4, 2**31, 8))]),
    )
    yield "BigTIFF, circle", ".tif", bigtiff(10, 12, after=16)
    yield (
        "DICOM, length",
        ".dcm",
        dicom(10, 12, bytes(120), more=element(9, 1, b"OB", b"", 2**32 - 16)),
    )
    yield "DICOM, pixels", ".dcm", dicom(10, 12, bytes(9), n_pixels=2**32 - 16)
    yield (
        "DICOM, nested",
        ".dcm",
        dicom(10, 12, bytes(120), more=_nested(int(rng.integers(20_000, 90_000)))),
    )
    yield "DICOM, deflated", ".dcm", dicom(10, 12, bytes(120), syntax=b"1.2.840.10008.1.2.1.99")
    for name, number, image in (
        ("JPEG", b"50", jpeg(60_000, 60_000)), ("JPEG 2000", b"90", _j2k(60_000, 60_000, 60_000)),
        ("JPEG 2000 tiles", b"90", _j2k(12, 10, 0)),
    ):  # fmt: skip
        syntax = b"1.2.840.10008.1.2.4." + number
        yield (
            f"DICOM, {name} frame",
            ".dcm",
            dicom(10, 12, _frame(image), syntax=syntax, n_pixels=2**32 - 1),
        )
    yield "web page", ".nii.gz", b"<!DOCTYPE html><html></html>"
    yield (
        "Git LFS",
        ".nii.gz",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
    )
    yield "empty", ".nii.gz", b""
    yield "other format", ".mnc", b"CDF\1" + bytes(100)
    yield "HDF5", ".h5", b"\x89HDF\r\n\x1a\n" + bytes(100)


@cache
def _packed_zeros(n_bytes: int) -> bytes:
    return zlib.compress(bytes(n_bytes))


def _case(folder: Path, rng: np.random.Generator, ending: str, content: bytes, part: str) -> Path:
    """Write one case whose image or label is the given file, listed in a table."""
    image, label = _arrays(rng)
    (folder / "image.nii").write_bytes(nifti(_SHAPE, image.tobytes("F")))
    (folder / "label.nii").write_bytes(nifti(_SHAPE, label.tobytes("F")))
    files = {"image": "image.nii", "label": "label.nii"} | {part: f"bad{ending}"}
    (folder / files[part]).write_bytes(content)
    table = folder / "cases.csv"
    table.write_text(f"case_id,image,label\nbad,{files['image']},{files['label']}\n")
    return table


def _escapes() -> dict[str, Write]:
    """Paths and links that lead out of the folder of the table."""

    def listed(path: str) -> Write:
        def write(folder: Path, rng: np.random.Generator) -> None:
            _case(folder, rng, ".nii", b"", "image")
            (folder / "cases.csv").write_text(f"case_id,image,label\nbad,{path},label.nii\n")

        return write

    def detached(ending: str, content: bytes) -> Write:
        return lambda folder, rng: _case(folder, rng, ending, content, "image") and None

    def special(make: Callable[[Path], object]) -> Write:
        def write(folder: Path, rng: np.random.Generator) -> None:
            _case(folder, rng, ".nii", b"", "image")
            (folder / "bad.nii").unlink()
            make(folder / "bad.nii")

        return write

    out = "../../../../../../../../etc/passwd"
    escapes = {
        "absolute path": listed("/etc/passwd"),
        "path upwards": listed(out),
        "path of a device": listed("/dev/zero"),
        "link out": special(lambda path: path.symlink_to("/etc/passwd")),
        "link to a device": special(lambda path: path.symlink_to("/dev/zero")),
        "link to nothing": special(lambda path: path.symlink_to(".git/annex/objects/a/b/key")),
        "link in a circle": special(lambda path: path.symlink_to("bad.nii")),
        "named pipe": special(os.mkfifo),
        "folder": special(Path.mkdir),
    }
    for target in ("/etc/passwd", out, "/dev/zero", "missing.raw"):
        for ending in (".mhd", ".mha"):
            escapes[f"MetaImage {ending}: {target}"] = detached(ending, meta(_SHAPE, data=target))
        for ending in (".nhdr", ".nrrd"):
            more = f"data file: {target}\n"
            escapes[f"NRRD {ending}: {target}"] = detached(ending, nrrd(_SHAPE, more=more))
        listed_meta = meta(_SHAPE, f"{target}\n".encode() * 6, data="LIST")
        escapes[f"MetaImage list: {target}"] = detached(".mhd", listed_meta)
        in_list = nrrd(_SHAPE, f"{target}\n".encode() * 6, more="data file: LIST 2\n")
        escapes[f"NRRD list: {target}"] = detached(
            ".nhdr", in_list.replace(b"LIST 2\n\n", b"LIST 2\n")
        )
        spaced = meta(_SHAPE, data=target).replace(b"ElementDataFile = ", b"elementdatafile:")
        escapes[f"MetaImage spelled otherwise: {target}"] = detached(".mhd", spaced)
        spaced = nrrd(_SHAPE, more=f"Data File : {target}\n")
        escapes[f"NRRD spelled otherwise: {target}"] = detached(".nhdr", spaced)
    return escapes


def _image_attack(number: int, which: int, part: str, make: Any) -> Write:
    def write(folder: Path, rng: np.random.Generator) -> None:
        _, ending, content = next(islice(make(np.random.default_rng(number)), which, None))
        _case(folder, rng, ending, content, part)

    return write


def _attacks() -> dict[tuple[str, str], Write]:
    found: dict[tuple[str, str], Write] = {}
    for door, make in (("bombs", _bombs), ("lies", _lies)):
        kinds = [name for name, *_ in make(np.random.default_rng(0))]
        for which, name in enumerate(kinds):
            for number, part in enumerate(("image", "label", "image")):
                key = (door, f"{name} ({part}, {number}, {which})")
                found[key] = _image_attack(number, which, part, make)
    found |= {("paths", name): write for name, write in _escapes().items()}
    return found


def _honest() -> dict[str, Write]:
    """A sound file of every kind that is read."""

    def volume(ending: str, make: Callable[[Any], bytes], beside: str = "") -> Write:
        def write(folder: Path, rng: np.random.Generator) -> None:
            values = _arrays(rng)[0].tobytes("F")
            table = _case(folder, rng, ending, make(values), "image")
            if beside:
                folder.joinpath(beside).write_bytes(values)
            label = folder / "label.nii"
            if ending in (".mha", ".mhd", ".nrrd", ".nhdr", ".gipl"):  # of the other hand
                label.write_bytes(_flipped(label.read_bytes()))
            table.touch()

        return write

    return {
        "NIfTI": volume(".nii", lambda v: nifti(_SHAPE, v)),
        "NIfTI, gzip": volume(".nii.gz", lambda v: gzip.compress(nifti(_SHAPE, v))),
        "NRRD": volume(".nrrd", lambda v: nrrd(_SHAPE, v)),
        "NRRD, gzip": volume(".nrrd", lambda v: nrrd(_SHAPE, gzip.compress(v), "gzip")),
        "NRRD, detached": volume(
            ".nhdr", lambda v: nrrd(_SHAPE, more="data file: x.raw\n"), "x.raw"
        ),
        "MetaImage": volume(".mha", lambda v: meta(_SHAPE, v)),
        "MetaImage, detached": volume(".mhd", lambda v: meta(_SHAPE, data="x.raw"), "x.raw"),
        "GIPL": volume(".gipl", lambda v: gipl(_SHAPE, v)),
    }


def _flipped(content: bytes) -> bytes:
    """NIfTI with the affine of formats whose axes point left and back."""
    header = bytearray(content)
    struct.pack_into("<f", header, 280, -1.0)
    struct.pack_into("<f", header, 300, -1.0)
    return bytes(header)


ATTACKS, HONEST = _attacks(), _honest()


def run(smoke: bool, seed: int) -> dict[str, Any]:
    """Try every attack, or one in ten, and every honest file."""
    keys = list(ATTACKS)[:: 40 if smoke else 1] + [("honest", name) for name in HONEST]
    outcomes = {key: try_one_image(*key, seed) for key in keys}
    rows = []
    for part, attack in _ATTACK.items():
        texts = {name: text for (door, name), (text, *_) in outcomes.items() if door == part}
        problems = [f"{name}: {text}" for name, text in texts.items() if text]
        held = len(texts) - len(problems)
        rows.append(
            {"attack": attack, "tried": len(texts), "held": held, "problems": problems[:20]}
        )
    return {
        "door": "data",
        "rows": rows,
        "slowest_seconds": round(max(seconds for _, seconds, _ in outcomes.values()), 1),
        "memory_mb": round(max(memory for *_, memory in outcomes.values())),
    }


_ATTACK = {
    "bombs": "small files that ask for gigabytes",
    "lies": "headers that contradict themselves or their file",
    "paths": "paths, links and detached headers that lead out, pipes and devices",
    "honest": "sound files of the same kinds, which must load",
}


def try_one_image(door: str, name: str, seed: int = 0) -> tuple[str, float, float]:
    """Try one attack in a process of its own.

    Returns
    -------
    problem : str
        Empty where it held.
    seconds, memory : float
        That the process took, in MB beyond what it began with.
    """
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    with tempfile.TemporaryDirectory(prefix="skte-images-") as place:
        process = context.Process(target=_attempt, args=(sender, door, name, seed, place))
        process.start()
        sender.close()
        try:
            found = receiver.recv() if receiver.poll(60) else ("hung", 60.0, 0.0)
        except EOFError:
            found = ("the process died", 0.0, 0.0)
        process.kill() if found[0] == "hung" else None
        process.join()
    return found


def _attempt(sender: Any, door: str, name: str, seed: int, place: str) -> None:
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    folder = Path(place, "data")
    folder.mkdir()
    write = HONEST[name] if door == "honest" else ATTACKS[door, name]
    write(folder, np.random.default_rng(seed))
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + _ROOM,) * 2)
    # The peak so far counts what writing the attack took: begin again.
    Path("/proc/self/clear_refs").write_text("5")
    begun_with, begun = _peak(), time.process_time()
    try:
        text = _look(folder, honest=door == "honest")
    except BaseException as error:
        text = f"{type(error).__name__}: {str(error)[:300]}"
    seconds, memory = time.process_time() - begun, _peak() - begun_with
    if not text and seconds > _SECONDS:
        text = f"took {seconds:.1f} s"
    if not text and memory > _MEMORY:
        text = f"took {memory:.0f} MB"
    sender.send((text, seconds, memory))


def _look(folder: Path, *, honest: bool) -> str:
    """Inspect as ``skte inspect`` does; return what went wrong."""
    try:
        report = inspect_dataset(load_dataset(folder / "cases.csv"))
        problems = report.problems
    except DatasetError as error:
        problems = error.problems
    named = [p for p in problems if p.case_id == "bad"]
    if honest:
        return "; ".join(map(str, named))
    return "" if named and all(p.remedy for p in named) else f"nothing is wrong: {problems}"


def _peak() -> float:
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1000
