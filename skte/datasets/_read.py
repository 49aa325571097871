"""Reading image files: headers alone, or values that nothing has touched up.

NIfTI and MGH go through nibabel, pictures through a reader of ours, everything else through the
one reader of ITK that fits. ITK fills a truncated NIfTI file with zeros and turns NaN into zero
silently, so that a broken case would pass for a whole one; it takes colours for class ids.
"""

from __future__ import annotations

import gzip
import json
import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from shlex import quote
from typing import Any, TypeVar

import nibabel as nib
import numpy as np
import SimpleITK as sitk  # noqa: N813 (its own habit; torchio depends on it)
import torchio as tio
from nibabel import orientations
from numpy.typing import NDArray
from torchio.data.io import get_ras_affine_from_sitk, read_image, sitk_to_nib

from skte._memory import memory_problem
from skte._text import clean_text
from skte.datasets._dicom_file import (
    read_segments,
    read_series,
    segments_header,
    series_files,
    series_header,
    turned_notes,
)
from skte.datasets._image_file import (
    ImageFile,
    check_packed,
    examine_image,
    file_flaw,
    image_paths,
    merge_layers,
    named_roots,
    spacing_files,
    unit_notes,
)
from skte.datasets._labels import RelabelingReader
from skte.datasets._picture import Picture
from skte.datasets._problem import Flaw, ImageFileError

# Bytes before the values of a NIfTI file, which its extensions take.
_MOST_EXTENSIONS = 2**22
# What becomes of a value: a float32 image beside what was read, or an int64 label and a copy.
_IMAGE_BYTES, _LABEL_BYTES = 4, 16
_MGHHeader = nib.freesurfer.MGHImage.header_class
_IMAGE_CLASSES = {
    nib.Nifti1Header: nib.Nifti1Image,
    nib.Nifti2Header: nib.Nifti2Image,
    _MGHHeader: nib.freesurfer.MGHImage,
}
# Types that ITK has, by words of their names.
_ITK_TYPES = {"8-bit": 1, "16-bit": 2, "32-bit": 4, "64-bit": 8}
_T = TypeVar("_T")
# How far, in voxels, image and label may lie apart at the farthest corner: above what
# rounding in headers causes, below what would move a label.
_AFFINE_TOLERANCE = 0.05
# In mm. Beyond it a header counts in other units (micrometres, mostly): resampled to a
# model's spacing in mm, such an image would take all memory.
_LONGEST_EDGE = 100_000
# How far ids may lie from integers, as a slope in a header leaves them.
_ROUNDING = 1e-3
_MOST_JSON = 2**20  # bytes of the file that states the spacing of a picture
_NIFTI_UNITS = {1: 1000.0, 3: 0.001}  # metre and micron, in mm
# On which grid voxels lie: that of the world, or that of a picture, which may state its spacing.
_WORLD, _PICTURE, _SIZED_PICTURE = "world", "picture", "sized picture"


@dataclass(frozen=True, eq=False)
class ImageHeader:
    """Geometry of one file or tensor."""

    source: str  # the file, or the name of an image in memory
    shape: tuple[int, ...]  # channels, x, y, z
    affines: tuple[NDArray[np.float64], ...]  # voxel to world; of NIfTI's two the first counts
    n_bytes: int = 0  # at the peak of reading
    file_bytes: int = 0
    edges: tuple[float, ...] = ()  # spacing in mm as stated, without the rounding of an affine
    stored: tuple[int, ...] = ()  # the shape in the file, where it has four axes
    grid: str = _WORLD
    notes: tuple[Flaw, ...] = ()
    # What is added before and behind each axis; None: nothing may be. Segmentations of DICOM
    # and 3D Slicer may hold only the part that has segments; the rest is background, whatever
    # its new id is.
    beyond: tuple[tuple[int, int], ...] | None = None
    background: int = 0

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Edges of a voxel in mm: those stated, where the affine agrees."""
        x, y, z = np.linalg.norm(self.affines[0][:3, :3], axis=0).tolist()
        if len(self.edges) == 3 and np.allclose(self.edges, (x, y, z), rtol=1e-4, atol=0):
            x, y, z = self.edges
        return x, y, z

    def complete(self, array: NDArray[Any]) -> NDArray[Any]:
        """Add what the file leaves out to an array (channels, x, y, z)."""
        if self.beyond is None:
            return array
        return np.pad(array, ((0, 0), *self.beyond), constant_values=self.background)


@dataclass(frozen=True)
class ChannelReader:
    """A reader for torchio that picks channels of what another one reads."""

    channels: tuple[int, ...]
    reader: Callable[[Any], Any] = read_image

    def __call__(self, path: str | Path) -> tuple[Any, Any]:
        """Read and pick."""
        tensor, affine = self.reader(path)
        return tensor[list(self.channels)], affine

    def apply(self, array: NDArray[Any]) -> NDArray[Any]:
        """Pick channels of an array."""
        return array[list(self.channels)]


def image_options(image: Any) -> dict[str, Any]:
    """How the files of an image are read, for another image of the same files."""
    kept = {key: image[key] for key in ("roots", "alpha", "calibrated") if key in image}
    return {"reader": image.reader, "verify_path": False, **kept}


def count_channels(files: Sequence[Path], **options: Any) -> int | None:
    """Count the channels in the files of a case; None where a header cannot be read."""
    image = tio.ScalarImage(list(files), verify_path=False, **options)
    headers, _, flaws = read_headers({"image": image})
    return None if flaws else sum(header.shape[0] for header in headers)


def read_headers(images: Mapping[str, Any]) -> tuple[list[ImageHeader], dict[str, Any], list[Flaw]]:
    """Headers of the files of images, the images that have all of theirs, and flaws."""
    return _read_parts(images, _header)


def read_arrays(images: Mapping[str, Any]) -> tuple[list[NDArray[Any]], list[Flaw], list[Flaw]]:
    """Values (channels, x, y, z) of the files of images as stored, flaws, and notes."""
    notes: list[Flaw] = []
    arrays, _, flaws = _read_parts(images, lambda part, source: _values(part, notes))
    return arrays, flaws, notes


def _read_parts(
    images: Mapping[str, Any], read: Callable[[Any, str], _T]
) -> tuple[list[_T], dict[str, Any], list[Flaw]]:
    found: list[_T] = []
    whole: dict[str, Any] = {}
    flaws: list[Flaw] = []
    for name, image in images.items():
        n_before = len(flaws)
        for part in _parts(image):
            source = str(part.path) if part.path else f"image {name!r}"
            try:
                found.append(read(part, source))
            except Exception as error:  # readers of images raise errors of any kind
                flaws.append(_unreadable(source, error))
        if len(flaws) == n_before:
            whole[name] = image
    return found, whole, flaws


def memory_flaws(images: list[ImageHeader], label: ImageHeader | None) -> list[Flaw]:
    """Find what takes more memory than allowed: all images of a case, or the label."""
    remedy = "otherwise leave the case out"
    total, size = sum(h.n_bytes for h in images), sum(h.file_bytes for h in images)
    if total and (problem := memory_problem(total, size)):
        return [(f"{', '.join(h.source for h in images)} {problem}", remedy)]
    if label is None or not label.n_bytes:
        return []
    bounded = any(math.prod(h.shape[1:]) == math.prod(label.shape) for h in images)
    problem = memory_problem(label.n_bytes, None if bounded else label.file_bytes)
    return [(f"the label {label.source} {problem}", remedy)] if problem else []


def _parts(image: Any) -> list[Any]:
    """One torchio image per file, so that each can be named; copies, so that none is loaded."""
    if tio.DATA in image:
        return [image]
    return [type(image)(path, **image_options(image)) for path in image_paths(image)]


def _header(part: Any, source: str) -> ImageHeader:
    if (inner := _inner(part)) is not None:
        header = _header(inner, source)
        if isinstance(part.reader, ChannelReader):
            return replace(header, shape=(len(part.reader.channels), *header.shape[1:]))
        return replace(header, background=part.reader.relabeling(0))
    label = isinstance(part, tio.LabelMap)
    if not _is_ours(part):
        header = ImageHeader(source, tuple(part.shape), (np.asarray(part.affine),))
    elif part.path.is_dir():
        names = series_files(part.path, part.get("roots"))
        shape, affine, kind, notes = series_header(names)
        size = sum(name.stat().st_size for name in names)
        n_bytes = _peak(shape, kind, label)
        header = ImageHeader(source, shape, (affine,), n_bytes, size, notes=notes)
    else:
        file = examine_image(part.path, part.get("roots"))
        if file.picture is not None:
            header = _picture_header(file, source, part)
        else:
            header = _HEADERS.get(file.reader, _itk_header)(file, source, label)
    if max(header.shape) >= 2**31:
        raise ImageFileError(f"states a shape of {header.shape}")
    return header


def _picture_header(file: ImageFile, source: str, part: Any) -> ImageHeader:
    picture, path, label = file.picture, file.files[0], isinstance(part, tio.LabelMap)
    assert picture is not None
    shape = picture.n_channels(label=label, alpha=bool(part.get("alpha"))), *picture.size
    if label and (wrong := _no_label(picture, path)):
        raise ImageFileError(*wrong)
    roots = part.get("roots") or named_roots(path)
    stated, notes = _stated_spacing(path, roots), list(picture.notes)
    if stated is None and picture.spacing:
        edges = " x ".join(f"{edge:.4g}" for edge in picture.spacing)
        if part.get("calibrated", True):
            stated = picture.spacing
            notes.append((f"its spacing is what ImageJ or OME states, {edges} mm", _AS_JSON))
        else:
            what = f"ImageJ or OME states a spacing of {edges} mm, which this layout does not use"
            notes.append((what, _AS_JSON))
    spacing = stated or (1.0, 1.0, 1.0)
    n_raw = (
        math.prod(picture.size) * picture.samples * (2 * picture.dtype.itemsize + picture.scratch)
    )
    made = picture.dtype.itemsize + (_LABEL_BYTES if label else _IMAGE_BYTES)
    return ImageHeader(
        source,
        shape,
        (np.diag([-spacing[0], -spacing[1], spacing[2], 1.0]),),  # rows go down, as ITK has it
        n_raw + math.prod(shape) * made,
        file.n_bytes,
        edges=spacing,
        grid=_SIZED_PICTURE if stated else _PICTURE,
        notes=tuple(notes),
    )


def _no_label(picture: Picture, path: Path) -> Flaw | None:
    """Why a picture cannot be a label map."""
    name, other = quote(path.name), quote(f"{path.stem}_ids.png")
    if picture.lossy:
        what = "is compressed as JPEG, which changes ids, so it cannot be a label"
        remedy = "save the original as PNG; where only this is left and it has one class"
        return what, f"{remedy}, `magick {name} -threshold 50% {other}`"
    if picture.n_channels(label=True, alpha=False) == 1:
        return None
    colours = "a true colour picture" if picture.samples - picture.alpha == 3 else "a picture"
    what = f"is {colours} of {picture.samples} samples per pixel, where a label has one id"
    remedy = "map each colour to an id; where all samples are alike"
    return what, f"{remedy}, `magick {name} -alpha off -colorspace Gray {other}`"


_AS_JSON = "state another in a .json of its name beside it, {'spacing': [z, y, x]}"


def _stated_spacing(path: Path, roots: Sequence[Path]) -> tuple[float, float, float] | None:
    """Spacing x, y, z in mm that a JSON file beside a picture states, as nnU-Net writes it."""
    for file in spacing_files(path):
        if flaw := file_flaw(file, roots):
            raise ImageFileError(f"has its spacing in a file that is not read: {flaw[0]}", flaw[1])
        if file.stat().st_size > _MOST_JSON:
            raise ImageFileError(f"has {file.name} of more than {_MOST_JSON} bytes beside it")
        try:
            content = json.loads(file.read_text(encoding="utf-8-sig"))
        except (OSError, ValueError, RecursionError) as error:
            what = f"has {file.name} beside it, which is not valid JSON"
            raise ImageFileError(what, "fix it") from error
        if not isinstance(content, dict) or "spacing" not in content:
            continue
        edges = content["spacing"]
        if (
            not isinstance(edges, list)
            or len(edges) not in (2, 3)
            or not all(type(edge) in (int, float) and 0 < edge < 1e9 for edge in edges)
        ):
            what = f"has {file.name} beside it, whose 'spacing' is {edges!r:.100}"
            raise ImageFileError(what, "write positive numbers in mm, [z, y, x]")
        x, y, z = (*map(float, edges[::-1]), 1.0)[:3]
        return x, y, z
    return None


def _itk_header(file: ImageFile, source: str, label: bool) -> ImageHeader:
    reader = sitk.ImageFileReader()
    reader.SetImageIO(file.reader)
    reader.SetFileName(str(file.files[0]))
    reader.ReadImageInformation()
    n_axes, n_components = reader.GetDimension(), reader.GetNumberOfComponents()
    shape = tuple(reader.GetSize())
    if not 2 <= n_axes <= 4 or (n_axes == 4 and n_components > 1):
        raise ValueError(f"an image of shape {shape} and {n_components} components is not read")
    stored = shape if n_axes == 4 else ()
    # Of four axes the last is that of the channels.
    shape = (shape[3], *shape[:3]) if n_axes == 4 else (n_components, *shape, 1)[:4]
    kind = sitk.GetPixelIDValueAsString(reader.GetPixelID())
    n_bytes = _peak(shape, kind, label)
    if file.plain:
        size = sum(path.stat().st_size for path in file.files) - file.head
        _check_size(math.prod(shape) * _itk_bytes(kind), size)
    if label and file.segments:
        shape = (1, *shape[1:])  # layers are merged
    affine = np.asarray(get_ras_affine_from_sitk(reader), dtype=np.float64)
    affine[:3] *= file.unit
    edges = tuple(edge * file.unit for edge in (*reader.GetSpacing(), 1.0)[:3])
    return ImageHeader(
        source,
        shape,
        (affine,),
        n_bytes,
        file.n_bytes,
        edges,
        stored,
        notes=unit_notes(file.unit) + turned_notes(reader),
        beyond=((0, 0),) * 3 if label and file.segments else None,
    )


def _nibabel_header(file: ImageFile, source: str, label: bool) -> ImageHeader:
    """Header of a NIfTI or MGH file, from its first bytes alone."""
    path = file.files[0]
    header = _first_bytes(path)
    shape = _channels_first_shape(header.get_data_shape())
    dtype, offset = header.get_data_dtype(), int(header.get_data_offset())
    stored = math.prod(shape) * dtype.itemsize + offset
    if not 0 <= offset <= _MOST_EXTENSIONS:
        raise ImageFileError(f"states that its values begin at byte {offset}")
    if file.plain:
        _check_size(stored, path.stat().st_size)
    slope, inter = header.get_slope_inter()
    scaled = (1 if slope is None else slope, inter or 0) != (1, 0)
    # Scaled values are float64, beside those they are made of.
    held = dtype.itemsize + 8 if scaled else dtype.itemsize
    n_bytes = math.prod(shape) * (held + (_LABEL_BYTES if label else _IMAGE_BYTES)) + offset
    affines = [np.array(header.get_best_affine(), dtype=np.float64)]
    unit = 1.0
    if isinstance(header, nib.Nifti1Header):
        forms = header.get_sform(coded=True)[0], header.get_qform(coded=True)[0]
        affines += [np.array(affine) for affine in forms if affine is not None]
        unit = _NIFTI_UNITS.get(int(header["xyzt_units"]) & 7, 1.0)
    for affine in affines:
        affine[:3] *= unit
    edges = [abs(float(edge)) * unit for edge in header.get_zooms()[:3]]
    notes = unit_notes(unit)
    sizes = np.linalg.norm(affines[0][:3, :3], axis=0)
    if not np.allclose(sizes[: len(edges)], edges, rtol=0.01, equal_nan=True):
        stated, counts = (" x ".join(f"{edge:.3g}" for edge in part) for part in (edges, sizes))
        what = f"its header states voxels of {stated} mm, its affine {counts} mm; the affine counts"
        notes += ((what, "correct it: other programs may use the other sizes"),)
    axes = tuple(map(int, header.get_data_shape()))
    return ImageHeader(
        source,
        shape,
        tuple(affines),
        n_bytes,
        file.n_bytes,
        edges=tuple(edges) + (1.0,) * (3 - len(edges)),
        stored=axes if len(axes) > 3 else (),
        notes=notes,
    )


def _segments_header(file: ImageFile, source: str, label: bool) -> ImageHeader:
    if not label:
        raise ImageFileError("holds a segmentation, not an image", "give the series that it is of")
    shape, affine = segments_header(file.files[0])
    n_bytes = math.prod(shape) * (2 + _LABEL_BYTES)
    return ImageHeader(source, (1, *shape), (affine,), n_bytes, file.n_bytes, beyond=((0, 0),) * 3)


_HEADERS = {"nibabel": _nibabel_header, "highdicom": _segments_header}


def _first_bytes(path: Path) -> Any:
    """Header of a NIfTI or MGH file, without what a header may lead to."""
    name = path.name.lower()
    try:
        with gzip.open(path) if _is_packed(path) else path.open("rb") as opened:
            start = opened.read(540)
    except (EOFError, zlib.error) as error:
        raise ImageFileError(f"is cut short or damaged ({error})") from error
    if name.endswith((".mgh", ".mgz")):
        if len(start) < 284:
            raise ImageFileError("is not an MGH file")
        return _MGHHeader(start[:284])
    for kind, size in ((nib.Nifti1Header, 348), (nib.Nifti2Header, 540)):
        if len(start) >= size and kind.may_contain_header(start):
            return kind(start[:size])
    raise ImageFileError("is not a NIfTI file")


def _is_packed(path: Path) -> bool:
    return path.name.lower().endswith((".gz", ".mgz"))


def _check_size(promised: int, size: int) -> None:
    if promised > size:
        what = (
            f"has {size} bytes, and its header promises {promised:.3g}: more than the file can hold"
        )
        raise ImageFileError(what, "it is cut short: replace it or leave the case out")


def _peak(shape: tuple[int, ...], kind: str, label: bool) -> int:
    """Bytes for values that ITK reads: its own, a copy in a type of torch, and what is made."""
    n_bytes = _itk_bytes(kind)
    unsigned = "unsigned" in kind and n_bytes in (2, 4)
    copied = n_bytes * (2 if unsigned else 1)
    # ITK's values are gone when those that are used are made.
    each = max(n_bytes + copied, copied + (_LABEL_BYTES if label else _IMAGE_BYTES))
    return math.prod(shape) * each


def _itk_bytes(kind: str) -> int:
    n_bytes = next((n for name, n in _ITK_TYPES.items() if name in kind), 8)
    return n_bytes * (2 if "complex" in kind else 1)


def _values(part: Any, notes: list[Flaw]) -> NDArray[Any]:
    if (inner := _inner(part)) is not None:
        return np.asarray(part.reader.apply(_values(inner, notes)))
    label = isinstance(part, tio.LabelMap)
    if not _is_ours(part):
        values = np.asarray(part.data.detach().cpu().resolve_conj())
    elif part.path.is_dir():
        volume = read_series(series_files(part.path, part.get("roots")))
        values = np.asarray(sitk_to_nib(volume, keepdim=True)[0])
    else:
        file = examine_image(part.path, part.get("roots"))
        if file.picture is not None:
            values, found = file.picture.values(label=label, alpha=bool(part.get("alpha")))
            notes += found[len(file.picture.notes) :]  # the others are those of the header
        elif file.reader == "nibabel":
            values = _nibabel_values(part.path)
        elif file.reader == "highdicom":
            values = read_segments(part.path)
        else:
            stored = sitk.ReadImage(str(part.path), imageIO=file.reader)
            check_packed(file, sitk.GetArrayViewFromImage(stored).nbytes)
            values = np.asarray(sitk_to_nib(stored, keepdim=True)[0])
            values = merge_layers(values, file.segments) if label else values
    return _rounded(values, notes) if label else values


def _nibabel_values(path: Path) -> NDArray[Any]:
    kind, packed = _IMAGE_CLASSES[type(_first_bytes(path))], _is_packed(path)
    with gzip.open(path) if packed else path.open("rb") as stream:
        file = kind.from_file_map({"image": nib.FileHolder(fileobj=stream)}, mmap=False)
        data = np.asarray(file.dataobj)
        try:
            stream.read(2**16)  # the end, where a sum of all bytes shows damage
        except gzip.BadGzipFile as error:
            if "Not a gzipped file" not in str(error):  # behind the end, as gzip ignores it
                raise
    shape = _channels_first_shape(file.shape)
    if data.ndim >= 4:
        data = np.moveaxis(data.reshape(*data.shape[:3], -1), -1, 0)
    return data.reshape(shape)


def _rounded(label: NDArray[Any], notes: list[Flaw]) -> NDArray[Any]:
    """Ids that a slope has left beside integers, as integers; others as they are."""
    if label.dtype.kind != "f" or not label.size or not np.isfinite(label).all():
        return label
    rounded = np.rint(label)
    off = float(np.abs(label - rounded).max())
    if off and off <= _ROUNDING:
        what = f"its ids lie up to {off:.1g} from integers and are rounded"
        notes.append((what, "store integers to be sure"))
        return np.asarray(rounded)
    return label


def _inner(part: Any) -> Any:
    """Return the image as its file has it, where it is picked or renumbered afterwards."""
    if tio.DATA in part or not isinstance(part.reader, (RelabelingReader, ChannelReader)):
        return None
    return type(part)(part.path, **image_options(part) | {"reader": part.reader.reader})


def _is_ours(part: Any) -> bool:
    """Whether the file of an image is read here, not by a reader that the user wrote."""
    return tio.DATA not in part and part.reader is read_image


def _channels_first_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Channels last, as NIfTI stores them, to channels first; other axes have one entry."""
    shape = tuple(map(int, shape))
    shape = (*shape[:3], *(n for n in shape[3:] if n != 1))
    if not 2 <= len(shape) <= 4 or min(shape) < 1:
        raise ValueError(f"an image of shape {shape} is not supported")
    spatial = (*shape[:3], 1)[:3]
    return (shape[3] if len(shape) == 4 else 1, *spatial)


def _unreadable(source: str, error: Exception) -> Flaw:
    if isinstance(error, ImageFileError):
        return f"{source} cannot be read (it {error})", error.remedy
    text = clean_text(error, 300) or type(error).__name__
    if "SimpleITK" in text:  # which names lines of its source, and copies that are gone
        text = "its content is cut short or damaged"
    remedy = "the file may be missing, truncated or corrupted: replace it or leave the case out"
    return f"{source} cannot be read ({text})", remedy


def geometry_flaws(images: Sequence[ImageHeader], label: ImageHeader | None) -> list[Flaw]:
    """Find what is wrong with shapes and affines within one case."""
    everything = [*images, *([label] if label else [])]
    singular = [h for h in everything if not _is_regular(h.affines[0])]
    what = "has an affine that is singular or not finite"
    flaws = [(f"{h.source} {what}", "fix its header") for h in singular]
    for h in everything:
        spacing = np.linalg.norm(h.affines[0][:3, :3], axis=0)
        longest = float((spacing * h.shape[1:]).max())  # in mm
        if h not in singular and longest > _LONGEST_EDGE:
            what = f"{h.source} is {longest / 1000:.3g} m long by its affine"
            flaws.append((what, "fix its header: spacings are in mm"))
        if 0 in h.shape:
            what = f"{h.source} has no voxels (shape {h.shape})"
            flaws.append((what, "replace it or leave the case out"))
    if label and label.shape[0] > 1:
        what = f"the label ({label.source}) is 4-D with {label.shape[0]} channels{_stored(label)}"
        flaws.append((what, "merge one-hot channels into one map of class ids"))
    # Without an image there is nothing to compare with, which is a problem of its own.
    for header in everything[1:] if images else []:
        what = "label" if header is label else "channel"
        flaws += _disagreements(header, images[0], what, comparable=not singular)
    return flaws


def widen(header: ImageHeader, images: Sequence[ImageHeader]) -> ImageHeader:
    """Header of a label on all of the first image, of which its file may hold a part."""
    if header.beyond is None or not images or not _is_regular(header.affines[0]):
        return header
    image = images[0]
    ends = np.array([[0, n - 1] for n in image.shape[1:]] + [[1, 1]])
    found = np.rint(np.linalg.inv(header.affines[0]) @ image.affines[0] @ ends)[:3]
    low, high = np.minimum(found.min(1), 0), np.maximum(found.max(1) + 1, header.shape[1:])
    if sorted(high - low) != sorted(image.shape[1:]):
        return header
    shift = np.eye(4)
    shift[:3, 3] = low
    low, high = low.astype(int), high.astype(int)
    return replace(
        header,
        shape=(1, *(high - low).tolist()),
        affines=(header.affines[0] @ shift,),
        n_bytes=math.prod(image.shape[1:]) * (2 + _LABEL_BYTES),
        beyond=tuple(zip((-low).tolist(), (high - header.shape[1:]).tolist(), strict=True)),
    )


def turn_between(header: ImageHeader, reference: ImageHeader) -> NDArray[Any] | None:
    """Orientation (as nibabel has it) that lays an image on another's grid; None: as it is."""
    if not (_is_regular(header.affines[0]) and _is_regular(reference.affines[0])):
        return None
    if 0 in (*header.shape, *reference.shape):
        return None
    same = header.shape[1:] == reference.shape[1:]
    if same and _displacement(header, reference) <= _AFFINE_TOLERANCE:
        return None
    start, end = (orientations.io_orientation(h.affines[0]) for h in (header, reference))
    if np.isnan(start).any() or np.isnan(end).any():
        return None
    turn = orientations.ornt_transform(start, end)
    back = orientations.inv_ornt_aff(turn, header.shape[1:])
    sizes = np.empty(3, dtype=int)
    sizes[turn[:, 0].astype(int)] = header.shape[1:]
    if tuple(sizes) != reference.shape[1:]:
        return None
    turned = replace(header, affines=tuple(affine @ back for affine in header.affines))
    return turn if _displacement(turned, reference) <= _AFFINE_TOLERANCE else None


def reorient(array: NDArray[Any], turn: NDArray[Any] | None) -> NDArray[Any]:
    """Apply what `turn_between` returned to an array (channels, x, y, z)."""
    if turn is None:
        return array
    turned = orientations.apply_orientation(np.moveaxis(array, 0, -1), turn)  # a view
    return np.moveaxis(turned, -1, 0)


def _disagreements(
    header: ImageHeader, image: ImageHeader, what: str, *, comparable: bool
) -> list[Flaw]:
    if comparable and turn_between(header, image) is not None:
        return []
    if header.shape[1:] != image.shape[1:]:
        shape = f"has shape {header.shape[1:]}{_stored(header)}"
        shapes = f"{shape}, the image ({image.source}) {image.shape[1:]}{_stored(image)}"
        return [(f"the {what} ({header.source}) {shapes}", "resample one to the other's grid")]
    if comparable and (off := _displacement(header, image)) > _AFFINE_TOLERANCE:
        both = f"the {what} ({header.source}) and the image ({image.source})"
        apart = f"have different affines, {off:.3g} voxels apart at the farthest corner"
        remedy = "resample one to the other's grid, or copy the affine if the voxels do match"
        return [(f"{both} {apart}", remedy)]
    return []


def _stored(header: ImageHeader) -> str:
    """Return what to add to the shape of a file whose channels may lie first."""
    if len(header.stored) < 4:
        return ""
    return f" (stored as {header.stored}: channels must come last, not first)"


def _is_regular(affine: NDArray[np.float64]) -> bool:
    if not np.isfinite(affine).all():
        return False
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    return bool((spacing > 0).all() and abs(np.linalg.det(affine[:3, :3] / spacing)) > 1e-6)


def _displacement(a: ImageHeader, b: ImageHeader) -> float:
    """Largest distance between the corners of two images, in voxels."""
    if _WORLD not in (a.grid, b.grid) and _PICTURE in (a.grid, b.grid):
        return 0.0  # a picture without a spacing lies where the other one does
    # A NIfTI file may state its affine twice. Tools differ in which one they read and keep, so
    # two files agree when any of their affines do.
    corners = np.array([[*ijk, 1] for ijk in product(*((0, n - 1) for n in b.shape[1:]))])
    spacing = np.linalg.norm(b.affines[0][:3, :3], axis=0).min()
    # A step of one voxel shows a rotation that a flat image's corners would not.
    steps = np.vstack([corners, corners[0] + np.eye(4)[:3]])
    apart = [
        np.linalg.norm((first - second)[:3] @ steps.T, axis=0).max()
        for first, second in product(a.affines, b.affines)
    ]
    return float(min(apart) / spacing)
