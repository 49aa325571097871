"""Pairing image files with label files by name."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from skte.datasets._dicom_series import is_series
from skte.datasets._image_file import file_flaw
from skte.datasets._problem import Problem

__all__ = ["case_file_problems", "match_files"]

_CHANNEL = re.compile(r"(?P<case>.+)_(?P<channel>\d{4})")


def match_files(
    images: Collection[tuple[str, Path]],
    labels: Collection[tuple[str, Path]],
    *,
    n_channels: int | None = None,
) -> tuple[dict[str, tuple[list[Path], Path]], list[Problem]]:
    """Pair images with labels by stem.

    An image belongs to the label of the same stem, or is a channel (``_0000``,
    ``_0001``, ...) of the label whose stem it extends. The exact stem comes first, so
    that ``patient_0007`` may be the name of a case.

    Parameters
    ----------
    images, labels : collection of (stem, path)
        The files of either folder.
    n_channels : int, optional
        Channels every case must have; None: as many as the first one.

    Returns
    -------
    cases : dict of str to (list of Path, Path)
        Channels in order and label of each case, sorted by name.
    problems : list of Problem
        Files that match nothing, and cases whose channels have gaps or differ in number.
    """
    label_of = dict(labels)
    channels: dict[str, dict[int, Path]] = {stem: {} for stem in sorted(label_of)}
    problems = [*_clashes(images), *_clashes(labels)]
    for stem, path in images:
        match = _CHANNEL.fullmatch(stem)
        if stem in label_of:
            case_id, channel = stem, 0
        elif match and match["case"] in label_of:
            case_id, channel = match["case"], int(match["channel"])
        else:
            remedy = f"add {stem} to the labels, or take the image away"
            problems.append(Problem(None, f"image {path.name} has no label", remedy))
            continue
        if channel in channels[case_id] and channels[case_id][channel].name != path.name:
            other = channels[case_id][channel].name
            what = f"it has channel {channel} twice: {path.name} and {other}"
            problems.append(Problem(case_id, what, "keep one"))
        channels[case_id].setdefault(channel, path)
    problems += _channel_problems(channels, label_of, n_channels)
    cases = {
        case_id: ([files[i] for i in sorted(files)], label_of[case_id])
        for case_id, files in channels.items()
        if files
    }
    return cases, problems


def case_file_problems(
    cases: Mapping[str, tuple[Sequence[Path], Path]], roots: Sequence[Path]
) -> list[Problem]:
    """Problems of files that lead out of the roots, or are no files: links to nothing, pipes."""
    return [
        Problem(case_id, *flaw)
        for case_id, (images, label) in cases.items()
        for file in (*images, label)
        if (flaw := file_flaw(file, roots, folders=is_series(file)))
    ]


def _clashes(files: Collection[tuple[str, Path]]) -> list[Problem]:
    by_stem: dict[str, list[str]] = {}
    for stem, path in files:
        by_stem.setdefault(stem, []).append(path.name)
    folder = next((path.parent.name for _, path in files), "")
    return [
        Problem(stem, f"files {', '.join(names)} in {folder}/ share this case id", "keep one")
        for stem, names in by_stem.items()
        if len(names) > 1
    ]


def _channel_problems(
    channels: Mapping[str, Mapping[int, Path]],
    label_of: Mapping[str, Path],
    n_channels: int | None,
) -> list[Problem]:
    problems = []
    for case_id, files in channels.items():
        if not files:
            what = f"label {label_of[case_id].name} has no image"
            problems.append(Problem(case_id, what, "add it, or take the label away"))
            continue
        # Names up to the first gap are enough: a channel 9999 is no reason to list all others.
        missing = sorted(set(range(max(files) + 1)) - set(files))[:5]
        n_channels = n_channels or max(files) + 1
        if missing:
            gaps = ", ".join(f"_{i:04d}" for i in missing)
            problems.append(Problem(case_id, f"it lacks channel {gaps}", "add the file"))
        elif len(files) != n_channels:
            what = f"it has {len(files)} channels where {n_channels} are expected"
            problems.append(Problem(case_id, what, "give every case the same channels"))
    return problems
