"""Choosing, merging and ordering the classes of a dataset by name."""

from __future__ import annotations

import copy
import difflib
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torchio as tio

from skte.datasets._label_names import label_id, label_members, names_of
from skte.datasets._problem import Flaw, Problem, raise_problems
from skte.datasets._relabel import Relabeling, RelabelingReader
from skte.datasets._subject import split_images

__all__ = ["Labels", "merge_regions", "relabel_subject", "relabel_subjects"]

#: From the name of a class to what it is made of.
Labels = Mapping[str, str | int | Sequence[str | int]]

_BACKGROUND, _IGNORE = "background", "ignore"


class _Plan(NamedTuple):
    """New ids, what they mean, and which of them is ignored."""

    relabeling: Relabeling
    members: dict[str, list[int]]
    ignore_label: int | None


def relabel_subjects(subjects: list[Any], labels: Labels | None) -> list[Any]:
    """Return subjects with the classes that `labels` describes.

    Parameters
    ----------
    subjects : list of Subject
        As the loaders make them; they are left as they are.
    labels : mapping or None
        As `load_dataset` describes it; None: the subjects are returned.

    Returns
    -------
    list of Subject
        Lazy where those given are.

    Raises
    ------
    DatasetError
        If names are unknown; the message lists them, and the names there are.
    """
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
    result = tio.Subject(items)
    result.applied_transforms = list(subject.applied_transforms)
    return result


def merge_regions(
    members: Mapping[str, list[int]], order: Sequence[int], ignore_label: int | None
) -> tuple[_Plan | None, list[Flaw]]:
    """Plan of nnU-Net's ``regions_class_order``; None where it changes no id.

    Region by region, each takes its number in `order`, and later ones overwrite.
    """
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


def _relabel_image(image: Any, relabeling: Relabeling) -> Any:
    if tio.DATA in image or not image.path:
        values = np.ascontiguousarray(relabeling.apply(image.data.detach().cpu().numpy()))
        return tio.LabelMap(tensor=torch.from_numpy(values), affine=image.affine)
    reader = image.reader
    if isinstance(reader, RelabelingReader):
        relabeling, reader = reader.relabeling.then(relabeling), reader.reader
    reader = RelabelingReader(relabeling, reader)
    return tio.LabelMap(image.path, reader=reader, roots=image.get("roots"), verify_path=False)


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
        flaws.append(
            ("labels name no class besides background and ignore", "name one class at least")
        )
    numbers = {_BACKGROUND: 0} | {name: i for i, name in enumerate(foreground, start=1)}
    ids = {} if ignore_label is None else {int(ignore_label): len(numbers)}
    for name, sources in classes.items():  # later classes win where they overlap
        ids |= dict.fromkeys(sources, numbers.get(name, len(numbers)))
    flaws += [
        (
            f"labels: nothing is left of {name!r}, for later classes hold all its ids",
            "put it after them, or leave it out",
        )
        for name in foreground
        if classes[name] and numbers[name] not in ids.values()
    ]
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
        flaws.append(
            (f"labels: class {name!r} is made of nothing", "list names or ids, or leave it out")
        )
    return ids, flaws


def _unknown(name: str, source: object, known: Mapping[str, list[int]]) -> Flaw:
    there = ", ".join(f"{k} ({' '.join(map(str, ids))})" for k, ids in known.items())
    near = difflib.get_close_matches(str(source), list(known), n=1)
    hint = f"did you mean {near[0]!r}? The labels are" if near else "the labels are"
    return f"labels: {source!r} in class {name!r} is no label of the dataset", f"{hint} {there}"
