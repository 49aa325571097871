"""DICOM files and series: pydicom says what they hold, ITK reads the values."""

from __future__ import annotations

import os
import struct
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any

import numpy as np
import SimpleITK as sitk  # noqa: N813 (its own habit; torchio depends on it)
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.encaps import generate_fragments
from pydicom.filereader import read_file_meta_info

from skte._files import outside_problem
from skte.datasets._problem import Flaw, ImageFileError

_DEEPEST = 16  # sequences within sequences: ITK's reader calls itself for each
_MOST_ELEMENTS = 100_000
_UNDEFINED = 0xFFFFFFFF
_PLAIN = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2")
# RLE, JPEG, JPEG-LS and JPEG 2000. Not deflated (the file may become a thousand times larger),
# and no films.
_RUN_LENGTHS = "1.2.840.10008.1.2.5"
_PACKED = (_RUN_LENGTHS, "1.2.840.10008.1.2.4.")
_FILMS = tuple(f"1.2.840.10008.1.2.4.{n}" for n in (*range(94, 109), *range(201, 206)))
# How much the distances between slices may differ, of the distance between them: a
# missing slice doubles one of them.
_SPACING_TOLERANCE = 0.1
#: What holds regions instead of an image, by modality, and the tool that converts it.
SEGMENTATIONS = {
    "SEG": "`segimage2itkimage --inputDICOM {0} --outputDirectory . -t nifti` of dcmqi",
    "RTSTRUCT": "`plastimatch convert --input {0} --output-labelmap label.nii.gz`",
}
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])


@dataclass(frozen=True)
class DicomFile:
    """What a file holds, as far as it decides how it is read."""

    modality: str  # CT, MR, SEG ...
    series: str
    is_image: bool
    place: float  # of the slice along the normal of its plane; 0 where it states none


def is_dicom(path: Path) -> bool:
    """Tell by its first bytes whether a file is DICOM."""
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def read_dicom(path: Path) -> DicomFile:
    """Look through all elements of a file; raise ValueError where it must not be read."""
    if not is_dicom(path):
        raise ValueError("is not a DICOM file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # values that are odd, and not used
            return _examine(path)
    except ValueError:
        raise
    except Exception as error:  # it relies on what the standard demands
        raise ValueError(f"is cut short or damaged ({error})") from error


def _examine(path: Path) -> DicomFile:
    syntax = str(read_file_meta_info(path).get("TransferSyntaxUID", ""))
    # Before the rest is read: it might be deflated.
    if syntax not in _PLAIN and (not syntax.startswith(_PACKED) or syntax in _FILMS):
        if not syntax:
            raise ValueError("is cut short: it states no transfer syntax")
        raise ValueError(f"has transfer syntax {syntax!r:.100}, which is not read")
    data = dcmread(path)
    _check_elements(data)
    if "ModalityLUTSequence" in data:
        raise ValueError("states its values by a table (Modality LUT), which is not read")
    if "PixelData" in data and syntax.startswith(_PACKED):
        for part in [*generate_fragments(data.PixelData)][1:]:  # the first is a table of offsets
            if syntax == _RUN_LENGTHS and not 1 <= int.from_bytes(part[:4], "little") <= 15:
                raise ValueError("has a frame of run lengths without 1 to 15 segments")
            _check_picture(part[:65_536], (data.Rows, data.Columns))
    return DicomFile(
        str(data.get("Modality", "")),
        str(data.get("SeriesInstanceUID", "")),
        "PixelData" in data,
        _place(data),
    )


def _check_elements(data: Dataset, depth: int = 0, left: int = _MOST_ELEMENTS) -> int:
    """Refuse what ITK's reader would choke on; return how many more elements there may be."""
    if depth > _DEEPEST:
        raise ValueError(f"nests sequences more than {_DEEPEST} deep")
    for tag in [*data.keys()]:
        left -= 1
        if left < 0:
            raise ValueError(f"has more than {_MOST_ELEMENTS} elements")
        stored = data.get_item(tag)
        stated = stored.length if isinstance(stored, RawDataElement) else 0
        if stated != _UNDEFINED and stated > len(stored.value or b""):
            raise ValueError(f"states an element of {stated} bytes, more than it has")
        kind = stored.VR or (dictionary_VR(tag) if dictionary_has_tag(tag) else "UN")  # implicit
        if kind == "SQ":
            for item in data[tag].value:
                left = _check_elements(item, depth + 1, left)
    return left


def _place(data: Dataset) -> float:
    try:
        a, b, c, d, e, f = map(float, data.ImageOrientationPatient)
        x, y, z = map(float, data.ImagePositionPatient)
    except (AttributeError, TypeError, ValueError):
        return 0.0
    return x * (b * f - c * e) + y * (c * d - a * f) + z * (a * e - b * d)


def _check_picture(part: bytes, stated: tuple[int, int]) -> None:
    """Compare the size in a compressed frame with the header's."""
    size = None
    if part.startswith(b"\xff\xd8"):
        size = _jpeg_size(part)
    elif part.startswith(b"\xff\x4f\xff\x51") and len(part) > 40:
        x1, y1, x0, y0, tile_x, tile_y = struct.unpack_from(">6I", part, 8)
        size = y1 - y0, x1 - x0
        if min(tile_x, tile_y) < 1 or -(-x1 // tile_x) * -(-y1 // tile_y) > 10_000:
            raise ValueError("has a JPEG 2000 frame of too many tiles")
        style = part[part.find(b"\xff\x52") :]
        if style.startswith(b"\xff\x52") and style[4:5] >= b"\1":  # it states precincts
            sizes = style[15 : 15 + (style[9] if len(style) > 9 else 0)]
            if any(min(byte & 15, byte >> 4) < 4 for byte in sizes):
                raise ValueError("has a JPEG 2000 frame of too many precincts")
    if size is not None and size != stated:
        raise ValueError(f"has a frame of size {size} where its header states {stated}")


def _jpeg_size(part: bytes) -> tuple[int, int]:
    """Rows and columns in the frame header of a JPEG or JPEG-LS stream."""
    position = 2
    while position + 10 <= len(part) and part[position] == 0xFF:
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


def is_series(folder: Path) -> bool:
    """Tell whether a folder directly holds DICOM files."""
    return os.path.isdir(folder) and any(map(is_dicom, _files(folder)))


def list_series(folder: Path) -> list[tuple[str, Path]]:
    """Name and path of every subfolder that holds DICOM files, sorted; hidden ones left out."""
    return [
        (path.name, path)
        for path in sorted(folder.iterdir())
        if path.is_dir() and not path.name.startswith(".") and is_series(path)
    ]


def series_modality(folder: Path) -> str:
    """Modality of the first DICOM file in a folder; empty where it cannot be read."""
    try:
        return read_dicom(next(path for path in _files(folder) if is_dicom(path))).modality
    except (ValueError, OSError, StopIteration):
        return ""


def segmentation_flaw(modality: str, name: str, what: str = "which is not read") -> tuple[str, str]:
    """Return what is wrong with regions in DICOM, and what to do."""
    how = f"convert it with {SEGMENTATIONS[modality].format(quote(name))}, or 3D Slicer"
    told = f"holds a segmentation of DICOM ({modality}), {what}"
    return told, f"{how}, and put the label map beside the series"


def label_file(path: Path) -> Path:
    """Return the file of a label that is named by its folder: of a series of one segmentation."""
    files = [*filter(is_dicom, _files(path))] if path.is_dir() else []
    return files[0] if len(files) == 1 else path


def open_segments(path: Path) -> Any:
    """Return a segmentation of highdicom, whose values are not read."""
    try:
        from highdicom.seg import segread
    except ImportError as error:
        what, remedy = segmentation_flaw("SEG", path.name, "which is read by highdicom")
        raise ImageFileError(what, f"pip install 'skte[dicom]', or {remedy}") from error
    try:
        found = segread(path, lazy_frame_retrieval=True)
    except Exception as error:  # it relies on what the standard demands
        what, remedy = segmentation_flaw("SEG", path.name, f"which highdicom refuses ({error})")
        raise ImageFileError(what, remedy) from error
    if found.SegmentationType == "FRACTIONAL":
        what = "which holds probabilities, not segments (FRACTIONAL)"
        raise ImageFileError(*segmentation_flaw("SEG", path.name, what))
    return found


def segments_header(path: Path) -> tuple[tuple[int, ...], NDArray[np.float64]]:
    """Shape (x, y, z) and RAS+ affine of the slices that have segments."""
    place = open_segments(path).get_volume_geometry()
    if place is None:
        what = "whose slices are not parallel and evenly spaced"
        raise ImageFileError(*segmentation_flaw("SEG", path.name, what))
    affine = np.array(place.affine, np.float64)[:, [2, 1, 0, 3]]  # of slice, row, column
    affine[:3] = _LPS_TO_RAS @ affine[:3]
    return tuple(place.spatial_shape[::-1]), affine


def read_segments(path: Path) -> NDArray[Any]:
    """Numbers of segments (1, x, y, z), which must not overlap."""
    from highdicom.seg import segread

    # Not lazily: some frames whose bits fill no whole bytes would fail.
    try:
        values = segread(path).get_volume(combine_segments=True).array
    except RuntimeError as error:
        what = "whose segments overlap"
        raise ImageFileError(*segmentation_flaw("SEG", path.name, what)) from error
    return np.asarray(values.transpose(2, 1, 0)[None])


def series_header(
    names: Sequence[Path],
) -> tuple[tuple[int, ...], NDArray[np.float64], str, tuple[Flaw, ...]]:
    """Shape (channels, x, y, z), RAS+ affine, ITK's name of the type, and notes; of headers."""
    headers = [_header(name) for name in names]
    first = headers[0]
    for what, values in {
        "size": [h.GetSize() for h in headers],
        "samples per pixel": [h.GetNumberOfComponents() for h in headers],
        "spacing": [h.GetSpacing()[:2] for h in headers],
        "direction": [h.GetDirection() for h in headers],
        "what their lowest value shows": [len(turned_notes(h)) for h in headers],
    }.items():
        if any(not np.allclose(value, values[0], atol=1e-3) for value in values):
            raise ImageFileError(f"has slices that differ in {what}", "keep those of one series")
    notes = turned_notes(first)
    size, spacing = list(first.GetSize()), np.array(first.GetSpacing(), dtype=np.float64)
    direction = np.array(first.GetDirection(), dtype=np.float64).reshape(len(size), -1)
    if len(size) != 3:
        raise ImageFileError(f"has images of {len(size)} axes", "give slices or one volume")
    if len(names) > 1:
        size[2] *= len(names)
        origins = np.array([h.GetOrigin() for h in headers])
        spacing[2] = _even_step(origins, direction[:, 2])
        upright = abs((origins[-1] - origins[0]) @ direction[:, 2]) / spacing[2] / (len(names) - 1)
        if upright < 0.999:
            angle = np.degrees(np.arccos(upright))
            what = (
                f"its slices are stacked at {angle:.0f} degrees (gantry tilt), which is not undone"
            )
            notes += ((what, "convert it with dcm2niix, which resamples it"),)
    affine = np.eye(4)
    affine[:3, :3] = _LPS_TO_RAS @ direction @ np.diag(spacing)
    affine[:3, 3] = _LPS_TO_RAS @ np.array(first.GetOrigin())
    shape = (first.GetNumberOfComponents(), *size)
    kinds = {sitk.GetPixelIDValueAsString(h.GetPixelID()) for h in headers}
    kind = kinds.pop() if len(kinds) == 1 else "64-bit float"
    return shape, affine, kind, notes


def turned_notes(header: Any) -> tuple[Flaw, ...]:
    """Note that ITK turns values round of which the lowest is to be shown white."""
    key = "0028|0004"
    if not header.HasMetaDataKey(key) or header.GetMetaData(key).strip() != "MONOCHROME1":
        return ()
    what = "its lowest stored value is to be shown white (MONOCHROME1), so values are turned round"
    return ((what, "check that bright is high in the other images, too"),)


def series_files(folder: Path, roots: Sequence[Path] | None = None) -> list[Path]:
    """Files of the one series in a folder by position; an error where one cannot be used."""
    odd = [path.name for path in sorted(folder.iterdir()) if not (path.is_file() or path.is_dir())]
    if odd:
        names = ", ".join(odd[:5])
        raise ImageFileError(f"holds broken links, pipes or the like ({names})", "replace them")
    found: dict[Path, DicomFile] = {}
    for path in filter(is_dicom, _files(folder)):
        if problem := outside_problem(path, roots or (folder,)):
            what = f"holds {path.name}, which {problem}"
            raise ImageFileError(what, "or put the file inside")
        try:
            found[path] = read_dicom(path)
        except ValueError as error:
            raise ImageFileError(f"holds {path.name}, which {error}", "replace it") from error
        if (kind := found[path].modality) in SEGMENTATIONS:
            what = f"holds {path.name}, which is a segmentation ({kind}), not a slice"
            raise ImageFileError(what, "put it into a folder of its own")
    series = Counter(one.series for one in found.values() if one.is_image)
    if len(series) > 1:
        what = f"holds {len(series)} DICOM series, of which only one would be read"
        raise ImageFileError(what, "give each a folder of its own")
    if not series:
        raise ImageFileError("holds no DICOM image")
    if n_other := sum(not one.is_image for one in found.values()):
        what = f"holds {n_other} of {len(found)} DICOM files that are not images of the series"
        raise ImageFileError(f"{what} (reports or damaged files)", "remove them")
    return sorted(found, key=lambda path: found[path].place)


def read_series(names: Sequence[Path]) -> Any:
    """Return the volume of a series, an image of SimpleITK."""
    reader = sitk.ImageSeriesReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileNames([str(name) for name in names])
    headers = [_header(name) for name in names]
    if len({h.GetPixelID() for h in headers}) > 1:  # by slopes; otherwise cast to the first's
        many = headers[0].GetNumberOfComponents() > 1
        reader.SetOutputPixelType(sitk.sitkVectorFloat64 if many else sitk.sitkFloat64)
    return reader.Execute()


def _even_step(origins: NDArray[np.float64], normal: NDArray[np.float64]) -> float:
    """Distance between slices, which must all be about the same."""
    steps = np.diff(origins @ normal)
    step = float(np.linalg.norm(origins[-1] - origins[0])) / len(steps)
    if step == 0 or np.abs(np.abs(steps) - step).max() > _SPACING_TOLERANCE * step:
        low, high = np.abs(steps).min(), np.abs(steps).max()
        what = f"has slices that are not evenly spaced ({low:.3g} to {high:.3g} mm apart)"
        raise ImageFileError(
            f"{what}: some are missing, doubled, or of other series", "complete it"
        )
    return step


def _header(name: Path) -> Any:
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(name))
    reader.ReadImageInformation()
    return reader


def _files(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.iterdir()) if path.is_file()]
