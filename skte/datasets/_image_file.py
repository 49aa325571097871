"""Image files: which may be read, and by which reader.

Readers of images believe what a file says. Which reader a file gets is therefore chosen here,
by name and content, and what would harm that reader is refused before it sees the file: nested
or endless structures, compressed texts, and headers that name other files.
"""

from __future__ import annotations

import os
import re
import stat
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from skte._files import outside_problem
from skte.datasets._dicom_file import read_dicom
from skte.datasets._problem import Flaw

__all__ = [
    "IMAGE_ENDINGS",
    "ImageFile",
    "ImageFileError",
    "examine_image",
    "file_flaw",
    "image_paths",
    "image_stem",
    "list_images",
    "named_roots",
]

# What SimpleITK and nibabel read from one file; longer endings first.
IMAGE_ENDINGS = (
    ".nii.gz", ".nii", ".mgz", ".mha", ".mhd", ".nrrd", ".bmp", ".jpeg", ".jpg", ".png", ".tiff",
    ".tif",
)  # fmt: skip
_REPLACE = "replace it or leave the case out"
_MOST_HEADER = 2**20  # bytes of the text headers of MetaImage and NRRD
_MOST_FILES = 10_000  # that one header may name
_MOST_PAGES = 65_536
_MOST_LINES = 2000  # of those headers
_MOST_IN_TILE = 2**24  # values of a tile of TIFF
_MOST_SCANS = 100  # of a progressive JPEG: encoders write about ten
_MOST_TEXT = 2**26  # bytes of the compressed texts of a PNG, unpacked
# Raw bytes that a byte of a lossy file holds, beside one of a lossless file.
_LOSSY = 4


def image_stem(path: Path, endings: Iterable[str] = IMAGE_ENDINGS) -> str | None:
    """File name without its image ending; None where it is no image."""
    for ending in endings:
        if path.name.lower().endswith(ending.lower()) and len(path.name) > len(ending):
            return path.name[: -len(ending)]
    return None


def list_images(folder: Path, endings: Iterable[str] = IMAGE_ENDINGS) -> list[tuple[str, Path]]:
    """Stem and path of every image in a folder, sorted by name; hidden files left out."""
    # With links to nothing, pipes and folders: their cases must be named, not vanish.
    # Hidden files include the "._x.nii.gz" that macOS leaves in archives.
    paths = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
    return [(stem, path) for path in paths if (stem := image_stem(path, endings)) is not None]


class ImageFileError(ValueError):
    """A file that must not be read as an image: what is wrong, after its name, and the remedy."""

    def __init__(self, what: str, remedy: str = _REPLACE) -> None:
        super().__init__(what)
        self.remedy = remedy


@dataclass(frozen=True)
class ImageFile:
    """A file that a reader may be given."""

    reader: str  # of ITK, or "nibabel"
    files: tuple[Path, ...]  # the one that was named, and those that it names
    plain: bool = False  # not compressed: it cannot hold more than its size
    copies: int = 0  # bytes that the reader takes for each value beyond the value itself
    lossy: bool = False

    @property
    def n_bytes(self) -> int:
        """Size of its files; that of a lossy one as if it were lossless."""
        return _size(self.files) * (_LOSSY if self.lossy else 1)


def examine_image(path: Path, roots: Sequence[Path] | None = None) -> ImageFile:
    """Choose the reader of a file in `roots` (None: anywhere); refuse what would harm it."""
    if roots is not None and (leads := outside_problem(path, roots)):
        raise ImageFileError(leads, "or put the file inside")
    if wrong := _no_file(path):
        raise ImageFileError(*wrong)
    with path.open("rb") as file:
        start = file.read(1024)
        _check_content(start)
        name = path.name.lower()
        ending = next((e for e in _READERS if name.endswith(e)), None)
        if ending is None and start[128:132] == b"DICM":
            ending = ".dcm"
        if ending is None:
            raise ImageFileError(
                f"ends in {path.suffix or 'nothing'!r}, which is not read ({', '.join(_READERS)})",
                "convert it to NIfTI or NRRD",
            )
        examined = _READERS[ending](path, file, start)
    for other in examined.files:
        if other == path:
            continue
        named = f"names {other.name!r:.200}, which"
        if leads := outside_problem(other, roots or named_roots(path)):
            raise ImageFileError(f"{named} {leads}", "or put it inside")
        if wrong := _no_file(other):
            raise ImageFileError(f"{named} {wrong[0]}", wrong[1])
    return examined


def named_roots(path: Path) -> tuple[Path, ...]:
    """Folders in which the files lie that a header names, where no others are given."""
    return path.parent, Path(os.path.realpath(path)).parent


def file_flaw(
    path: Path, roots: Iterable[Path], *, name: str | None = None, folders: bool = False
) -> Flaw | None:
    """Find what forbids reading a file, by its name alone; `folders` may hold DICOM files."""
    called = f"the file {(name or str(path))!r:.400}"
    if "\0" in str(path):
        return f"{called} has a name that no file can have", "correct its path"
    if leads := outside_problem(path, roots):
        return f"{called} {leads}", "or put the file inside"
    if folders and os.path.isdir(path):
        return None
    if wrong := _no_file(path):
        return f"{called} {wrong[0]}", wrong[1]
    return None


def image_paths(image: Any) -> list[Path]:
    """Return the files of a torchio image; none where it lives in memory."""
    if not image.path:
        return []
    return list(image.path) if isinstance(image.path, list) else [image.path]


def _no_file(path: Path) -> Flaw | None:
    """Why there is no file to read; opening a pipe would wait for ever."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):  # too long, for instance
        mode = None
    if mode is None and os.path.islink(path):
        target = os.readlink(path)
        fetch = "; fetch it with `datalad get` or `git annex get`"
        annexed = ".git/annex" in target.replace("\\", "/")
        remedy = f"add the file{fetch if annexed else ''}, or leave the case out"
        return f"is a link to {target!r:.200}, which does not exist", remedy
    if mode is None:
        return "does not exist", f"correct its path, {_REPLACE}"
    if stat.S_ISREG(mode):
        return None
    kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket"}
    return f"is {kinds.get(stat.S_IFMT(mode), 'a device')}, not a file", _REPLACE


def _check_content(start: bytes) -> None:
    """Name what lies under an image's name and is something else."""
    if not start:
        raise ImageFileError("is empty")
    if start.startswith(b"version https://git-lfs.github.com/"):
        raise ImageFileError("is a pointer of Git LFS, not the image", "fetch it with git lfs pull")
    if start.startswith((b"/annex/objects/", b"../.git/annex/", b".git/annex/")):
        raise ImageFileError("is a pointer of git-annex, not the image", "run git annex get")
    if start.lstrip()[:14].lower().startswith((b"<!doctype html", b"<html")):
        raise ImageFileError("is a web page, not an image", "download it again")


# Volumes.


def _nifti(path: Path, file: BinaryIO, start: bytes) -> ImageFile:
    packed = path.name.lower().endswith(".gz")
    if start.startswith(b"\x1f\x8b") and not packed:
        what = "is compressed by gzip, though its name does not end in .gz"
        raise ImageFileError(what, "give it the name that fits")
    if packed and start[344:347] in (b"n+1", b"ni1"):
        what = "is not compressed, though its name ends in .gz"
        raise ImageFileError(what, "give it the name that fits")
    return ImageFile("nibabel", (path,), plain=not packed)


def _mgh(path: Path, file: BinaryIO, start: bytes) -> ImageFile:
    return ImageFile("nibabel", (path,), plain=path.name.lower().endswith(".mgh"))


def _pair(path: Path, file: BinaryIO, start: bytes) -> ImageFile:
    """Header and values of Analyze or NIfTI in two files, either of which may be named."""
    stem = re.sub(r"\.(hdr|img)(\.gz)?$", "", path.name, flags=re.IGNORECASE)
    endings = {f".{kind}{gz}" for kind in ("hdr", "img") for gz in ("", ".gz")}
    beside = sorted(
        other
        for other in path.parent.iterdir()
        if other.name.startswith(stem) and other.name[len(stem) :].lower() in endings
    )
    kinds = [other.name[len(stem) :].lower().removesuffix(".gz") for other in beside]
    if sorted(kinds) != [".hdr", ".img"]:
        what = "needs one .hdr and one .img file of its name"
        raise ImageFileError(f"{what}, got {', '.join(o.name for o in beside)}", "add or keep one")
    plain = not any(other.name.lower().endswith(".gz") for other in beside)
    return ImageFile("NiftiImageIO", tuple(beside), plain=plain)


def _text_header(file: BinaryIO, end: re.Pattern[bytes]) -> list[str]:
    """Lines of a header up to what ends it; whatever readers disagree on is refused."""
    file.seek(0)
    content = file.read(_MOST_HEADER)
    found = end.search(content)
    text = content[: found.end()] if found else content
    if len(text) == _MOST_HEADER:
        raise ImageFileError(f"has a header of more than {_MOST_HEADER} bytes")
    if text.count(b"\n") > _MOST_LINES:  # ITK takes the square of their number
        raise ImageFileError(f"has a header of more than {_MOST_LINES} lines")
    if re.search(rb"[\x00-\x08\x0b\x0c\x0e-\x1f]|\r(?!\n)", text):
        raise ImageFileError("has control characters in its header")
    return text.decode("utf-8", "surrogateescape").splitlines()


def _fields(lines: Iterable[str], separator: str) -> dict[str, str]:
    """Fields of a header, by names in small letters without blanks; none occurs twice."""
    fields: dict[str, str] = {}
    for line in lines:
        name, found, value = line.partition(separator)
        key = "".join(name.lower().split())
        if found and key in fields:
            raise ImageFileError(f"states {name.strip()!r:.100} twice in its header")
        if found:
            fields[key] = value.strip()
    return fields


def _meta(path: Path, file: BinaryIO, start: bytes) -> ImageFile:
    lines = _text_header(file, re.compile(rb"elementdatafile[^\n]*(\n|$)", re.IGNORECASE))
    fields = _fields((re.sub("[=:]", "=", line, count=1) for line in lines), "=")
    if "elementdatafile" not in fields:
        raise ImageFileError("has no ElementDataFile in its header")
    if not re.fullmatch("[1-4]", fields.get("ndims", "")):
        raise ImageFileError(f"has {fields.get('ndims', 'no')!r:.50} as NDims, not 2 to 4")
    compressed = fields.get("compresseddata", "").lower() not in ("", "false", "0")
    named = _named(path, fields["elementdatafile"], _rest(file, lines))
    stated = fields.get("compresseddatasize", "0")
    if not re.fullmatch(r"\d{1,18}", stated) or int(stated) > _size(named):
        raise ImageFileError(f"states {stated!r:.50} as CompressedDataSize, which it has not")
    return ImageFile("MetaImageIO", named, plain=not compressed)


def _nrrd(path: Path, file: BinaryIO, start: bytes) -> ImageFile:
    if not start.startswith(b"NRRD000"):
        raise ImageFileError("is not an NRRD file")
    lines = _text_header(file, re.compile(rb"\n\r?\n|^\s*data *file *:\s*list[^\n]*", re.I | re.M))
    # "key:=value" is a remark of somebody's own.
    stated = (line for line in lines[1:] if not re.match(r"#|[^:]*:=", line))
    fields = _fields(stated, ":")
    if not re.fullmatch("[1-5]", fields.get("dimension", "")):
        raise ImageFileError(f"has {fields.get('dimension', 'no')!r:.50} dimensions, not 2 to 5")
    data = [value for key, value in fields.items() if "file" in key]
    if len(data) > 1:
        raise ImageFileError("names its data twice in its header")
    named = _named(path, data[0], _rest(file, lines)) if data else (path,)
    size = _size(named)
    for key in ("lineskip", "byteskip"):
        text = fields.get(key, "0")
        if not re.fullmatch(r"-1|\d{1,18}", text) or int(text) > size:
            raise ImageFileError(f"states {text!r:.50} as {key}, more than its data has")
    return ImageFile("NrrdImageIO", named, plain=fields.get("encoding", "").lower() == "raw")


def _size(files: Iterable[Path]) -> int:
    return sum(file.stat().st_size for file in files if file.is_file())


def _rest(file: BinaryIO, lines: list[str]) -> str:
    """Text that may list files, behind the lines of a header."""
    file.seek(0)
    text = file.read(_MOST_HEADER).decode("utf-8", "surrogateescape")
    return "\n".join(text.splitlines()[len(lines) :])


def _named(path: Path, value: str, rest: str) -> tuple[Path, ...]:
    """Files that a detached header names: one, a list, or a pattern of numbers."""
    if value.upper() == "LOCAL":
        return (path,)
    first, *numbers = value.split() if value else [""]
    if first.upper() == "LIST":
        names = [line.strip() for line in rest.splitlines() if line.strip()]
    elif "%" in value:
        names = list(_numbered(first, numbers))
    else:
        names = [value]
    if not 1 <= len(names) <= _MOST_FILES or not all(names):
        raise ImageFileError(f"names {len(names)} files in its header", "name 1 to 10000")
    return (path, *(path.parent / name for name in names))


def _numbered(pattern: str, numbers: Sequence[str]) -> Iterator[str]:
    """Names such as ``slice%03d.raw 1 20 1``."""
    limits = [int(n) for n in numbers if re.fullmatch(r"-?\d{1,6}", n)]
    if not re.fullmatch(r"[^%]*%0?\d?d[^%]*", pattern) or len(limits) != len(numbers):
        raise ImageFileError(f"names its data by a pattern that is not read: {pattern!r:.200}")
    low, high, step = (*limits, 1)[:3] if len(limits) >= 2 else (1, 1, 0)
    if not step or not 0 <= (high - low) // step < _MOST_FILES:
        raise ImageFileError("names no files, or too many, by a pattern")
    for number in range(low, high + (1 if step > 0 else -1), step):
        yield pattern % number


def _gipl(path: Path, file: BinaryIO, start: bytes) -> ImageFile:
    return ImageFile("GiplImageIO", (path,), plain=True)


def _vtk(path: Path, file: BinaryIO, start: bytes) -> ImageFile:
    if not start.startswith(b"# vtk DataFile"):
        raise ImageFileError("is not a VTK file")
    return ImageFile("VTKImageIO", (path,))


def _dicom(path: Path, file: BinaryIO, start: bytes) -> ImageFile:
    try:
        read_dicom(path)
    except ValueError as error:
        raise ImageFileError(str(error)) from error
    return ImageFile("GDCMImageIO", (path,))


# Pictures: the content decides, for many a JPEG is called .png.


def _picture(path: Path, file: BinaryIO, start: bytes) -> ImageFile:
    if start.startswith(b"\x89PNG\r\n\x1a\n"):
        _check_png(file, path.stat().st_size)
        return ImageFile("PNGImageIO", (path,))
    if start.startswith(b"\xff\xd8\xff"):
        return ImageFile("JPEGImageIO", (path,), copies=_check_jpeg(file), lossy=True)
    if start.startswith(b"BM"):
        return ImageFile("BMPImageIO", (path,))
    if start[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        _check_tiff(file, path.stat().st_size)
        return ImageFile("TIFFImageIO", (path,), copies=4)
    raise ImageFileError("is not a PNG, JPEG, BMP or TIFF picture", "replace or convert it")


def _check_png(file: BinaryIO, size: int) -> None:
    """Refuse compressed texts that grow: the reader unpacks them all."""
    position, text = 8, 0
    while position + 8 <= size:
        file.seek(position)
        length, kind = struct.unpack(">I4s", file.read(8))
        if kind in (b"zTXt", b"iTXt", b"iCCP"):
            text += length + _unpacked(kind, file.read(length), _MOST_TEXT - text)
            if text >= _MOST_TEXT:
                raise ImageFileError(f"holds more than {_MOST_TEXT} bytes of compressed text")
        position += 12 + length


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


def _check_jpeg(file: BinaryIO) -> int:
    """Refuse endless scans; return the bytes that a progressive picture takes for a value."""
    file.seek(0)
    scans, progressive, before = 0, False, b""
    while piece := file.read(2**20):
        piece = before + piece
        scans += piece.count(b"\xff\xda")
        progressive = progressive or b"\xff\xc2" in piece
        before = piece[-1:] if piece.endswith(b"\xff") else b""
    if scans > _MOST_SCANS:
        raise ImageFileError(f"has {scans} scans, more than a JPEG picture needs")
    return 2 if progressive else 0


def _check_tiff(file: BinaryIO, size: int) -> None:
    """Refuse a chain of pages that leads back into itself, or on without end."""
    file.seek(0)
    order = "<" if file.read(2) == b"II" else ">"
    big = struct.unpack(f"{order}H", file.read(2))[0] == 43
    pointer, count, entry = ("Q", "Q", 20) if big else ("I", "H", 12)
    file.seek(8 if big else 4)
    seen: set[int] = set()
    while (position := _number(file, order + pointer)) and position not in seen:
        if len(seen) >= _MOST_PAGES:
            raise ImageFileError(f"has more than {_MOST_PAGES} pages")
        seen.add(position)
        file.seek(min(position, size))
        n_entries = _number(file, order + count)
        after = position + struct.calcsize(count) + entry * n_entries
        if not 0 < n_entries <= 4096 or after > size:
            raise ImageFileError("has a page that does not lie in the file")
        _check_tiles(file.read(entry * n_entries), order, entry)
    if position:
        raise ImageFileError("has pages that lead in a circle")


def _check_tiles(entries: bytes, order: str, entry: int) -> None:
    """Refuse tiles that are far larger than their image: a decoder asks for whole tiles."""
    tags: dict[int, int] = {}
    for start in range(0, len(entries), entry):
        tag, kind = struct.unpack_from(f"{order}HH", entries, start)
        form = {3: "H", 4: "I", 16: "Q"}.get(kind, "H")
        at = start + entry - (8 if entry == 20 else 4)
        tags[tag] = struct.unpack_from(order + form, entries, at)[0]
    for name, edge, tile in (("width", 256, 322), ("length", 257, 323)):
        if tags.get(tile, 0) > max(1024, 2 * tags.get(edge, 0)):
            raise ImageFileError(f"has tiles of {name} {tags[tile]}, far more than its image has")
    area = tags.get(322, 0) * tags.get(323, 0)
    if area * tags.get(277, 1) > _MOST_IN_TILE:
        raise ImageFileError(f"has tiles of {area} pixels of {tags.get(277, 1)} samples")


def _number(file: BinaryIO, form: str) -> int:
    content = file.read(struct.calcsize(form))
    if len(content) < struct.calcsize(form):
        return 0
    return int(struct.unpack(form, content)[0])


#: How the files of each ending are read; longer endings first.
_READERS: dict[str, Callable[[Path, BinaryIO, bytes], ImageFile]] = {
    ".nii.gz": _nifti,
    ".nii": _nifti,
    ".mgz": _mgh,
    ".mgh": _mgh,
    ".hdr.gz": _pair,
    ".img.gz": _pair,
    ".hdr": _pair,
    ".img": _pair,
    ".mha": _meta,
    ".mhd": _meta,
    ".nrrd": _nrrd,
    ".nhdr": _nrrd,
    ".gipl": _gipl,
    ".vtk": _vtk,
    ".dcm": _dicom,
    ".dicom": _dicom,
    **dict.fromkeys((".png", ".jpeg", ".jpg", ".bmp", ".tiff", ".tif"), _picture),
}
