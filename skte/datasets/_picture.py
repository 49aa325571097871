"""Pictures (PNG, JPEG, BMP) as the numbers that they store, read by Pillow.

Readers of pictures give what a screen shows: the colours of a palette where a label map means
its indices, 255 for a bit, the resolution for printing as the size of a voxel. What a file
stores is therefore told from its header, and what would come otherwise is undone or refused.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from shlex import quote
from typing import Any

import numpy as np
import SimpleITK as sitk  # noqa: N813 (its own habit; torchio depends on it)
from numpy.typing import NDArray
from PIL import BmpImagePlugin, Image, JpegImagePlugin, PngImagePlugin

from skte.datasets._problem import Flaw, ImageFileError

PICTURE_ENDINGS = (".png", ".jpeg", ".jpg", ".bmp", ".tiff", ".tif")
_MOST_SCANS = 100  # of a progressive JPEG: encoders write about ten
_CONVERT = "convert it to PNG or plain TIFF (`magick {} {}`)"


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


# PNG, JPEG and BMP.


def open_picture(path: Path, start: bytes) -> Picture:
    """Read the header of a PNG, JPEG or BMP; the content decides: many a JPEG is called .png."""
    for magic, read in ((b"\x89PNG\r\n\x1a\n", _png), (b"\xff\xd8\xff", _jpeg), (b"BM", _bmp)):
        if start.startswith(magic):
            return read(path, start)
    raise ImageFileError("is not a PNG, JPEG, BMP or TIFF picture", "replace or convert it")


def _png(path: Path, start: bytes) -> Picture:
    bits, colour = start[24:26]
    with PngImagePlugin.PngImageFile(path) as image:
        picture = _of_pillow(path, image, bits=bits)
        notes = list(picture.notes)
        if "transparency" in image.info:
            what = "it names a transparent colour, which is kept like any other"
            notes.append((what, "store a mask as a channel of its own if it matters"))
        as_stored = colour != 4 and "transparency" not in image.info
    if bits < 16 or colour == 0:
        return replace(picture, notes=tuple(notes))
    # Of 16 bits of a colour Pillow drops 8. ITK keeps them, but for what these chunks change.
    if not as_stored or b"sBIT" in start:
        raise unread(
            path, "has 16 bits for each of grey and alpha, or of colours with sBIT or tRNS"
        )
    read = partial(read_by_itk, path, "PNGImageIO")
    return replace(picture, dtype=np.dtype(np.uint16), read=read, notes=tuple(notes))


def _jpeg(path: Path, start: bytes) -> Picture:
    n_scans = path.read_bytes().count(b"\xff\xda")
    if n_scans > _MOST_SCANS:
        raise ImageFileError(f"has more than {_MOST_SCANS} scans, more than a JPEG needs")
    with JpegImagePlugin.JpegImageFile(path) as image:
        if image.mode not in ("L", "RGB"):
            what = f"has {image.layers} samples per pixel, as CMYK pictures for printing have"
            raise unread(path, what)
        # A progressive one is kept as coefficients of two bytes until it ends.
        scratch = 2 if "progressive" in image.info else 0
        return replace(_of_pillow(path, image), lossy=True, scratch=scratch)


def _bmp(path: Path, start: bytes) -> Picture:
    with BmpImagePlugin.BmpImageFile(path) as image:
        packing, bits = image.info.get("compression", 0), start[24 if start[14] == 12 else 28]
        # Where a palette's greys are its indices, Pillow takes 1 or 8 bits for granted.
        n_greys = {"1": 1, "L": 8}.get(image.mode, bits)
        if packing not in (0, 3) or bits == 16 or bits != n_greys:
            what = f"is a BMP picture of compression {packing} and {bits} bits"
            what += f" with a palette for {n_greys}" if bits != n_greys else ""
            raise unread(path, f"{what}, which is not read")
        picture = _of_pillow(path, image)
    if bits == 1 and picture.palette is not None and picture.palette.tolist() == [[255], [0]]:
        return replace(picture, palette=None, read=lambda: picture.read() ^ 1)  # white is 1
    return picture


def _of_pillow(path: Path, image: Any, bits: int = 8) -> Picture:
    """Describe a picture that Pillow has opened."""
    samples = len(image.getbands())
    palette = None
    if image.mode == "P":
        kind, stored = image.palette.getdata()  # BGRX in a BMP
        colours = np.frombuffer(bytes(stored), np.uint8)
        colours = colours[: len(colours) // len(kind) * len(kind)].reshape(-1, len(kind))
        palette = without_colour(colours[:, [kind.index(letter) for letter in "RGB"]])
    exif = Image.Exif()
    with suppress(Exception):  # cameras write what they like
        exif.load(image.info.get("exif"))
    return Picture(
        (*image.size, 1),
        samples,
        np.dtype(np.uint16 if image.mode.startswith("I") else np.uint8),
        partial(_read, path, type(image), spread=bits if image.mode == "L" else 8),
        alpha=image.mode in ("LA", "RGBA"),
        palette=palette,
        notes=tuple(turning_notes(path, exif.get(274))),
    )


def _read(path: Path, kind: Any, spread: int) -> NDArray[Any]:
    """Pixels (z, y, x, samples) as stored."""
    with kind(path) as image:
        try:
            pixels = np.array(image)
        except (OSError, SyntaxError) as error:
            raise ImageFileError(f"is cut short or damaged ({error})") from error
    pixels = pixels.astype(np.uint16 if pixels.dtype.itemsize > 1 else np.uint8, copy=False)
    if spread < 8:
        pixels //= 255 // (2**spread - 1)  # Pillow spreads them over 8 bits
    return pixels.reshape(1, *pixels.shape[:2], -1)


def turning_notes(path: Path, stated: object) -> list[Flaw]:
    """Note that a camera says how a picture is to be shown."""
    if stated not in range(2, 9):
        return []
    what = f"it states that viewers should rotate it (orientation {stated}), which is not done"
    name = quote(path.name)
    remedy = f"if its label was drawn upright, `magick {name} -auto-orient {name}`"
    return [(what, remedy)]
