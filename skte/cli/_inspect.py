"""``skte inspect``: what a bank's models and a dataset's cases look like to skte."""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from skte._memory import memory_problem
from skte._table import format_table, format_wrapped_table
from skte._text import complain, say, say_json
from skte.cli._options import (
    add_command,
    add_data_options,
    add_trusted_option,
    load_data,
    open_bank,
    tell_problems,
)
from skte.exceptions import BankError, DatasetError, SkteError

if TYPE_CHECKING:
    import torch
    from torch import nn

    from skte.bank import BankEntry, LayerInfo
    from skte.datasets import DatasetReport


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add ``skte inspect`` to the command line."""
    text = "show a bank's layers, or a dataset's cases and problems"
    example = "inspect Task04_Hippocampus --bank bank.yaml"
    parser = add_command(commands, common, inspect, "inspect", text, example)
    add = parser.add_argument
    add("path", nargs="?", metavar="DATA", help="folder or CSV of cases")
    add_data_options(parser)
    add("--bank", metavar="PATH", help="manifest of the models, or their folder")
    add_trusted_option(parser)
    add("--entry", metavar="NAME", help="this model only")
    add("--all", action="store_true", help="show every case and nested module")
    add("--json", action="store_true", help="print JSON instead of tables")


def inspect(args: argparse.Namespace) -> int:
    """Show a dataset, the models of a bank, or both."""
    from skte.datasets import inspect_dataset

    path = args.path
    if not (args.bank or path):
        raise SkteError("skte inspect needs a dataset, --bank, or both.")
    for name in ("trusted", "entry"):
        if getattr(args, name) and not args.bank:
            raise SkteError(f"--{name} names a model of a bank: give --bank as well.")
    found: dict[str, Any] = {}
    report = None
    subjects: list[Any] = []
    if path:
        try:
            subjects = load_data(path, args)
        except DatasetError as error:
            if not error.problems:
                raise
            return _not_loaded(path, error, as_json=args.json)
        report = inspect_dataset(subjects)
        found["data"] = report.to_dict()
        if not args.json:
            text = report.to_text(every=args.all)
            say(text)
            if text != report.to_text(every=True):
                say("\n--all shows every case")
    wrong = _inspect_bank(args, found, report, subjects) if args.bank else []
    if args.json:
        say_json(found)
    if report is not None and report.problems:
        wrong.insert(0, f"{path}: {_counted(report.problems)}; the table lists them")
    return tell_problems(wrong)


def _inspect_bank(
    args: argparse.Namespace,
    found: dict[str, Any],
    report: DatasetReport | None,
    subjects: list[Any],
) -> list[str]:
    """Describe the models; return what is wrong with them."""
    bank, problems = open_bank(args.bank, args)
    entries = [bank[args.entry]] if args.entry else list(bank)
    # A broken dataset says nothing about the models.
    usable = [] if report is None or report.problems else subjects
    found |= {"models": [], "not_understood": bank.not_understood}
    for entry in entries:
        described, wrong = describe_entry(entry, usable, show_all=args.all)
        problems += wrong
        found["models"].append(described)
        if not args.json:
            show_entry(described)
    return problems


def _not_loaded(path: str, error: DatasetError, *, as_json: bool) -> int:
    """Show the problems that keep a dataset from loading."""
    if as_json:
        problems = [problem._asdict() for problem in error.problems]
        say_json({"data": {"problems": problems}})
    else:
        rows = [(p.case_id or "(all)", p.what, p.remedy) for p in error.problems]
        say(format_wrapped_table(["case", "problem", "what to do"], rows))
    complain("error", f"{path} cannot be loaded: {_counted(error.problems)}")
    return 2


def _counted(problems: Sequence[Any]) -> str:
    return "1 problem" if len(problems) == 1 else f"{len(problems)} problems"


_EXAMPLE_EDGE = 64  # voxels; for entries that name no window
_PER_VOXEL = 64  # bytes of a window and its feature maps, for a few channels each
_SHOWN_DEPTH = 2  # modules nested deeper are shown with --all only


def describe_entry(
    entry: BankEntry, subjects: Sequence[Any], *, show_all: bool
) -> tuple[dict[str, Any], list[str]]:
    """Return what a model looks like, and what is wrong with it.

    With subjects, also whether it would run on them.
    """
    from skte._isolation import isolated

    try:
        with isolated(entry.name):
            return _description(entry, subjects, show_all=show_all), []
    except SkteError as error:
        text = str(error)
        text = text if repr(entry.name) in text else f"entry {entry.name!r}: {text}"
        return {"name": entry.name, "error": text}, [text]


def _description(entry: BankEntry, subjects: Sequence[Any], *, show_all: bool) -> dict[str, Any]:
    from skte.bank import find_layers
    from skte.estimators import recommended_estimators
    from skte.extraction import SegmentationFeatureExtractor
    from skte.selection import extractor_for

    network = entry.load().eval()
    example = _example(entry, network)
    # What skte rank reads without a choice of estimators, unless the entry says otherwise.
    by_default = str(extractor_for(recommended_estimators()).layers)
    sought = by_default if entry.layers == "auto" else entry.layers
    chosen = find_layers(network, sought, example, output=entry.output)
    if subjects:  # would it run on these cases?
        SegmentationFeatureExtractor(entry).fit(subjects[:1])
    marked = {layer.name: layer for layer in chosen}
    layers = [marked.get(layer.name, layer) for layer in _all_layers(network, example, marked)]
    if not show_all:
        layers = [a for a in layers if a.name in marked or a.name.count(".") < _SHOWN_DEPTH]
    return {
        "name": entry.name,
        "spatial_dims": example.ndim - 2,
        "in_channels": example.shape[1],
        "n_parameters": sum(p.numel() for p in network.parameters()),
        "untrained": entry.is_untrained,
        "layers_read": sought if isinstance(sought, str) else "named",
        "layers": [
            {"name": a.name, "stride": list(a.stride), "channels": a.channels}
            | {"is_read": a.name in marked}
            | ({"form": a.form, "certainty": a.certainty} if a.name in marked else {})
            for a in layers
        ],
    }


def show_entry(found: dict[str, Any]) -> None:
    """Print what `describe_entry` returned."""
    say()
    if "error" in found:
        say(f"{found['name']}: cannot be used")
        return
    how = {
        "all": "those of encoder and decoder, which skte rank reads unless it is given estimators "
        "that score layer by layer: these read the decoder's alone",
        "encoder": "those of the encoder, as the entry says",
    }.get(found["layers_read"], "named by the entry")
    say(
        f"{found['name']}: {'untrained, ' if found['untrained'] else ''}"
        f"{found['spatial_dims']}-D, input channels: {found['in_channels']}, "
        f"{found['n_parameters']} parameters; layers marked * are {how}"
    )
    if any(a.get("certainty") == "guess" for a in found["layers"]):
        say("a guess is a layer that does not change where the image does: name others")
    strides = [" x ".join(f"{s:.4g}" for s in a["stride"]) for a in found["layers"]]
    rows = [
        ["*" if a["is_read"] else "", a["name"], stride, a["channels"], a.get("certainty", "")]
        for a, stride in zip(found["layers"], strides, strict=True)
    ]
    say(format_table(["", "layer", "stride", "channels", "certainty"], rows))


def _example(entry: BankEntry, network: nn.Module) -> torch.Tensor:
    import torch

    from skte.bank import model_in_channels, model_spatial_dims

    n_axes = entry.spatial_dims or model_spatial_dims(network)
    n_channels = entry.in_channels or model_in_channels(network)
    if n_axes is None or n_channels is None:
        known = {"spatial_dims": n_axes, "in_channels": n_channels}
        missing = " and ".join(name for name, value in known.items() if value is None)
        raise BankError(f"{missing} cannot be inferred; set them in the entry.")
    window = entry.window_size or _EXAMPLE_EDGE
    edges = (window,) * n_axes if isinstance(window, int) else tuple(window)[:n_axes]
    problem = memory_problem(_PER_VOXEL * n_channels * math.prod(edges))
    if problem:
        raise BankError(f"a window of {' x '.join(map(str, edges))} voxels {problem}")
    parameter = next(network.parameters(), torch.empty(0))
    return torch.zeros(1, n_channels, *edges, device=parameter.device)


def _all_layers(network: nn.Module, example: torch.Tensor, read: Iterable[str]) -> list[LayerInfo]:
    """Every module that gives one feature map, and those that are read, as they finish."""
    import torch

    from skte.bank import describe_layers

    names: dict[str, None] = {}
    handles = []
    for name, module in network.named_modules():

        def note(_module: nn.Module, _args: Any, output: Any, name: str = name) -> None:
            is_map = isinstance(output, torch.Tensor) and output.ndim == example.ndim
            if name in read or (name and is_map):
                names[name] = None

        handles.append(module.register_forward_hook(note))
    try:
        with torch.inference_mode():
            network(example)
    finally:
        for handle in handles:
            handle.remove()
    return describe_layers(network, list(names), example)
