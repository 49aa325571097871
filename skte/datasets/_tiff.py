"""TIFF pictures and stacks: tifffile says what a file holds, and decodes most of it.

ITK puts samples and planes in a row, makes colours of bits and palettes, and knows no stacks of
channels. It decodes what it reads rightly and tifffile cannot alone: fax, JPEG, LZW.
"""

from __future__ import annotations

import logging
import math
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import TiffImagePlugin
from tifffile import TiffFile, TiffPage

from skte.datasets._picture import Picture, read_by_itk, turning_notes, unread, without_colour
from skte.datasets._problem import Flaw, ImageFileError

TIFF_MAGICS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_MOST_PAGES = 65_536
_MOST_IN_TILE = 2**24  # values of a tile
_PHOTOMETRIC = {
    5: "CMYK", 6: "YCbCr", 8: "CIE L*a*b*", 9: "ICC L*a*b*", 10: "ITU L*a*b*", 32803: "raw",
    32844: "LogL", 32845: "LogLuv",
}  # fmt: skip
_DEFLATE = (8, 32946)
_PLAIN = (1, 32773, *_DEFLATE)  # compressions that tifffile undoes alone
_FAX, _LZW, _JPEG = (2, 3, 4), 5, 7
_LENGTHS_MM = {"nm": 1e-6, "um": 1e-3, "micron": 1e-3, "microns": 1e-3, "micrometer": 1e-3, "mm": 1}
_SLOW = "ZTIQRAPM"  # axes of which one may count slices, as tifffile names them
_Spacing: TypeAlias = tuple[float, float, float] | None

logging.getLogger("tifffile").addHandler(logging.NullHandler())  # what it says is raised here


def open_tiff(path: Path) -> Picture:
    """Read the header of a TIFF file."""
    with TiffFile(path, _multifile=False) as file:
        every = _checked_pages(file)
        pages = [page for page in every if not page.subfiletype & 5 or page is every[0]]
        page = pages[0]
        if len({_kind(one) for one in pages}) > 1:
            what = "has pages that differ in size, bits or colours"
            raise ImageFileError(what, "split it into one file for each (`tiffsplit`)")
        by = _decoder(path, page)
        stack = _stack(file, pages)
        spacing, unused = _spacing(file, page)
        of_imagej = bool(file.is_imagej)
    palette = None
    if page.photometric == 3 and not of_imagej:
        shades = np.asarray(page.colormap).T
        shades = shades // (256 if shades.max(initial=0) > 255 else 1)
        palette = without_colour(shades.astype(np.uint8))
    samples, extra = page.samplesperpixel, page.extrasamples
    n_base = 3 if page.photometric == 2 else 1
    is_alpha = extra[-1:] in ((1,), (2,)) or (n_base == 3 and samples == 4 and not extra)
    notes = turning_notes(path, _first(page, 274))
    notes += _notes(page, n_left_out=len(every) - len(pages), of_imagej=of_imagej, unused=unused)
    return Picture(
        (page.imagewidth, page.imagelength, stack.n_slices),
        samples * stack.n_channels,
        _dtype(page),
        partial(_read_tiff, path, page, stack, by),
        alpha=is_alpha and samples > n_base and stack.n_channels == 1,
        palette=palette,
        lossy=page.compression == _JPEG,
        spacing=spacing,
        scratch=8,
        notes=tuple(notes),
    )


def _checked_pages(file: TiffFile) -> list[TiffPage]:
    """Pages of a file; none that ask for more than the file could hold."""
    pages: list[TiffPage] = []
    size = left = file.filehandle.size  # bytes of tags: those of honest pages do not overlap
    packed = 0
    for page in file.pages:
        assert isinstance(page, TiffPage)
        pages.append(page)
        left -= sum(tag.valuebytecount for tag in page.tags)
        packed += 0 if page.compression == 1 else sum(page.databytecounts)
        if len(pages) > _MOST_PAGES:
            raise ImageFileError(f"has more than {_MOST_PAGES} pages")
        if left < 0:
            raise ImageFileError("has pages whose tags overlap")
        if packed > 2 * size:  # each would be unpacked
            raise ImageFileError("has strips or tiles that overlap")
        _check_tiles(page)
    if not pages:
        raise ImageFileError("has no page")
    spans = [
        (at, n)
        for page in pages
        for at, n in zip(page.dataoffsets, page.databytecounts, strict=False)
    ]
    if any(begin + n_bytes > size for begin, n_bytes in spans):
        raise ImageFileError("is cut short: it states pixels that lie behind its end")
    return pages


def _check_tiles(page: TiffPage) -> None:
    """Refuse tiles that are far larger than their image: a decoder asks for whole tiles."""
    width, length = page.tilewidth, page.tilelength
    huge = width > max(1024, 2 * page.imagewidth) or length > max(1024, 2 * page.imagelength)
    if huge or width * length * page.samplesperpixel > _MOST_IN_TILE:
        what = f"has tiles of {width} x {length} pixels of {page.samplesperpixel} samples"
        raise ImageFileError(what)


def _kind(page: TiffPage) -> tuple[Any, ...]:
    """Return what all pages of a stack have alike."""
    colours = None if page.colormap is None else page.colormap.tobytes()
    return page.shaped, page.dtype, page.bitspersample, page.photometric, page.compression, colours


def _first(page: TiffPage, code: int) -> int:
    """Value of a tag, which a damaged file may give as something else; 0 where there is none."""
    value = page.tags.valueof(code, 0)
    return int(value) if isinstance(value, int) else 0


def _dtype(page: TiffPage) -> np.dtype[Any]:
    """Type of the values, in native byte order; bits are numbers."""
    return np.dtype(np.uint8) if page.bitspersample < 8 else np.dtype(page.dtype)


def _decoder(path: Path, page: TiffPage) -> str:
    """Who reads the values of a page; an error where nobody does rightly."""
    samples, bits, packed = page.samplesperpixel, page.bitspersample, page.compression
    if min(page.imagewidth, page.imagelength, samples) < 1 or page.imagedepth != 1:
        size = f"{page.imagewidth} x {page.imagelength} x {page.imagedepth}"
        raise unread(path, f"is a TIFF of {size} pixels per page")
    if page.dtype is None or page.dtype.kind not in "biuf" or bits not in (1, 2, 4, 8, 16, 32, 64):
        what = "has values of a type that is not read: complex, odd, or different in each sample"
        raise unread(path, what)
    if page.photometric in _PHOTOMETRIC and packed != _JPEG:
        what = f"holds {_PHOTOMETRIC[page.photometric]} values, not grey or red, green and blue"
        raise unread(path, what)
    whole = page.planarconfig == 1 and not page.is_tiled and samples in (1, 3, 4)
    padded = page.is_tiled and bits == 1 < samples  # whose rows tifffile cuts amiss
    # Of other compressions tifffile undoes differences that the tag states and nobody wrote.
    known = page.predictor == 1 or (page.predictor == 2 and packed in _DEFLATE)
    if packed in _PLAIN and bits not in (2, 4) and known and not padded:
        return "tifffile"
    if page.tags.valueof(274, 1) != 1:  # Pillow and ITK would turn it, or make colours of it
        raise unread(path, "states how to rotate it, in a compression that is not read then")
    if whole and page.photometric == 3 and bits <= 8 and packed in (*_PLAIN, _LZW):
        return "pillow"  # ITK gives the colours of a palette
    if whole and bits == samples == 1 and packed in (*_FAX, _LZW):
        return "itk"
    if whole and packed == _JPEG and bits == 8 and samples < 4:
        return "itk"
    plain = whole and page.photometric in (0, 1, 2) and (samples > 1) == (page.photometric == 2)
    if plain and packed in (_LZW, *_DEFLATE) and bits >= 8 and page.dtype != np.float16:
        return "itk"
    what = f"has {samples} samples of {bits} bits in a compression that is not read for them"
    raise unread(path, f"{what} (number {packed:d}, predictor {page.predictor:d})")


@dataclass(frozen=True)
class _Stack:
    """How the pages of a file are slices and channels."""

    shape: tuple[int, ...]  # of the axes that pages run along, the slowest first
    channel_axis: int | None = None

    @property
    def n_channels(self) -> int:
        """Pages that are channels of one slice."""
        return 1 if self.channel_axis is None else self.shape[self.channel_axis]

    @property
    def n_slices(self) -> int:
        """Slices, or points in time."""
        return math.prod(self.shape) // self.n_channels

    def arrange(self, pixels: NDArray[Any]) -> NDArray[Any]:
        """Pages (page, y, x, samples) as (z, y, x, samples)."""
        if self.channel_axis is None:
            return pixels
        turned = np.moveaxis(pixels.reshape(*self.shape, *pixels.shape[1:]), self.channel_axis, -1)
        return turned.reshape(self.n_slices, *pixels.shape[1:3], -1)


def _stack(file: TiffFile, pages: Sequence[TiffPage]) -> _Stack:
    """Understand the pages as tifffile does, where its description fits them; else as slices."""
    n_pages, samples = len(pages), pages[0].samplesperpixel
    try:
        series = file.series[0]
    except Exception as error:  # it relies on descriptions to hold what they should
        what = f"has a description that is not understood ({error!r:.100})"
        raise ImageFileError(what, "save it as a plain TIFF") from error
    within = "YX" if samples == 1 else "YXS" if pages[0].planarconfig == 1 else "SYX"
    axes = [(axis, n) for axis, n in zip(series.axes, series.shape, strict=True) if n > 1]
    slow = [(axis, n) for axis, n in axes if axis not in within]
    n_stated = math.prod(n for _, n in slow)
    if n_stated != n_pages and n_pages > 1:
        return _Stack((n_pages,))
    if n_stated != n_pages and not (series.kind == "imagej" and pages[0].compression == 1):
        what = f"is one of {n_stated} parts of an image, by its description"
        raise ImageFileError(what, "save the image as one file")
    channels = [i for i, (axis, _) in enumerate(slow) if axis in "CS"]
    if len(slow) - len(channels) > 1:
        raise ImageFileError("has slices and points in time", "save one file for each time")
    if len(channels) > 1 or (channels and samples > 1):
        raise ImageFileError("has channels in pages and in samples", "save it as one or the other")
    return _Stack(tuple(n for _, n in slow), channels[0] if channels else None)


def _spacing(file: TiffFile, page: TiffPage) -> tuple[_Spacing, str]:
    """Edges x, y, z in mm that ImageJ or OME states, and what is stated and not used."""
    if stated := file.imagej_metadata:
        unit = str(stated.get("unit", "")).replace("\\u00B5", "u")
        unit = re.sub("[µμ\ufffd]", "u", unit)
        if unit in _LENGTHS_MM:
            resolutions = [page.tags.valueof(code) for code in (282, 283)]
            edges = [r[1] / r[0] if r and r[0] else 1.0 for r in resolutions]
            depth = stated.get("spacing", 1.0)
            edges.append((abs(depth) if isinstance(depth, (int, float)) else 1.0) or 1.0)
            return _usable([edge * _LENGTHS_MM[unit] for edge in edges]), ""
        if unit and unit not in ("pixel", "pixels"):
            return None, f"its resolution in {unit!r:.30} is that of printing and is not used"
    found = re.search(r"<(?:\w+:)?Pixels\b([^>]*)>", file.ome_metadata or "")
    if not found:
        return None, ""
    attributes = dict(re.findall(r"(\w+)\s*=\s*[\"']([^\"']*)[\"']", found[1]))
    edges = []
    for axis in "XYZ":
        value = attributes.get(f"PhysicalSize{axis}")
        unit = attributes.get(f"PhysicalSize{axis}Unit", "um")
        scale = _LENGTHS_MM.get(re.sub("µ|μ|&#181;|&#xB5;", "u", unit), 0.0)
        given = value is not None and re.fullmatch(r"[\d.eE+-]{1,40}", value)
        edges.append(float(value or 0) * scale if given else 1.0 if axis == "Z" else 0.0)
    return _usable(edges), ""


def _usable(edges: Sequence[float]) -> _Spacing:
    x, y, z = edges
    return (x, y, z) if all(math.isfinite(e) and e > 0 for e in edges) else None


def _notes(page: TiffPage, *, n_left_out: int, of_imagej: bool, unused: str) -> list[Flaw]:
    """Note what a user may not expect of how a file is read."""
    notes = []
    if n_left_out:
        what = f"it holds {n_left_out} smaller copies or masks, which are left out"
        notes.append((what, "save them as files of their own if they matter"))
    if page.photometric == 0 and page.bitspersample > 1:
        what = "white is zero in it (TIFF's MinIsWhite); values are kept as they are stored"
        notes.append((what, "invert it if bright is high in the other images"))
    if page.photometric == 3 and of_imagej:
        what = "its colours are only those that ImageJ displays; values are kept as stored"
        notes.append((what, "save it as RGB if they are its channels"))
    if unused:
        notes.append((unused, "state it in NAME.json beside it: {'spacing': [z, y, x]}"))
    return notes


def _read_tiff(path: Path, first: TiffPage, stack: _Stack, by: str) -> NDArray[Any]:
    """Values (z, y, x, samples)."""
    n_pages = math.prod(stack.shape)
    if by == "tifffile":
        return stack.arrange(_read_by_tifffile(path, first, n_pages))
    if by == "pillow":
        with TiffImagePlugin.TiffImageFile(path) as image:
            pixels = np.array(image)[None, ..., None]
    else:
        pixels = read_by_itk(path, "TIFFImageIO")
    if first.bitspersample == 1:  # a bit comes as four times 0 or 255, white as 255
        pixels = (pixels[..., :1] > 0).astype(np.uint8)
    if len(pixels) != n_pages:  # with its thumbnails, for instance
        raise unread(path, "has pages that are not read in this compression")
    return stack.arrange(pixels)


def _read_by_tifffile(path: Path, first: TiffPage, n_pages: int) -> NDArray[Any]:
    """Values (page, y, x, samples)."""
    with TiffFile(path, _multifile=False) as file:
        pages = [page for page in file.pages if isinstance(page, TiffPage)]
        pages = [page for page in pages if not page.subfiletype & 5 or page is pages[0]]
        if first.compression in _DEFLATE:
            _check_deflated(file, pages)
        if len(pages) == n_pages:
            pixels = np.stack([page.asarray() for page in pages])
        else:  # ImageJ lists one page, and all others follow it
            pixels = file.series[0].asarray()
    if first.planarconfig == 2 and first.samplesperpixel > 1:
        pixels = np.moveaxis(
            pixels.reshape(n_pages, first.samplesperpixel, *first.shape[1:]), 1, -1
        )
    shape = (n_pages, first.imagelength, first.imagewidth, first.samplesperpixel)
    pixels = pixels.reshape(shape).astype(_dtype(first), copy=False)
    return pixels ^ 1 if first.bitspersample == 1 and first.photometric == 0 else pixels


def _check_deflated(file: TiffFile, pages: Sequence[TiffPage]) -> None:
    """Refuse strips that unpack to more than their part of a page: tifffile unpacks all."""
    for page in pages:
        most = math.prod(page.chunks) * _dtype(page).itemsize
        for offset, n_bytes in zip(page.dataoffsets, page.databytecounts, strict=True):
            file.filehandle.seek(offset)
            stream = zlib.decompressobj()
            if len(stream.decompress(file.filehandle.read(n_bytes), most + 1)) > most:
                raise ImageFileError("has strips that unpack to more than their part of it")
