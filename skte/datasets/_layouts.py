"""Layouts of datasets on disk, and the one door for every form of a dataset."""

from __future__ import annotations

import inspect
import os
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
import torchio as tio
from numpy.typing import NDArray

from skte import _registry
from skte._registry import load_plugins
from skte._text import did_you_mean
from skte.datasets._assembly import ExtraRoots, check_folder
from skte.datasets._bids import is_bids, load_bids
from skte.datasets._case import (
    ID_KEYS,
    CaseList,
    copy_subject,
    repeated_ids,
    structure_problems,
    subject_case_id,
)
from skte.datasets._csv import is_csv, load_csv
from skte.datasets._dataset_json import (
    has_description,
    is_msd,
    is_nnunet,
    load_msd,
    load_nnunet_raw,
)
from skte.datasets._folder import is_dicom_dataset, is_folder, load_dicom, load_folder
from skte.datasets._labels import Labels, relabel_subjects
from skte.datasets._problem import Problem, few, raise_problems
from skte.exceptions import DatasetError, SkteWarning

_GROUP = "skte.layouts"

#: Type of what is taken as a dataset: a path, a `SubjectsDataset`, subjects or dicts (mappings
#: both); see `load_dataset`.
DatasetLike: TypeAlias = (
    str | os.PathLike[str] | Iterable[Mapping[str, Any]] | torch.utils.data.Dataset[Any]
)


@dataclass(frozen=True)
class Layout:
    """A way in which datasets lie on disk.

    A package adds one by an entry point of the group ``skte.layouts``: its name is that of
    the layout, its value a `Layout`.

    Parameters
    ----------
    name : str
        Its name in ``load_dataset(layout=...)`` and ``--layout``.
    looks_like : str
        What lies there, for messages.
    matches : callable
        ``matches(path, extra_roots)`` returns whether an absolute path has this layout. The
        path may be that of a file, of a folder, or of nothing.
    load : callable
        ``load(path, extra_roots=...)`` returns a list of subjects or raises a `DatasetError`.
        Where it has parameters of these names, it is given ``channels`` and
        ``skip_incomplete``, as `load_dataset` takes them, and ``merge_regions``: False where
        the user chooses the classes.
    fallback : bool, default=False
        Whether it is tried only where no other layout matches.

    Examples
    --------
    >>> from functools import partial
    >>> from skte.datasets import Layout, load_folder
    >>> load = partial(load_folder, images="scans", labels="masks")
    >>> scans = Layout("scans", "scans/ with masks/", lambda p, _: (p / "scans").is_dir(), load)
    """

    name: str
    looks_like: str
    matches: Callable[[Path, ExtraRoots], bool]
    load: Callable[..., list[Any]]
    fallback: bool = False


#: The layouts of skte itself. Of those that are a fallback, the first that matches counts.
LAYOUTS = (
    Layout(
        "msd",
        "dataset.json that lists 'training' (Medical Segmentation Decathlon)",
        is_msd,
        load_msd,
    ),
    Layout(
        "nnunet",
        "dataset.json with 'channel_names' or 'modality', imagesTr/, labelsTr/ (nnU-Net raw)",
        is_nnunet,
        load_nnunet_raw,
    ),
    Layout(
        "bids",
        "sub-*/ with *_dseg files, or derivatives/ with them (BIDS)",
        is_bids,
        load_bids,
    ),
    Layout(
        "dicom",
        "a folder per case, with DICOM series in subfolders and one label map",
        is_dicom_dataset,
        load_dicom,
        fallback=True,
    ),
    Layout(
        "folder",
        "images/ with labels/ (load_folder takes other names)",
        is_folder,
        load_folder,
        fallback=True,
    ),
    Layout(
        "csv",
        "a .csv or .tsv file with columns 'image' and 'label'",
        is_csv,
        load_csv,
    ),
)


def layout_names() -> tuple[str, ...]:
    """Return the names of all layouts, those of other packages (not imported) included.

    Returns
    -------
    tuple of str
        For ``load_dataset(layout=...)``.

    Examples
    --------
    >>> from skte.datasets import layout_names
    >>> layout_names()[:3]
    ('msd', 'nnunet', 'bids')
    """
    return _registry.with_plugins(_registry.LAYOUTS, _GROUP)


def _all_layouts() -> dict[str, Layout]:
    """Layouts by name, those of other packages imported."""

    def checked_name(point: str, layout: Any) -> str:
        if not isinstance(layout, Layout) or layout.name != point:
            raise TypeError("it is not a Layout of this name")
        return point

    return load_plugins(_GROUP, {layout.name: layout for layout in LAYOUTS}, checked_name)


def _matches(layout: Layout, path: Path, extra_roots: ExtraRoots) -> bool:
    try:
        return layout.matches(path, extra_roots)
    except Exception as error:
        if layout in LAYOUTS or isinstance(error, DatasetError):
            raise
        warnings.warn(
            f"The layout {layout.name!r} cannot be used ({error}): update or uninstall its "
            "package.",
            SkteWarning,
            stacklevel=2,
        )
        return False


def _layout_named(name: str) -> Layout:
    if name not in (names := layout_names()):
        raise DatasetError(f"layout must be one of {', '.join(names)}, got {name!r}.")
    own = {layout.name: layout for layout in LAYOUTS}
    if found := own.get(name) or _all_layouts().get(name):
        return found
    raise DatasetError(f"The layout {name!r} cannot be used: see the warning.")


def _find_layout(path: Path, extra_roots: ExtraRoots) -> Layout:
    layouts = _all_layouts().values()
    found = [x for x in layouts if not x.fallback and _matches(x, path, extra_roots)]
    if len(found) > 1:
        raise DatasetError(
            f"{path} could be read as {' or as '.join(repr(x.name) for x in found)}: say which "
            f"with layout={found[0].name!r} (--layout {found[0].name})."
        )
    known = "Known layouts are:\n- " + "\n- ".join(f"{x.name}: {x.looks_like}" for x in layouts)
    if not found:
        folder = check_folder(path)
        if has_description(folder):  # it is meant, and what lies beside it does not count
            raise DatasetError(
                f"{folder / 'dataset.json'} has none of the keys 'training', 'channel_names' and "
                f"'modality', so its layout is unknown. {known}"
            )
        found = [x for x in layouts if x.fallback and _matches(x, path, extra_roots)]
    if found:
        return found[0]
    hint = " For this folder, load_folder(path, images='imagesTr', labels='labelsTr') may do."
    hint = hint if (folder / "imagesTr").is_dir() else ""
    raise DatasetError(f"The layout of {folder} is unknown. {known}{hint}")


def _load_path(
    path: str | os.PathLike[str],
    layout: str | None,
    channels: Sequence[str] | None,
    *,
    merge_regions: bool,
    extra_roots: ExtraRoots,
    skip_incomplete: bool,
) -> list[Any]:
    if isinstance(channels, str):
        raise DatasetError(f"channels must be a list of names, got {channels!r}: write [...].")
    place = Path(path).expanduser().absolute()
    chosen = _layout_named(layout) if layout is not None else _find_layout(place, extra_roots)
    options = {"channels": channels, "merge_regions": merge_regions}
    options["skip_incomplete"] = skip_incomplete
    taken = inspect.signature(chosen.load).parameters
    if channels is not None and "channels" not in taken:
        raise DatasetError(
            f"Channels have no names in the layout {chosen.name!r}: list the files in a CSV."
        )
    options = {name: value for name, value in options.items() if name in taken}
    subjects = chosen.load(place, extra_roots=extra_roots, **options)
    # Those of another package are checked as any list is.
    return subjects if chosen in LAYOUTS else _subjects(subjects, extra_roots)


def load_dataset(
    dataset: DatasetLike,
    *,
    labels: Labels | None = None,
    channels: Sequence[str] | None = None,
    layout: str | None = None,
    cases: Sequence[str] | None = None,
    exclude: Sequence[str] = (),
    extra_roots: ExtraRoots = (),
    skip_incomplete: bool = False,
) -> CaseList:
    """Turn any accepted form of a dataset into a list of subjects.

    Parameters
    ----------
    dataset : path, SubjectsDataset, sequence of Subject, or sequence of dict
        A path is that of a folder or a CSV file. A dict is as in MONAI's data lists: ``image``
        (paths, an array or tensor) and ``label``; optionally ``case_id`` (or ``id``, ``name``,
        ``subject_id``), ``ignore_label``, ``label_names`` and ``affine``. Arrays are
        ``(x, y, z)``, ``(channels, x, y, z)``, ``(x, y)``, or ``(channels, x, y)``
        beside a label ``(x, y)``.
    labels : mapping, optional
        The classes to rank for, made of the dataset's labels by name or id:
        ``{"heart": ["LV", "RV", "MYO"]}``. They are numbered from 1 in the order given, later
        ones over earlier ones; everything else becomes background. The name ``ignore`` adds
        to what is left out of every score. None: the dataset's own classes.
    channels : sequence of str, optional
        Channels to read, in order: names in nnU-Net's ``channel_names``, suffixes of
        BIDS (``["T1w", "FLAIR"]``), columns of a CSV, or series folders of DICOM.
    layout : str, optional
        How a path is read, one of `layout_names`; by default detected.
    cases : sequence of str, optional
        Ids of the cases to keep, in the order of the dataset; None: all of them.
    exclude : sequence of str, default=()
        Ids of cases to leave out, of which nothing is read.
    extra_roots : sequence of path-like, default=()
        Folders that links, paths and detached headers (``.mhd``, ``.nhdr``) may lead to. By
        default all files lie in the folder that is given, or that of the CSV file; paths in
        a list of subjects or dicts may lead anywhere.
    skip_incomplete : bool, default=False
        Of a path, leave out images without labels, labels without images, and cases that lack
        a file, with a note and a warning. What the files hold is another matter: see
        `inspect_dataset`.

    Returns
    -------
    CaseList
        New subjects, lazy (no volume is read) unless a `SubjectsDataset` has a transform. Each
        has ``image``, ``label``, ``case_id`` (by default its image's file name),
        ``ignore_label``, ``label_names`` (by id) and ``label_ids`` (by name, regions included).

    Raises
    ------
    DatasetError
        If the form or layout is unknown, files are missing, cases lack image or label,
        ids repeat, or `labels`, `channels`, `cases` or `exclude` names what is not there; one
        message lists all problems.

    See Also
    --------
    inspect_dataset : What is in a dataset, and what is wrong with it.

    Examples
    --------
    >>> import numpy as np
    >>> from skte.datasets import load_dataset, read_case
    >>> label = np.arange(512).reshape(8, 8, 8) % 4
    >>> names = {0: "background", 1: "LV", 2: "RV", 3: "MYO"}
    >>> item = {"id": "a", "image": np.sqrt(label), "label": label, "label_names": names}
    >>> cases = load_dataset([item], labels={"ventricle": ["LV", "RV"], "wall": "MYO"})
    >>> read_case(cases[0]).label[0, 0].tolist()
    [0, 1, 1, 2, 0, 1, 1, 2]
    """
    if isinstance(dataset, (str, os.PathLike)):
        subjects = _load_path(
            dataset,
            layout,
            channels,
            merge_regions=labels is None,
            extra_roots=extra_roots,
            skip_incomplete=skip_incomplete,
        )
        known = subjects if isinstance(subjects, CaseList) else CaseList(subjects)
        return known.like(_chosen(relabel_subjects(subjects, labels), cases, exclude))
    if channels is not None or layout is not None:
        raise DatasetError("channels and layout say how files are read: give a path with them.")
    if isinstance(dataset, (tio.Subject, Mapping)):
        raise DatasetError(f"A {type(dataset).__name__} is a single case: put it in a list.")
    items = _items(dataset)
    known = dataset if isinstance(dataset, CaseList) else CaseList()
    subjects = relabel_subjects(_subjects(items, extra_roots), labels)
    return known.like(_chosen(subjects, cases, exclude))


def _chosen(
    subjects: Sequence[Any], cases: Sequence[str] | None, exclude: Sequence[str]
) -> list[Any]:
    """Keep the cases that are named, and not those that are excluded."""
    ids = [str(subject["case_id"]) for subject in subjects]
    for option, names in (("cases", cases or ()), ("exclude", exclude)):
        if isinstance(names, str):
            raise DatasetError(f"{option} must be a list of ids, got {names!r}: write [...].")
        strange = [name for name in names if name not in set(ids)]
        if strange:
            hint = did_you_mean(strange[0], ids)
            raise DatasetError(f"{option} names {few(strange)}, but there is no such case: {hint}")
    return [
        subject
        for name, subject in zip(ids, subjects, strict=True)
        if name not in set(exclude) and (cases is None or name in set(cases))
    ]


def as_subjects(dataset: DatasetLike) -> list[Any]:
    """Return subjects as they are, whatever is wrong with them, and load all else."""
    if isinstance(dataset, CaseList):
        return dataset
    if isinstance(dataset, Sequence) and all(isinstance(one, tio.Subject) for one in dataset):
        return list(dataset)
    return load_dataset(dataset)


def _subjects(items: Sequence[Any], extra_roots: ExtraRoots) -> list[Any]:
    subjects: list[Any] = []
    problems: list[Problem] = []
    for index, item in enumerate(items):
        try:
            subject = item if isinstance(item, tio.Subject) else _subject_from_dict(item)
            case_id = subject_case_id(subject, index)
            wrong = structure_problems(case_id, subject)
            subjects += [] if wrong else [copy_subject(subject, case_id, extra_roots)]
            problems += wrong
        except Exception as error:
            problems.append(Problem(_name(item, index), str(error), "fix it or leave it out"))
    problems += repeated_ids(subject["case_id"] for subject in subjects)
    raise_problems("The dataset cannot be loaded", problems)
    return subjects


def _items(dataset: Any) -> list[Any]:
    transform = getattr(dataset, "_transform", None)
    if isinstance(dataset, tio.SubjectsDataset) and transform is None:
        items = list(dataset.dry_iter())
    elif random := _random_transforms(transform):
        raise DatasetError(
            f"The SubjectsDataset applies random transforms ({', '.join(random)}), so that "
            "no two looks at a case agree: give a dataset without augmentation."
        )
    elif hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__"):
        items = [dataset[i] for i in range(len(dataset))]
    elif isinstance(dataset, Iterable):
        items = list(dataset)
    else:
        raise DatasetError(
            "A dataset is a path, a SubjectsDataset, or a list of torchio Subjects or dicts with "
            f"'image' and 'label', got {type(dataset).__name__}."
        )
    if not items:
        raise DatasetError("The dataset holds no case: give at least two.")
    return items


def _random_transforms(transform: Any) -> list[str]:
    if isinstance(transform, tio.Compose):
        return [name for inner in transform.transforms for name in _random_transforms(inner)]
    random = isinstance(transform, tio.transforms.augmentation.RandomTransform)
    return [type(transform).__name__] if random else []


def _name(item: Any, index: int) -> str:
    for key in ID_KEYS:
        if isinstance(item, Mapping) and item.get(key) is not None:
            return str(item[key])
    return f"at position {index}"


def _subject_from_dict(item: Any) -> Any:
    """Return the subject of an entry of a MONAI data list."""
    if not isinstance(item, Mapping):
        raise DatasetError(f"a case is a torchio Subject or a dict, got {type(item).__name__}")
    if odd := [key for key in item if not isinstance(key, str)]:
        raise DatasetError(f"keys of a case must be text, got {', '.join(map(repr, odd))}")
    missing = [key for key in ("image", "label") if item.get(key) is None]
    if missing:
        raise DatasetError(f"key {' and '.join(map(repr, missing))} missing")
    affine = item.get("affine")
    label = _as_image(tio.LabelMap, item["label"], affine)
    flat_label = getattr(item["label"], "ndim", 0) == 2
    image = _as_image(tio.ScalarImage, item["image"], affine, channels_first_2d=flat_label)
    rest = {k: v for k, v in item.items() if k not in ("image", "label", "affine")}
    return tio.Subject(image=image, label=label, **rest)


def _as_image(kind: Any, value: Any, affine: Any, *, channels_first_2d: bool = False) -> Any:
    if isinstance(value, tio.Image):
        return value if isinstance(value, kind) else kind(tensor=value.data, affine=value.affine)
    if isinstance(value, (str, os.PathLike)):
        return kind(value)
    if isinstance(value, (list, tuple)) and value and isinstance(value[0], (str, os.PathLike)):
        return kind(list(value) if len(value) > 1 else value[0])
    # MONAI's MetaTensor knows its affine.
    affine = getattr(value, "affine", None) if affine is None else affine
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().numpy()
    array = _four_axes(np.asarray(value), channels_first_2d)
    affine = None if affine is None else np.asarray(affine, dtype=np.float64)
    return kind(tensor=torch.from_numpy(array), affine=affine)


def _four_axes(array: NDArray[Any], channels_first_2d: bool) -> NDArray[Any]:
    """(channels, x, y, z) in a type torch has, without changing the caller's array."""
    if array.ndim == 2:
        array = array[None, :, :, None]
    elif array.ndim == 3:
        array = array[..., None] if channels_first_2d else array[None]
    if array.ndim != 4:
        raise DatasetError(f"an array of shape {array.shape} is neither 2-D nor 3-D")
    if array.dtype.kind not in "iufbc":
        raise DatasetError(f"an array of type {array.dtype} holds no numbers")
    return np.array(array, dtype=_torch_type(array), order="C")


def _torch_type(array: NDArray[Any]) -> np.dtype[Any]:
    """Return the nearest type that torch has: native byte order, at most 64 bits a number."""
    if array.dtype.kind == "u":
        # Beyond int64 as floats, so that they stay large instead of turning negative.
        return np.dtype(np.float64 if array.max(initial=0) >= 2**63 else np.int64)
    if array.dtype.itemsize > 8 and array.dtype.kind in "fc":
        return np.dtype(np.float64 if array.dtype.kind == "f" else np.complex128)
    return array.dtype.newbyteorder("=")
