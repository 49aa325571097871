"""File endings of images, and the stem that names a case."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

__all__ = ["IMAGE_ENDINGS", "image_stem", "is_file", "is_folder", "list_images"]

# What SimpleITK and nibabel read from one file; longer endings first.
IMAGE_ENDINGS = (
    ".nii.gz",
    ".nii",
    ".mgz",
    ".mha",
    ".mhd",
    ".nrrd",
    ".bmp",
    ".jpeg",
    ".jpg",
    ".png",
    ".tiff",
    ".tif",
)


def image_stem(path: Path, endings: Iterable[str] = IMAGE_ENDINGS) -> str | None:
    """File name without its image ending; None where it is no image."""
    for ending in endings:
        if path.name.lower().endswith(ending.lower()) and len(path.name) > len(ending):
            return path.name[: -len(ending)]
    return None


def is_file(path: Path) -> bool:
    """Whether there is such a file; there is none of a name that no file can have."""
    try:
        return path.is_file()
    except (OSError, ValueError):  # too long, for instance
        return False


def is_folder(path: Path) -> bool:
    """Whether there is such a folder; there is none of a name that none can have."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def list_images(folder: Path, endings: Iterable[str] = IMAGE_ENDINGS) -> list[tuple[str, Path]]:
    """Stem and path of every image in a folder, sorted by name; hidden files left out.

    Links to nothing, pipes and folders that are called like images are among them: their
    cases must be named, not vanish.
    """
    found = []
    for path in sorted(folder.iterdir()):
        stem = image_stem(path, endings)
        # Hidden files include the "._x.nii.gz" that macOS leaves in archives.
        if stem is not None and not path.name.startswith("."):
            found.append((stem, path))
    return found
