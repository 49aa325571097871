"""Classes of a dataset: their names, and choosing, merging and ordering them."""

from __future__ import annotations

import copy
import difflib
import re
import reprlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torchio as tio
from numpy.typing import NDArray
from torchio.data.io import read_image

from skte.datasets._problem import Flaw, Problem, raise_problems

_INTEGER = re.compile(r"[+-]?[0-9]{1,19}")
_LARGEST = 2**63 - 1
_TABLE_SIZE = 65_536  # ids further apart than this are looked up by sorting

#: From the name of a class to what it is made of.
Labels = Mapping[str, str | int | Sequence[str | int]]
_BACKGROUND, _IGNORE = "background", "ignore"


def parse_labels(labels: object) -> tuple[dict[str, list[int]], int | None, list[Flaw]]:
    """Ids of each label, the ignore label, and what is wrong, of a ``dataset.json``."""
    if not isinstance(labels, Mapping) or not labels:
        wanted = 'write an object such as {"background": 0, ...}'
        return {}, None, [("dataset.json: key 'labels' names no label", wanted)]
    members, flaws = label_members(labels)
    ignore = members.pop("ignore", None)
    if ignore and len(ignore) > 1:
        flaws.append((f"label 'ignore' must be one integer, not {ignore}", "name a single id"))
    flaws = [(f"dataset.json: {what}", remedy) for what, remedy in flaws]
    return members, ignore[0] if ignore else None, flaws


def parse_label_names(names: object) -> tuple[dict[int, str], list[Flaw]]:
    """Names of label ids (from id to name or back), and what is wrong, of a case in memory."""
    if names is None:
        return {}, []
    if not isinstance(names, Mapping):
        what = f"label_names must map ids to names ({{1: 'liver'}}), got {reprlib.repr(names)}"
        return {}, [(what, "give a mapping")]
    members, flaws = label_members(names)
    return names_of(members), [(f"label_names: {what}", remedy) for what, remedy in flaws]


def label_members(labels: Mapping[object, object]) -> tuple[dict[str, list[int]], list[Flaw]]:
    """Ids of each name, and what is wrong."""
    members: dict[str, list[int]] = {}
    flaws: list[Flaw] = []
    for key, value in labels.items():
        # MSD writes id -> name, nnU-Net v2 name -> id.
        swap = isinstance(value, str) and label_id(key) is not None
        name, given = (value, key) if swap else (key, value)
        ids = [label_id(one) for one in (given if isinstance(given, (list, tuple)) else [given])]
        if ids and None not in ids:
            members.setdefault(str(name), []).extend(i for i in ids if i is not None)
        else:
            wanted = "an integer (of 64 bits) or a list of them"
            what = f"label {reprlib.repr(key)} must map to {wanted}, not {reprlib.repr(value)}"
            flaws.append((what, "give its id"))
    return members, flaws


def names_of(members: Mapping[str, Sequence[int]]) -> dict[int, str]:
    """Names by id; an id in several regions takes the name of the smallest."""
    names: dict[int, str] = {}
    for name, ids in sorted(members.items(), key=lambda item: -len(item[1])):
        names.update(dict.fromkeys(ids, name))  # smaller regions come later and win
    return dict(sorted(names.items()))


def label_id(value: object) -> int | None:
    """Return a label id given as an integer or its text; None for anything else."""
    if isinstance(value, str):  # not isdigit: it takes what int() refuses
        value = int(value) if _INTEGER.fullmatch(value.strip()) else None
    if not isinstance(value, Integral) or isinstance(value, bool):
        return None
    return int(value) if abs(int(value)) <= _LARGEST else None


@dataclass(frozen=True)
class Relabeling:
    """A function of class ids."""

    ids: tuple[tuple[int, int], ...]  # old and new, sorted
    # Where others go (None: they stay), but for negative values and what is no integer, which
    # the checks must find.
    rest: int | None = None

    @classmethod
    def of(cls, ids: Mapping[int, int], rest: int | None = None) -> Relabeling:
        """Make one of a mapping from old to new ids; equal functions are equal."""
        plain = cls((), rest)
        return cls(tuple(sorted((a, b) for a, b in ids.items() if b != plain(a))), rest)

    def __call__(self, value: int) -> int:
        """Return the new id of one id."""
        for old, new in self.ids:
            if old == value:
                return new
        return value if self.rest is None or value < 0 else self.rest

    def then(self, other: Relabeling) -> Relabeling:
        """Return both in a row as one."""
        ids = {old: other(new) for old, new in self.ids}
        if self.rest is None:
            ids = {old: other(old) for old, _ in other.ids} | ids
            return Relabeling.of(ids, other.rest)
        # Negative values, which no rest takes, reach the other as they are.
        negative = {old: new for old, new in other.ids if old < 0}
        return Relabeling.of(negative | ids, other(self.rest))

    def apply(self, label: NDArray[Any]) -> NDArray[Any]:
        """Return an int64 map of new ids; what holds no integers is returned as it is."""
        kind = label.dtype.kind
        if kind not in "iufb" or not label.size or (kind == "f" and not _is_integral(label)):
            return label
        lowest, highest = int(label.min()), int(label.max())
        if not -(2**63) <= lowest <= highest < 2**63:
            return label
        if highest - lowest < _TABLE_SIZE:
            values = np.subtract(label, lowest, dtype=np.int64, casting="unsafe")
            result: NDArray[Any] = self._table(range(lowest, highest + 1))[values]
        else:
            found, where = np.unique(label.astype(np.int64), return_inverse=True)
            result = self._table(found.tolist())[where].reshape(label.shape)
        return result

    def _table(self, values: Any) -> NDArray[np.int64]:
        known = dict(self.ids)
        rest = self.rest
        return np.array(
            [known.get(v, v if rest is None or v < 0 else rest) for v in values], dtype=np.int64
        )


@dataclass(frozen=True)
class RelabelingReader:
    """A reader for torchio that relabels what another one reads."""

    relabeling: Relabeling
    reader: Callable[[Any], Any] = read_image

    def __call__(self, path: str | Path) -> tuple[torch.Tensor, Any]:
        """Read and relabel."""
        tensor, affine = self.reader(path)
        return torch.from_numpy(np.ascontiguousarray(self.apply(np.asarray(tensor)))), affine

    def apply(self, array: NDArray[Any]) -> NDArray[Any]:
        """Relabel an array."""
        return self.relabeling.apply(array)


def _is_integral(label: NDArray[Any]) -> bool:
    with np.errstate(invalid="ignore"):
        return bool((label == np.round(label)).all() and np.isfinite(label).all())


class _Plan(NamedTuple):
    """New ids, what they mean, and which of them is ignored."""

    relabeling: Relabeling
    members: dict[str, list[int]]
    ignore_label: int | None


def relabel_subjects(subjects: list[Any], labels: Labels | None) -> list[Any]:
    """Return subjects with the classes that `labels` describes, lazy where those given are."""
    if labels is None:
        return subjects
    problems: dict[Problem, None] = {}  # each once, though all cases may have it
    results = []
    for subject in subjects:
        members = subject_members(subject)
        plan, flaws = _plan(labels, members, subject.get("ignore_label"))
        problems.update(dict.fromkeys(Problem(None, *flaw) for flaw in flaws))
        if not flaws:
            results.append(relabel_subject(subject, plan))
    raise_problems("The labels cannot be merged as asked", list(problems))
    return results


def subject_members(subject: Any) -> dict[str, list[int]]:
    """Ids that each name of a subject's labels stands for."""
    members: dict[str, list[int]] = {}
    for key in ("label_names", "label_ids"):
        names = subject.get(key)
        members |= label_members(names)[0] if isinstance(names, Mapping) else {}
    return members


def relabel_subject(subject: Any, plan: _Plan) -> Any:
    """Return a subject whose label map has other ids."""
    items = {k: copy.copy(v) if isinstance(v, tio.Image) else v for k, v in subject.items()}
    for name, image in split_images(subject)[1].items():
        items[name] = _relabel_image(image, plan.relabeling)
    items["ignore_label"] = plan.ignore_label
    items["label_ids"] = {name: tuple(ids) for name, ids in plan.members.items()}
    items["label_names"] = names_of(plan.members)
    return subject_of(items, subject)


def subject_of(items: Mapping[str, Any], before: Any) -> Any:
    """Return a subject of other items that keeps the transforms of the one before."""
    result = tio.Subject(items)
    result.applied_transforms = list(before.applied_transforms)
    return result


def merge_regions(
    members: Mapping[str, list[int]], order: Sequence[int], ignore_label: int | None
) -> tuple[_Plan | None, list[Flaw]]:
    """Plan of nnU-Net's ``regions_class_order``, later over earlier; None: no id changes."""
    regions = {k: v for k, v in members.items() if k != _BACKGROUND}
    pairs = list(zip(regions.items(), order, strict=True))
    ids = {old: new for (_, olds), new in pairs for old in olds}
    names = {new: name for (name, _), new in pairs}
    lost = [name for new, name in names.items() if new not in ids.values()]
    if lost:
        what = f"dataset.json: nothing is left of region {', '.join(map(repr, lost))}"
        remedy = "later regions overwrite earlier ones, so list the larger ones first"
        return None, [(what, remedy)]
    if all(old == new for old, new in ids.items()):
        return None, []
    merged = {_BACKGROUND: [0]} | {name: [new] for new, name in names.items()}
    for name, olds in regions.items():
        news = sorted({ids[old] for old in olds})
        # Only what can still be told apart keeps a name of several ids.
        if {old for old, new in ids.items() if new in news} == set(olds):
            merged[name] = news
    return _Plan(Relabeling.of(ids), merged, ignore_label), []


def split_images(subject: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Names and images of a subject: those with intensities, and label maps."""
    images = subject.get_images_dict(intensity_only=False)
    labels = {k: v for k, v in images.items() if isinstance(v, tio.LabelMap)}
    return {k: v for k, v in images.items() if k not in labels}, labels


def _relabel_image(image: Any, relabeling: Relabeling) -> Any:
    if tio.DATA in image or not image.path:
        values = np.ascontiguousarray(relabeling.apply(image.data.detach().cpu().numpy()))
        return tio.LabelMap(tensor=torch.from_numpy(values), affine=image.affine)
    reader = image.reader
    if isinstance(reader, RelabelingReader):
        relabeling, reader = reader.relabeling.then(relabeling), reader.reader
    reader = RelabelingReader(relabeling, reader)
    kept = {key: image[key] for key in ("roots", "calibrated") if key in image}
    return tio.LabelMap(image.path, reader=reader, verify_path=False, **kept)


def _plan(
    labels: object, members: Mapping[str, list[int]], ignore_label: int | None
) -> tuple[_Plan, list[Flaw]]:
    empty = _Plan(Relabeling(()), {}, None)
    if not isinstance(labels, Mapping) or not all(isinstance(name, str) for name in labels):
        wanted = "give names of classes with what they hold, {'heart': ['LV', 'RV']}"
        return empty, [(f"labels must be a mapping from text, got {reprlib.repr(labels)}", wanted)]
    known = {_BACKGROUND: [0]} | dict(members)
    if ignore_label is not None:
        known[_IGNORE] = [int(ignore_label)]
    classes: dict[str, list[int]] = {}
    flaws: list[Flaw] = []
    for name, sources in labels.items():
        classes[name], wrong = _resolve(name, sources, known)
        flaws += wrong
    foreground = [name for name in classes if name not in (_BACKGROUND, _IGNORE)]
    if not foreground and not flaws:
        what = "labels name no class besides background and ignore"
        flaws.append((what, "name one class at least"))
    numbers = {_BACKGROUND: 0} | {name: i for i, name in enumerate(foreground, start=1)}
    ids = {} if ignore_label is None else {int(ignore_label): len(numbers)}
    for name, sources in classes.items():  # later classes win where they overlap
        ids |= dict.fromkeys(sources, numbers.get(name, len(numbers)))
    for name in foreground:
        if classes[name] and numbers[name] not in ids.values():
            what = f"labels: nothing is left of {name!r}, for later classes hold all its ids"
            flaws.append((what, "put it after them, or leave it out"))
    ignored = len(numbers) in ids.values()
    plan = _Plan(
        Relabeling.of(ids, rest=0),
        {name: [number] for name, number in numbers.items()},
        len(numbers) if ignored else None,
    )
    return plan, flaws


def _resolve(
    name: str, sources: object, known: Mapping[str, list[int]]
) -> tuple[list[int], list[Flaw]]:
    """Ids of the labels that make up a class."""
    listed: Iterable[object] = (
        sources if isinstance(sources, Sequence) and not isinstance(sources, str) else [sources]
    )
    ids: list[int] = []
    flaws: list[Flaw] = []
    for source in listed:
        value = label_id(source)
        if isinstance(source, str) and source in known:
            ids += known[source]
        elif value is not None:
            ids.append(value)
        else:
            flaws.append(_unknown(name, source, known))
    if not ids and not flaws:
        what = f"labels: class {name!r} is made of nothing"
        flaws.append((what, "list names or ids, or leave it out"))
    return ids, flaws


def _unknown(name: str, source: object, known: Mapping[str, list[int]]) -> Flaw:
    there = ", ".join(f"{k} ({' '.join(map(str, ids))})" for k, ids in known.items())
    near = difflib.get_close_matches(str(source), list(known), n=1)
    hint = f"did you mean {near[0]!r}? The labels are" if near else "the labels are"
    remedy = f"{hint} {there}; give those without a name by their number"
    return f"labels: {source!r} in class {name!r} is not a label of the dataset", remedy
