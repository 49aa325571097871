"""Subjects as every door of this room hands them out."""

from __future__ import annotations

import copy
import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torchio as tio

from skte.datasets._filenames import image_stem
from skte.datasets._image_file import named_roots
from skte.datasets._label_names import label_members, names_of, parse_label_names

__all__ = ["copy_subject", "make_subject", "split_images", "subject_case_id"]

_ID_KEYS = ("case_id", "id", "name", "subject_id")


def make_subject(
    case_id: str,
    images: Sequence[Path],
    label: Path,
    *,
    roots: Sequence[Path],
    ignore_label: int | None = None,
    members: Mapping[str, Sequence[int]] | None = None,
) -> Any:
    """Return a lazy subject of files: one image (channels in order) and its label.

    `members` holds the ids that each name stands for: one, or several for a region. Files,
    and those that they name, are read only within the `roots`.
    """
    members = members or {}
    files = [path.absolute() for path in images]
    return tio.Subject(
        image=tio.ScalarImage(files[0] if len(files) == 1 else files, roots=roots),
        label=tio.LabelMap(label.absolute(), roots=roots),
        case_id=case_id,
        ignore_label=ignore_label,
        label_names=names_of(members),
        label_ids={name: tuple(ids) for name, ids in members.items()},
    )


def copy_subject(
    subject: Any, case_id: str, extra_roots: Sequence[str | os.PathLike[str]] = ()
) -> Any:
    """Return a subject of its own, with images of its own that share tensors.

    ``copy.copy`` of a subject shares the image objects, so that loading the copy would
    leave the volume on the caller's subject. What a header names may lie in `extra_roots`.
    """
    items = {
        k: _copy_image(v, extra_roots) if isinstance(v, tio.Image) else v
        for k, v in subject.items()
    }
    items["case_id"] = case_id
    items.setdefault("ignore_label", None)
    names = items.get("label_names")
    members = label_members(names)[0] if isinstance(names, Mapping) else {}
    items.setdefault("label_ids", {name: tuple(ids) for name, ids in members.items()})
    items["label_names"], _ = parse_label_names(names)
    result = tio.Subject(items)
    result.applied_transforms = list(subject.applied_transforms)
    return result


def _copy_image(image: Any, extra_roots: Sequence[str | os.PathLike[str]]) -> Any:
    """Return a copy whose files stay the same when the current folder changes."""
    image = copy.copy(image)
    if not image.path:
        return image
    paths = image.path if isinstance(image.path, list) else [image.path]
    paths = [path.absolute() for path in paths]
    image.path = paths if isinstance(image.path, list) else paths[0]
    if extra_roots:
        own = image.get("roots") or [root for path in paths for root in named_roots(path)]
        image["roots"] = (*own, *(Path(root).expanduser().absolute() for root in extra_roots))
    return image


def split_images(subject: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Names and images of a subject: those with intensities, and label maps."""
    images = subject.get_images_dict(intensity_only=False)
    labels = {k: v for k, v in images.items() if isinstance(v, tio.LabelMap)}
    return {k: v for k, v in images.items() if k not in labels}, labels


def subject_case_id(subject: Any, index: int = 0) -> str:
    """Name of a case: stated, or its image's file stem, or a digest of its content.

    A digest, not the position: the sampled voxels depend on the id, and a case must
    stay itself in a shuffled or sliced list. The position is left for what is neither
    in memory nor in a file of its own.
    """
    for key in _ID_KEYS:
        if subject.get(key) is not None:
            return str(subject[key])
    for image in split_images(subject)[0].values():
        path = image.path[0] if isinstance(image.path, list) else image.path
        if path:
            return (image_stem(path) or path.name).removesuffix("_0000")
    digest = hashlib.sha256()
    for image in subject.get_images(intensity_only=False):
        if tio.DATA not in image:
            return f"case_{index:03d}"
        digest.update(image.data.detach().cpu().contiguous().numpy().tobytes())
    return f"case_{digest.hexdigest()[:8]}"
