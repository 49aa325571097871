"""Image files: which may be read, and by which reader.

Readers of images believe what a file says. Which reader a file gets is therefore chosen here,
by name and content, and what would harm that reader is refused before it sees the file: nested
or endless structures, compressed texts, and headers that name other files.
"""

from __future__ import annotations

import os
import re
import stat
import unicodedata
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from skte._files import outside_problem
from skte._text import clean_text
from skte.datasets._dicom_file import (
    SEGMENTATIONS,
    is_dicom,
    is_series,
    open_segments,
    read_dicom,
    segmentation_flaw,
)
from skte.datasets._picture import PICTURE_ENDINGS, Picture, open_picture
from skte.datasets._problem import Flaw, ImageFileError
from skte.datasets._tiff import TIFF_MAGICS, open_tiff

# Longer endings first. Of a header and its data, the header is the image.
IMAGE_ENDINGS = (
    ".seg.nrrd", ".seg.nhdr", ".nii.gz", ".nii", ".mgz", ".mgh", ".hdr.gz", ".hdr", ".mha", ".mhd",
    ".nrrd", ".nhdr", ".gipl", ".vtk", ".dcm", ".dicom", *PICTURE_ENDINGS,
)  # fmt: skip
_REPLACE = "replace it or leave the case out"
# Lengths as NRRD and MetaImage name them, in mm.
_UNITS = {
    "mm": 1.0, "millimeter": 1.0, "millimeters": 1.0, "um": 1e-3, "µm": 1e-3, "micron": 1e-3,
    "microns": 1e-3, "micrometer": 1e-3, "micrometers": 1e-3, "nm": 1e-6, "cm": 10.0, "m": 1e3,
    "meter": 1e3, "meters": 1e3,
}  # fmt: skip
_MOST_HEADER = 2**20  # bytes of the text headers of MetaImage and NRRD
_MOST_LINES = 2000  # of those headers
# What lies under the name of an image: how it begins (in small letters), what it is, what to do.
_NO_IMAGES = (
    (b"version https://git-lfs.github.com/", "a pointer of Git LFS", "fetch it with git lfs pull"),
    (
        (b"/annex/objects/", b"../.git/annex/", b".git/annex/"),
        "a pointer of git-annex",
        "run git annex get",
    ),
    ((b"<!doctype html", b"<html"), "a web page", "download it again"),
    ((b"<?xml", b"<error"), "a file of XML", "download it again"),
    (b"%pdf-", "a PDF", "download it again"),
    (b"pk\x03\x04", "a zip archive", "unpack it"),
)
_JSON = ((b'{"', b"{ ", b"{\n", b"{\r"), "a file of JSON", "download it again")
# Readers of pictures know these.
_PICTURES = (
    (b"\x89png\r\n", "a PNG picture", "rename or convert it"),
    (b"\xff\xd8\xff", "a JPEG picture", "rename or convert it"),
)
_UNREAD = {
    **dict.fromkeys(
        (".hdr.gz", ".img.gz", ".hdr", ".img"),
        ("is one of two files of Analyze or NIfTI", "convert them: `nib-convert a.hdr a.nii.gz`"),
    ),
    ".vtk": ("is a VTK file", "convert it to NIfTI or NRRD"),
}
# Raw bytes that a byte of a lossy file holds, beside one of a lossless file.
_LOSSY = 4


def image_stem(path: Path, endings: Iterable[str] = IMAGE_ENDINGS) -> str | None:
    """File name without its image ending, composed (NFC); None where it is no image."""
    for ending in endings:
        if path.name.lower().endswith(ending.lower()) and len(path.name) > len(ending):
            # macOS decomposes what other systems compose: they are one name.
            return unicodedata.normalize("NFC", path.name[: -len(ending)])
    return None


def find_file(folder: Path, text: str) -> Path:
    """Path of a file that a text names: as it is, composed otherwise (NFC), or with backslashes."""
    path = folder / text
    for named in (text, text.replace("\\", "/")):
        found = _composed(folder / named)
        if os.path.lexists(found):
            return found
    return path


def _composed(path: Path) -> Path:
    """Return the path, or that of a file whose name is composed otherwise (NFC, NFD)."""
    if "\0" in str(path) or os.path.lexists(path) or path == path.parent:
        return path
    folder, name = _composed(path.parent), unicodedata.normalize("NFC", path.name)
    with suppress(OSError):  # too long, or no folder
        for other in os.listdir(folder):
            if unicodedata.normalize("NFC", other) == name:
                return folder / other
    return path


def list_images(folder: Path, endings: Iterable[str] = IMAGE_ENDINGS) -> list[tuple[str, Path]]:
    """Stem and path of every image in a folder, sorted by name; hidden files left out."""
    # With links to nothing, pipes and folders: their cases must be named, not vanish.
    # Hidden files include the "._x.nii.gz" that macOS leaves in archives.
    endings = [
        form for e in endings for form in (f".seg{e}", e) if e in (".nrrd", ".nhdr") or form == e
    ]
    paths = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
    return [(stem, path) for path in paths if (stem := image_stem(path, endings)) is not None]


class Segment(NamedTuple):
    """What 3D Slicer writes of a segment into a .seg.nrrd file, or DICOM into a SEG."""

    name: str
    layer: int
    value: int  # in its layer


@dataclass(frozen=True)
class ImageFile:
    """A file that a reader may be given."""

    reader: str  # of ITK, "nibabel", "highdicom" or "picture"
    files: tuple[Path, ...]  # the one that was named, and those that it names
    plain: bool = False  # not compressed: it cannot hold more than its size
    packed: tuple[Path, int] | None = None  # where a stream of zlib or gzip begins
    lossy: bool = False
    picture: Picture | None = None
    head: int = 0  # bytes before the values, as far as they are known
    unit: float = 1.0  # of its spacing, in mm
    segments: tuple[Segment, ...] = ()

    @property
    def n_bytes(self) -> int:
        """Size of its files; that of a lossy one as if it were lossless."""
        return _size(self.files) * (_LOSSY if self.lossy else 1)


def unit_notes(unit: float) -> tuple[Flaw, ...]:
    """Note that a spacing was converted."""
    if unit == 1.0:
        return ()
    what = f"its header states lengths in units of {unit:g} mm, and they are converted to mm"
    return ((what, "correct the unit in its header if they are in mm"),)


def spacing_files(path: Path) -> list[Path]:
    """Files beside a picture that may state its spacing, as nnU-Net names them."""
    stem = image_stem(path) or path.stem
    names = dict.fromkeys((re.sub(r"_\d{4}$", "", stem), stem))
    files = [path.with_name(f"{name}.json") for name in names]
    return [file for file in files if os.path.lexists(file)]


def examine_image(path: Path, roots: Sequence[Path] | None = None) -> ImageFile:
    """Choose the reader of a file in `roots` (None: anywhere); refuse what would harm it."""
    if roots is not None and (leads := _leads_out(path, roots)):
        raise ImageFileError(leads, "or put the file inside")
    if wrong := _no_file(path):
        raise ImageFileError(*wrong)
    with path.open("rb") as file:
        start = file.read(1024)
        name = path.name.lower()
        _check_content(name, start)
        for what, remedy in (flaw for ending, flaw in _UNREAD.items() if name.endswith(ending)):
            raise ImageFileError(f"{what}, which is not read", remedy)
        ending = next((e for e in _READERS if name.endswith(e)), None)
        if ending is None and start[128:132] == b"DICM":
            ending = ".dcm"
        if ending is None:
            raise ImageFileError(
                f"ends in {path.suffix or 'nothing'!r}, which is not read ({', '.join(_READERS)})",
                "convert it to NIfTI, NRRD or PNG",
            )
        examined = _READERS[ending](path, file, start)
    for other in examined.files:
        if other == path:
            continue
        named = f"names {other.name!r:.200}, which"
        if leads := _leads_out(other, roots or named_roots(path)):
            raise ImageFileError(f"{named} {leads}", "or put it inside")
        if wrong := _no_file(other):
            raise ImageFileError(f"{named} {wrong[0]}", wrong[1])
    return examined


def named_roots(path: Path) -> tuple[Path, ...]:
    """Folders in which the files lie that a header names, where no others are given."""
    return path.parent, Path(os.path.realpath(path)).parent


def file_flaw(path: Path, roots: Iterable[Path], *, name: str | None = None) -> Flaw | None:
    """Find what forbids reading a file or a folder of DICOM files, by its name alone."""
    called = f"the file {(name or str(path))!r:.400}"
    if "\0" in str(path):
        return f"{called} has a name that no file can have", "correct its path"
    if leads := _leads_out(path, roots):
        return f"{called} {leads}", "or put the file inside"
    if is_series(path):
        return None
    if wrong := _no_file(path):
        return f"{called} {wrong[0]}", wrong[1]
    return None


def image_paths(image: Any) -> list[Path]:
    """Return the files of a torchio image; none where it lives in memory."""
    if not image.path:
        return []
    return list(image.path) if isinstance(image.path, list) else [image.path]


def _leads_out(path: Path, roots: Iterable[Path]) -> str:
    """Say that a file lies outside; a link to nothing is none, wherever it leads."""
    broken = os.path.islink(path) and not os.path.exists(path)
    return "" if broken else outside_problem(path, roots)


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


def _check_content(name: str, start: bytes) -> None:
    """Name what lies under an image's name and is something else."""
    if not start:
        raise ImageFileError("is empty")
    kinds = _NO_IMAGES if name.endswith(PICTURE_ENDINGS) else (*_NO_IMAGES, *_PICTURES)
    if start.isascii():  # else the values of an .img file may begin alike
        kinds = (*kinds, _JSON)
    for beginnings, what, remedy in kinds:
        if start.removeprefix(b"\xef\xbb\xbf").lstrip().lower().startswith(beginnings):
            raise ImageFileError(f"is {what}, not the image", remedy)


# Volumes.


def _nifti(path: Path, file: BinaryIO, start: bytes) -> ImageFile:
    packed = path.name.lower().endswith(".gz")
    if start.startswith(b"\x1f\x8b") and not packed:
        what = "is compressed by gzip, though its name does not end in .gz"
        raise ImageFileError(what, "rename it")
    if packed and start[344:347] in (b"n+1", b"ni1"):
        raise ImageFileError("is not compressed, though its name ends in .gz", "rename it")
    return ImageFile("nibabel", (path,), plain=not packed)


def _text_header(file: BinaryIO, end: re.Pattern[bytes]) -> list[str]:
    """Lines of a header up to what ends it, where `file` is left; no two readers disagree."""
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
    file.seek(len(text))
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
    data = _data_file(path, fields["elementdatafile"])
    head = file.tell() if data == path else path.stat().st_size
    stated = fields.get("compresseddatasize", "0")
    if not re.fullmatch(r"\d{1,18}", stated) or int(stated) > _size([data]):
        raise ImageFileError(f"states a CompressedDataSize that does not fit ({stated!r:.50})")
    skipped = re.fullmatch(r"\d{1,18}", fields.get("headersize", ""))
    begin = int(skipped[0]) if skipped else head if data == path else 0
    if compressed and begin and stated == "0":  # ITK would take the header for data
        raise ImageFileError("states no CompressedDataSize", "write it again with SimpleITK")
    return ImageFile(
        "MetaImageIO",
        tuple(dict.fromkeys((path, data))),
        plain=not compressed,
        head=head,
        packed=(data, begin) if compressed else None,
        unit=_unit([fields.get("distanceunits", "")]),
    )


def _nrrd(path: Path, file: BinaryIO, start: bytes) -> ImageFile:
    if not start.startswith(b"NRRD000"):
        raise ImageFileError("is not an NRRD file")
    lines = _text_header(file, re.compile(rb"\n\r?\n"))
    # "key:=value" is a remark of somebody's own.
    remarks = [line for line in lines[1:] if re.match(r"#|[^:]*:=", line)]
    fields = _fields((line for line in lines[1:] if line not in remarks), ":")
    if not re.fullmatch("[1-5]", fields.get("dimension", "")):
        raise ImageFileError(f"has {fields.get('dimension', 'no')!r:.50} dimensions, not 2 to 5")
    named = [value for key, value in fields.items() if "file" in key]
    if len(named) > 1:
        raise ImageFileError("names its data twice in its header")
    data = _data_file(path, named[0]) if named else path
    head = path.stat().st_size if named else file.tell()
    skips = [fields.get(key, "0") for key in ("lineskip", "byteskip")]
    for text in skips:
        if not re.fullmatch(r"-1|\d{1,18}", text) or int(text) > _size([data]):
            raise ImageFileError(f"states to skip {text!r:.50}, more than its data has")
    encoding = fields.get("encoding", "").lower()
    packed = encoding in ("gzip", "gz") and skips == ["0", "0"]
    units = re.findall(r'"([^"]*)"', fields.get("spaceunits", fields.get("units", "")))
    return ImageFile(
        "NrrdImageIO",
        tuple(dict.fromkeys((path, data))),
        plain=encoding == "raw",
        head=head,
        packed=(data, 0 if named else head) if packed else None,
        unit=_unit(units),
        segments=_segments(remarks, layered=fields["dimension"] == "4"),
    )


def _data_file(path: Path, value: str) -> Path:
    """Return the one file that holds the values of a header, which may be its own."""
    if value.upper() == "LOCAL":
        return path
    if not value or value.upper().startswith("LIST") or "%" in value:
        what = f"has its values in several files ({value!r:.100})"
        raise ImageFileError(what, "write it again as one file")
    return path.parent / value


def _unit(stated: Sequence[str]) -> float:
    """Return the unit of lengths in mm; what is no unit is passed over, as readers do."""
    units = {_UNITS[one.lower()] for one in stated if one.lower() in _UNITS}
    if len(units) > 1:
        raise ImageFileError(f"states several units of length ({', '.join(stated)})", "use mm")
    return units.pop() if units else 1.0


def _segments(remarks: Iterable[str], *, layered: bool) -> tuple[Segment, ...]:
    """Segments that 3D Slicer lists in a .seg.nrrd file; old ones have a layer for each."""
    found: dict[int, dict[str, str]] = {}
    for line in remarks:
        if match := re.match(r"Segment(\d{1,5})_(Name|Layer|LabelValue):=(.*)", line.strip()):
            found.setdefault(int(match[1]), {})[match[2]] = match[3].strip()
    segments = []
    for number, keys in sorted(found.items()):
        value = keys.get("LabelValue", "1" if layered else str(number + 1))
        layer = keys.get("Layer", str(number) if layered else "0")
        if not (re.fullmatch(r"\d{1,9}", value) and re.fullmatch(r"\d{1,5}", layer)):
            raise ImageFileError(f"describes its segment {number} with {value!r:.50}")
        name = clean_text(keys.get("Name", f"Segment_{number}"), 100)
        segments.append(Segment(name, int(layer), int(value)))
    return tuple(segments)


def segment_ids(segments: Sequence[Segment]) -> dict[str, list[int]]:
    """Ids by name: those in the file, or a count where layers use an id twice."""
    values = [segment.value for segment in segments]
    ids = values if len(set(values)) == len(values) else range(1, len(values) + 1)
    names: dict[str, list[int]] = {}
    for segment, number in zip(segments, ids, strict=True):
        names.setdefault(segment.name, []).append(number)
    return names


def merge_layers(values: NDArray[Any], segments: Sequence[Segment]) -> NDArray[Any]:
    """One map (1, x, y, z) of the layers of a segmentation, whose segments must not overlap."""
    if len(values) == 1 or not segments:
        return values
    numbers = {name: list(ids) for name, ids in segment_ids(segments).items()}
    merged = np.zeros((1, *values.shape[1:]), np.int32)
    for segment in segments:
        if segment.layer >= len(values):
            raise ImageFileError(f"has no layer {segment.layer} for segment {segment.name!r}")
        inside = values[segment.layer] == segment.value
        if n_twice := int(np.count_nonzero(merged[0][inside])):
            what = f"has segments that overlap: {segment.name!r} with others, in {n_twice} voxels"
            raise ImageFileError(what, "export it from 3D Slicer as a labelmap volume")
        merged[0][inside] = numbers[segment.name].pop(0)
    return merged


def segment_names(path: Path, roots: Sequence[Path]) -> Mapping[str, list[int]]:
    """Ids by the names that a segmentation of 3D Slicer or DICOM states; none of other files."""
    if not (path.name.lower().endswith((".nrrd", ".nhdr")) or is_dicom(path)):
        return {}
    try:
        return segment_ids(examine_image(path, roots).segments)
    except (OSError, ImageFileError):  # reported where it is read
        return {}


def check_packed(image: ImageFile, n_bytes: int) -> None:
    """Refuse damage to compressed values, for which ITK gives others or zeros."""
    if image.packed is None:
        return
    path, begin = image.packed
    try:
        with path.open("rb") as file:
            file.seek(begin)
            found = 0
            for part in _unpacked(file):  # on to the sum at its end
                found += len(part)
                if found > n_bytes:
                    break
    except (zlib.error, EOFError) as error:
        raise ImageFileError(f"is damaged ({error})") from error
    if found < n_bytes:
        raise ImageFileError(f"is cut short: it holds {found} bytes of {n_bytes}")


def _unpacked(file: BinaryIO) -> Iterator[bytes]:
    """Parts of what streams of gzip or zlib hold; what follows and is none is ignored."""
    stream, part = zlib.decompressobj(47), file.read(2**16)  # 47: of either kind
    while part:
        yield stream.decompress(part, 2**20)
        part = stream.unconsumed_tail or stream.unused_data or file.read(2**16)
        if stream.eof:
            if len(part) < 2:
                part += file.read(2**16)
            if not part.startswith(b"\x1f\x8b"):
                return
            stream = zlib.decompressobj(47)
    raise EOFError("the end of its data is missing")


def _size(files: Iterable[Path]) -> int:
    return sum(file.stat().st_size for file in files if file.is_file())


def _dicom(path: Path, file: BinaryIO, start: bytes) -> ImageFile:
    try:
        found = read_dicom(path)
    except ValueError as error:
        raise ImageFileError(str(error)) from error
    if found.modality == "SEG":
        stated = [
            (int(s.SegmentNumber), str(s.SegmentLabel)) for s in open_segments(path).SegmentSequence
        ]
        segments = tuple(Segment(clean_text(name, 100), 0, number) for number, name in stated)
        return ImageFile("highdicom", (path,), segments=segments)
    if found.modality in SEGMENTATIONS:
        raise ImageFileError(*segmentation_flaw(found.modality, path.name))
    return ImageFile("GDCMImageIO", (path,))


def _picture(path: Path, file: BinaryIO, start: bytes) -> ImageFile:
    is_tiff = start.startswith(TIFF_MAGICS)
    picture = open_tiff(path) if is_tiff else open_picture(path, start)
    return ImageFile("picture", (path,), lossy=picture.lossy, picture=picture)


#: How the files of each ending are read; longer endings first.
_READERS: dict[str, Callable[[Path, BinaryIO, bytes], ImageFile]] = {
    **dict.fromkeys((".nii.gz", ".nii"), _nifti),
    ".mgz": lambda path, file, start: ImageFile("nibabel", (path,)),
    ".mgh": lambda path, file, start: ImageFile("nibabel", (path,), plain=True),
    **dict.fromkeys((".mha", ".mhd"), _meta),
    **dict.fromkeys((".nrrd", ".nhdr"), _nrrd),
    ".gipl": lambda path, file, start: ImageFile("GiplImageIO", (path,), plain=True, head=256),
    **dict.fromkeys((".dcm", ".dicom"), _dicom),
    **dict.fromkeys(PICTURE_ENDINGS, _picture),
}
