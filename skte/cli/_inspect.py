"""``skte inspect``: what a bank's models and a dataset's cases look like to skte."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn

from skte._table import format_table
from skte.bank import (
    BankEntry,
    LayerInfo,
    describe_layers,
    find_layers,
    load_bank,
    model_in_channels,
    model_spatial_dims,
)
from skte.datasets import Case, check_dataset, load_dataset, read_case
from skte.exceptions import BankError, DatasetError, SkteError
from skte.extraction import SegmentationFeatureExtractor

__all__ = ["add_parser"]

_EXAMPLE_EDGE = 64  # voxels; for entries that name no window
_SHOWN_DEPTH = 2  # modules nested deeper are shown with --all only


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add ``skte inspect`` to the command line."""
    parser = commands.add_parser(
        "inspect", parents=[common], help="show a bank's layers, or a dataset's cases and problems"
    )
    parser.set_defaults(run=_run)
    parser.add_argument("--bank", metavar="FILE", help="manifest of the models")
    parser.add_argument("--entry", metavar="NAME", help="this model only")
    parser.add_argument("--data", metavar="DIR", help="folder of cases")
    parser.add_argument("--all", action="store_true", help="show modules of every depth")


def _run(args: argparse.Namespace) -> int:
    if not (args.bank or args.data):
        raise SkteError("skte inspect needs --bank, --data, or both.")
    if args.entry and not args.bank:
        raise SkteError("--entry names a model of a bank: give --bank as well.")
    subjects = load_dataset(args.data) if args.data else []
    problems = _show_dataset(subjects) if args.data else []
    if args.bank:
        bank = load_bank(args.bank)
        entries = [bank[args.entry]] if args.entry else list(bank)
        # A broken dataset says nothing about the models.
        usable = [] if problems else subjects
        for entry in entries:
            print()
            problems += _show_entry(entry, usable, show_all=args.all)
    for problem in problems:
        print(f"skte: problem: {problem}", file=sys.stderr)
    return 1 if problems else 0


def _show_dataset(subjects: Sequence[Any]) -> list[str]:
    problems = check_dataset(subjects)
    cases: list[Case] = []
    for subject in subjects:
        try:
            cases.append(read_case(subject))
        except DatasetError as error:
            # What the headers already told is not repeated.
            if not any(str(error) in known or known in str(error) for known in problems):
                problems.append(str(error))
    print(f"{len(subjects)} cases, {len(cases)} of them readable")
    if not cases:
        return problems
    counts = [_count_classes(case) for case in cases]
    classes = sorted(set().union(*counts))
    names = {k: v for case in cases for k, v in case.label_names.items()}
    header = ["case", "channels", "size", "spacing"]
    header += [f"{c} ({names[c]})" if c in names else f"{c}" for c in classes]
    rows = [
        [
            case.case_id,
            case.image.shape[0],
            _by(case.label.shape),
            _by(f"{s:.4g}" for s in case.spacing),
            *(count.get(c, 0) for c in classes),
        ]
        for case, count in zip(cases, counts, strict=True)
    ]
    print(format_table(header, rows))
    return problems


def _count_classes(case: Case) -> dict[int, int]:
    labels, counts = torch.unique(case.label, return_counts=True)
    found = dict(zip(labels.tolist(), counts.tolist(), strict=True))
    return {k: n for k, n in found.items() if k != case.ignore_label}


def _show_entry(entry: BankEntry, subjects: Sequence[Any], *, show_all: bool) -> list[str]:
    try:
        network = entry.load().eval()
        example = _example(entry, network)
        chosen = find_layers(network, entry.layers, example)
        if subjects:  # would it run on these cases?
            SegmentationFeatureExtractor(entry).fit(subjects[:1])
    except SkteError as error:
        print(f"{entry.name}: cannot be used")
        text = str(error)
        return [text if repr(entry.name) in text else f"entry {entry.name!r}: {text}"]
    n_parameters = sum(p.numel() for p in network.parameters())
    how = "found" if isinstance(entry.layers, str) else "named by the entry"
    print(
        f"{entry.name}: {example.ndim - 2}-D, {example.shape[1]} channels in, "
        f"{n_parameters} parameters; layers marked * are {how}"
    )
    marked = {layer.name for layer in chosen}
    layers = _all_layers(network, example)
    if not show_all:
        layers = [a for a in layers if a.name in marked or a.name.count(".") < _SHOWN_DEPTH]
    rows = [
        ["*" if a.name in marked else "", a.name, _by(f"{s:.4g}" for s in a.stride), a.channels]
        for a in layers
    ]
    print(format_table(["", "layer", "stride", "channels"], rows))
    return []


def _example(entry: BankEntry, network: nn.Module) -> torch.Tensor:
    n_axes = entry.spatial_dims or model_spatial_dims(network)
    n_channels = entry.in_channels or model_in_channels(network)
    missing = [
        name
        for name, value in (("spatial_dims", n_axes), ("in_channels", n_channels))
        if value is None
    ]
    if missing or n_axes is None or n_channels is None:
        raise BankError(f"{' and '.join(missing)} cannot be told; name them in the entry.")
    window = entry.window_size or _EXAMPLE_EDGE
    edges = (window,) * n_axes if isinstance(window, int) else tuple(window)[:n_axes]
    parameter = next(network.parameters(), torch.empty(0))
    return torch.zeros(1, n_channels, *edges, device=parameter.device)


def _all_layers(network: nn.Module, example: torch.Tensor) -> list[LayerInfo]:
    """Every module that gives one feature map, in the order they finish."""
    names: dict[str, None] = {}
    handles = []
    for name, module in network.named_modules():

        def note(_module: nn.Module, _args: Any, output: Any, name: str = name) -> None:
            if name and isinstance(output, torch.Tensor) and output.ndim == example.ndim:
                names[name] = None

        handles.append(module.register_forward_hook(note))
    try:
        with torch.inference_mode():
            network(example)
    finally:
        for handle in handles:
            handle.remove()
    return describe_layers(network, list(names), example)


def _by(values: Iterable[object]) -> str:
    return " x ".join(str(value) for value in values)
