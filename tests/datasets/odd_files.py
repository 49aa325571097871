"""Odd files of images and labels, each written alike in every environment.

`benchmarks/adapters/_readers_reference.py` reads them with nnU-Net's own readers.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import SimpleITK as sitk  # noqa: N813

SHAPE = (6, 5, 4)
IMAGE = (np.arange(120).reshape(SHAPE) * 7 % 113).astype(np.int16) - 20
LABEL = (np.arange(120).reshape(SHAPE) // 9 % 3).astype(np.uint8)
MM = np.diag([1.5, 1.2, 2.5, 1.0])
TURNED = np.array([[0, 1.2, 0, -9], [0, 0, -2.5, 4], [1.5, 0, 0, 7], [0, 0, 0, 1.0]])
_ANGLE = np.deg2rad(11)
OBLIQUE = np.array(
    [[np.cos(_ANGLE), -np.sin(_ANGLE), 0, 3], [np.sin(_ANGLE), np.cos(_ANGLE), 0, -8],
     [0, 0, 1, 5], [0, 0, 0, 1]]
) @ np.diag([0.8, 0.8, 3.0, 1])  # fmt: skip


def nifti(
    ending: str = ".nii.gz",
    affine: Any = MM,
    dtype: Any = None,
    kind: Any = nib.Nifti1Image,
    slope: tuple[float, float] | None = None,
    shape: Callable[[Any], Any] = lambda array: array,
    endian: str = "<",
) -> Any:
    """A writer of NIfTI."""

    def write(path: Path, array: Any) -> Path:
        array = shape(array if dtype is None else array.astype(dtype))
        image = kind(array, affine, kind.header_class(endianness=endian))
        image.set_data_dtype(array.dtype)
        image.set_qform(affine, 1)
        image.set_sform(affine, 1)
        if slope and array.dtype == np.int16:
            image.header.set_slope_inter(*slope)
        nib.save(image, path.with_name(path.name + ending))
        return path.with_name(path.name + ending)

    return write


def itk(
    ending: str, dtype: Any = None, compressed: bool = False, direction: Any = None, n: int = 1
) -> Any:
    """A writer of what ITK writes, of one channel or more."""

    def write(path: Path, array: Any) -> Path:
        array = array if dtype is None else array.astype(dtype)
        channels = n if array.dtype != np.uint8 or dtype is not None else 1
        volume = array.transpose()
        if channels > 1:
            volume = np.stack([volume + c for c in range(channels)], axis=-1)
        image = sitk.GetImageFromArray(volume, isVector=channels > 1)
        image.SetSpacing((1.5, 1.2, 2.5))
        image.SetOrigin((-9.0, 4.0, 7.5))
        if direction is not None:
            image.SetDirection(np.ravel(direction).tolist())
        sitk.WriteImage(image, str(path.with_name(path.name + ending)), compressed)
        return path.with_name(path.name + ending)

    return write


def stack(ending: str = ".tif", spacing: Any = None, dtype: Any = None, **options: Any) -> Any:
    """A writer of TIFF stacks, with nnU-Net's JSON of the spacing."""

    def write(path: Path, array: Any) -> Path:
        import tifffile

        array = array if dtype is None else array.astype(dtype)
        file = path.with_name(path.name + ending)
        options.setdefault("photometric", "minisblack")  # not colours, of three or four slices
        options.setdefault("metadata", {"axes": "ZYX"})
        tifffile.imwrite(file, np.ascontiguousarray(array.transpose()), **options)
        if spacing:
            name = path.name.removesuffix("_0000")
            path.with_name(f"{name}.json").write_text(json.dumps({"spacing": spacing}))
        return file

    return write


def picture(ending: str, mode: str | None = None) -> Any:
    """A writer of pictures: the first slice."""

    def write(path: Path, array: Any) -> Path:
        from PIL import Image

        plane = (array[..., 0].transpose() - array.min()).astype(np.uint8)
        image = Image.fromarray(plane)
        if mode and array.dtype != np.uint8:
            planes = [plane, plane[::-1], plane[:, ::-1], np.full_like(plane, 255)]
            image = Image.fromarray(np.dstack(planes[: len(mode)]), mode)
        image.save(path.with_name(path.name + ending))
        return path.with_name(path.name + ending)

    return write


#: A reader of nnU-Net, and a writer.
FILES: dict[str, tuple[str, Any]] = {
    "NIfTI": ("SimpleITKIO", nifti()),
    "NIfTI, not compressed": ("SimpleITKIO", nifti(".nii")),
    "NIfTI, big-endian": ("SimpleITKIO", nifti(endian=">")),
    "nibabel, NIfTI-2": ("NibabelIO", nifti(kind=nib.Nifti2Image)),
    "NIfTI of floats": ("SimpleITKIO", nifti(dtype=np.float32)),
    "NIfTI of doubles": ("SimpleITKIO", nifti(dtype=np.float64)),
    "NIfTI of unsigned shorts": ("SimpleITKIO", nifti(dtype=np.uint16)),
    "NIfTI with slope": ("SimpleITKIO", nifti(slope=(0.5, -10.0))),
    "NIfTI, mirrored": ("SimpleITKIO", nifti(affine=np.diag([-1.5, -1.2, 2.5, 1.0]))),
    "NIfTI, left-handed": ("SimpleITKIO", nifti(affine=np.diag([-1.5, 1.2, 2.5, 1.0]))),
    "NIfTI, turned": ("SimpleITKIO", nifti(affine=TURNED)),
    "NIfTI, oblique": ("SimpleITKIO", nifti(affine=OBLIQUE)),
    "NIfTI, a fourth axis of one": ("SimpleITKIO", nifti(shape=lambda a: a[..., None])),
    "NIfTI, one slice": ("SimpleITKIO", nifti(shape=lambda a: a[:, :, :1])),
    "nibabel": ("NibabelIO", nifti()),
    "nibabel, turned": ("NibabelIO", nifti(affine=TURNED)),
    "nibabel, oblique": ("NibabelIO", nifti(affine=OBLIQUE)),
    "nibabel, mirrored": ("NibabelIO", nifti(affine=np.diag([-1.5, -1.2, 2.5, 1.0]))),
    "nibabel, reoriented": ("NibabelIOWithReorient", nifti(affine=TURNED)),
    "nibabel, mirrored, reoriented": (
        "NibabelIOWithReorient", nifti(affine=np.diag([-1.5, -1.2, 2.5, 1.0]))
    ),
    "MetaImage": ("SimpleITKIO", itk(".mha")),
    "MetaImage, compressed": ("SimpleITKIO", itk(".mha", compressed=True)),
    "MetaImage in two files": ("SimpleITKIO", itk(".mhd")),
    "MetaImage of floats": ("SimpleITKIO", itk(".mha", np.float32)),
    "MetaImage, mirrored": ("SimpleITKIO", itk(".mha", direction=np.diag([-1, -1, 1]))),
    "NRRD": ("SimpleITKIO", itk(".nrrd")),
    "NRRD, compressed": ("SimpleITKIO", itk(".nrrd", compressed=True)),
    "NRRD of doubles": ("SimpleITKIO", itk(".nrrd", np.float64)),
    "NRRD, turned": ("SimpleITKIO", itk(".nrrd", direction=[[0, 0, 1], [1, 0, 0], [0, 1, 0]])),
    "GIPL": ("SimpleITKIO", itk(".gipl")),
    "stack": ("Tiff3DIO", stack(dtype=np.uint8)),
    "stack of shorts": ("Tiff3DIO", stack(dtype=np.uint16)),
    "stack of floats": ("Tiff3DIO", stack(dtype=np.float32)),
    "stack with spacing": ("Tiff3DIO", stack(spacing=[80, 7.6, 7.2], dtype=np.uint8)),
    "stack, compressed": ("Tiff3DIO", stack(dtype=np.uint8, compression="zlib")),
    "stack, big-endian": ("Tiff3DIO", stack(dtype=np.uint16, byteorder=">")),
    "stack, .tiff": ("Tiff3DIO", stack(".tiff", dtype=np.uint8)),
    "stack of ImageJ": ("Tiff3DIO", stack(dtype=np.uint16, imagej=True)),
    "stack, BigTIFF": ("Tiff3DIO", stack(dtype=np.uint8, bigtiff=True)),
    "PNG": ("NaturalImage2DIO", picture(".png")),
    "PNG, colours": ("NaturalImage2DIO", picture(".png", "RGB")),
    "BMP": ("NaturalImage2DIO", picture(".bmp")),
    "BMP, colours": ("NaturalImage2DIO", picture(".bmp", "RGB")),
    "TIFF, colours": ("NaturalImage2DIO", picture(".tif", "RGB")),
}  # fmt: skip


def write(folder: Path, name: str) -> tuple[Path, Path]:
    """Write the image and the label of a case in two folders, named as nnU-Net names them."""
    _, writer = FILES[name]
    for inner in ("imagesTr", "labelsTr"):
        (folder / inner).mkdir(parents=True)
    return writer(folder / "imagesTr" / "c_0000", IMAGE), writer(folder / "labelsTr" / "c", LABEL)
