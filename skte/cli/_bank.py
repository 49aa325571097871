"""``skte bank``: a folder of models, looked after."""

from __future__ import annotations

import argparse
import shutil
import warnings
from collections.abc import Iterable
from dataclasses import asdict
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skte._files import outside_problem
from skte._registry import READERS
from skte._table import format_table
from skte._text import say, say_json
from skte.cli._inspect import inspect
from skte.cli._options import (
    add_command,
    add_trust_package_option,
    add_trusted_option,
    open_bank,
    tell_problems,
)
from skte.exceptions import SkteError, SkteWarning

if TYPE_CHECKING:
    from skte.bank import BankEntry


_HUB = "hub:"
_MANIFESTS = (".yaml", ".yml", ".json")
_COPIED = (".json", ".yaml", ".yml", ".pt", ".pth", ".pt2", ".ckpt", ".safetensors", ".md", ".txt")
_LEFT_BEHIND = (
    ".*", "checkpoint_latest.pth", "crossval_results*", "dataset_fingerprint.json", "debug.json",
    "progress.png", "training_log*", "validation*",
)  # fmt: skip
_EXAMPLE = """\
# A manifest of models that skte cannot recognise by their folders. Rename this file to
# bank.yaml, and fill it in. Paths are relative to it and stay inside its folder.
models:
  - name: my-unet
    factory: monai.networks.nets:UNet   # a function of your own: --trust-package PACKAGE
    arguments: {spatial_dims: 3, in_channels: 1, out_channels: 2, channels: [8, 16], strides: [2]}
    weights: my-unet.safetensors        # or a state dict by torch.save
    preprocessing:
      - ToCanonical
      - ZNormalization
"""


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add ``skte bank`` to the command line."""
    parser = commands.add_parser(
        "bank", help="manage a folder of models", epilog="example:\n  skte bank list bank\n\n"
    )
    actions = parser.add_subparsers(title="actions", required=True, metavar="ACTION")
    model = "nnUNet_results/Dataset009_Spleen/nnUNetTrainer__nnUNetPlans__3d_fullres"
    found = {}
    for name, run, example, text in (
        ("init", _init, "bank", "create an empty bank"),
        ("add", _add, f"bank {model}",
         "copy a model into a bank, or download one from the Hugging Face Hub"),
        ("list", _list, "bank", "list models, and what was not understood; nothing is loaded"),
        ("check", inspect, "bank", "load every model and show the layers that are read"),
        ("catalogue", _catalogue, "--json", "list published collections of models"),
    ):  # fmt: skip
        action = add_command(actions, common, run, name, text, f"bank {name} {example}")
        if name != "catalogue":
            action.add_argument("bank", metavar="BANK", help="the bank's folder, or a manifest")
        action.add_argument("--json", action="store_true", help="print JSON instead of text")
        found[name] = action
    add_trust_package_option(found["init"])
    for name in ("add", "list", "check"):
        add_trusted_option(found[name])
    found["check"].set_defaults(path=None, all=False)
    found["check"].add_argument("--entry", metavar="NAME", help="this model only")
    found["add"].add_argument(
        "source",
        metavar="SOURCE",
        help=f"what a reader knows ({', '.join(READERS)}, or a format of another package), a "
        "manifest with the weights it names, or hub:owner/name[@revision]",
    )
    found["add"].add_argument("--as", dest="name", metavar="FOLDER", help="its folder's name")


def _catalogue(args: argparse.Namespace) -> int:
    from skte.bank import catalogue

    rows = [asdict(one) for one in catalogue()]
    if args.json:
        say_json({"collections": rows})
        return 0
    for row in rows:
        say(row.pop("name"))
        for key, value in row.items():
            if value:
                say(f"  {key + ':':<10}{value}")
    return 0


def _init(args: argparse.Namespace) -> int:
    from skte.bank import keep_trust

    folder = Path(args.bank)
    is_there = folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
    if is_there and not args.trust_package:
        raise SkteError(f"{folder} already exists and is not empty.")
    trust = keep_trust(folder, args.trust_package) if args.trust_package else None
    if not is_there:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "bank.example.yaml").write_text(_EXAMPLE)
    if args.json:
        found = {"bank": str(folder)} | ({"trust": str(trust)} if trust else {})
        say_json(found)
        return 0
    if not is_there:
        say(f"{folder} is ready: add models with 'skte bank add {folder} SOURCE'")
    if trust:
        say(
            f"Factories of {', '.join(args.trust_package)} may be named by the manifest of "
            f"{folder}, on this machine and for you; this is kept in {trust}"
        )
    return 0


def _add(args: argparse.Namespace) -> int:
    bank = Path(args.bank)
    if bank.exists() and not bank.is_dir():
        raise SkteError(f"{bank} is a file: models are added to a folder.")
    source = Path(args.source)
    if source.is_dir() and bank.resolve().is_relative_to(source.resolve()):
        raise SkteError(f"{source} holds the bank {bank} itself: name the model's own folder.")
    target = _target(bank, args.source, args.name)
    if target.exists():
        raise SkteError(f"{target} already exists: remove it first, or pass --as.")
    args.trusted = _within(args.trusted, bank, target)
    unread: dict[str, str] = {}
    kept, left = {source}, set[Path]()
    if source.is_dir() and _manifest_of(source) is None:
        found, _ = open_bank(args.source, args)
        unread = found.not_understood
        kept = {source / place for place in found.places.values()}
        left = {source / place for place in unread}
    try:
        _fetch(args.source, target, args, kept, left)
        found, _ = open_bank(str(target), args)
    except BaseException:
        _remove(target, bank)
        raise
    unread = unread | found.not_understood
    if args.json:
        say_json({"added": found.names, "not_understood": unread})
    else:
        say("\n".join(f"added {name}" for name in found.names))
    return tell_problems([f"{name}: {why}" for name, why in unread.items()])


def _within(names: list[str], bank: Path, target: Path) -> list[str]:
    """Return trusted paths relative to what is added; names of entries as they are."""
    inside = target.relative_to(bank)
    return [
        str(Path(name).relative_to(inside)) if Path(name).is_relative_to(inside) else name
        for name in names
    ]


def _target(bank: Path, source: str, name: str | None) -> Path:
    """Return where a source goes; models of nnU-Net keep the folder of their dataset."""
    if name is not None:
        if Path(name).name != name or name.startswith("."):
            raise SkteError(f"--as {name}: must be the name of a folder, without its path.")
        return bank / name
    if source.startswith(_HUB):
        return bank / source.removeprefix(_HUB).partition("@")[0].replace("/", "--")
    path = Path(source).absolute()
    if not path.exists():
        raise SkteError(f"There is no {source}.")
    if path.suffix.lower() in _MANIFESTS:
        return bank / path.parent.name
    if path.is_file():
        return bank / path.stem
    return bank / path.parent.name / path.name if "__" in path.name else bank / path.name


def _fetch(
    source: str, target: Path, args: argparse.Namespace, kept: set[Path], left: set[Path]
) -> None:
    from skte.bank import download_snapshot

    manifest = _manifest_of(Path(source))
    if manifest is not None:
        _copy_manifest(manifest, target, args)
    elif source.startswith(_HUB):
        repository, _, revision = source.removeprefix(_HUB).partition("@")
        download_snapshot(repository, target, revision=revision or None)
    elif Path(source).is_file():
        target.mkdir(parents=True)
        shutil.copy2(source, target)
    else:
        root = Path(source)

        def ignore(folder: str, names: list[str]) -> Iterable[str]:
            ignored = {
                name for name in _left_behind(folder, names) if Path(folder, name) not in kept
            }
            for path in (Path(folder, name) for name in sorted({*names} - ignored)):
                inside = [one for one in (*kept, *left) if one.is_relative_to(path)]
                if inside and kept.isdisjoint(inside):
                    ignored.add(path.name)
                    continue
                problem = outside_problem(path, [root, *args.allow_root])  # links are followed
                if problem:
                    raise SkteError(f"{path} {problem}.")
            return ignored

        shutil.copytree(source, target, ignore=ignore)


def _manifest_of(source: Path) -> Path | None:
    """Return a manifest that is given itself or by its folder; files beside it are not meant."""
    if source.is_dir():
        names = [source / f"bank{suffix}" for suffix in _MANIFESTS]
        return next((path for path in names if path.is_file()), None)
    return source if source.is_file() and source.suffix.lower() in _MANIFESTS else None


def _copy_manifest(manifest: Path, target: Path, args: argparse.Namespace) -> None:
    """Copy a manifest and the weights that it names, and nothing else."""
    from skte.bank import ModelBank, weight_file

    limits = {"trusted_packages": args.trust_package, "extra_roots": args.allow_root}
    folder = manifest.parent.absolute()
    named = [e.weights for e in ModelBank.from_manifest(manifest, **limits) if e.weights]
    files = dict.fromkeys(weight_file(Path(weights)) for weights in named)
    for file in files:
        if not file.is_relative_to(folder):
            raise SkteError(f"{file} is not in the folder of {manifest}: move it there first.")
        copy = target / file.relative_to(folder)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(file, copy)
    target.mkdir(parents=True, exist_ok=True)
    shutil.copy2(manifest, target / f"bank{manifest.suffix.lower()}")


def _left_behind(folder: str, names: list[str]) -> Iterable[str]:
    """Name what a model does not need: predictions, plots, checkpoints on the way."""
    here = Path(folder)
    left = [*_LEFT_BEHIND]
    if "checkpoint_final.pth" in names:
        left.append("checkpoint_best.pth")
    return [
        name
        for name in names
        if any(fnmatchcase(name, one) for one in left)
        or ((here / name).is_file() and (here / name).suffix.lower() not in _COPIED)
    ]


def _remove(target: Path, bank: Path) -> None:
    """Take back what was copied, and the folders made for it."""
    shutil.rmtree(target, ignore_errors=True)
    for folder in target.parents:
        if folder == bank or bank not in folder.parents or any(folder.iterdir()):
            return
        folder.rmdir()


def _list(args: argparse.Namespace) -> int:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", SkteWarning)
        bank, problems = open_bank(args.bank, args)
    problems += [str(w.message) for w in caught if issubclass(w.category, SkteWarning)]
    rows = [_summary(entry) for entry in bank]
    if args.json:
        say_json({"models": rows, "not_understood": bank.not_understood})
    else:
        header = ["name", "format", "weights", "channels", "window", "preprocessing"]
        say(format_table(header, [[row[key] for key in header] for row in rows]))
    return tell_problems(problems)


def _summary(entry: BankEntry) -> dict[str, Any]:
    window = entry.window_size
    edges = [window] if isinstance(window, int) else window
    return {
        "name": entry.name,
        "format": str(entry.provenance.get("format", "manifest")),
        "weights": _weights_name(entry),
        "channels": entry.in_channels if entry.in_channels is not None else "",
        "window": " x ".join(map(str, edges)) if edges else "",
        "preprocessing": ", ".join(entry.step_names),
    }


def _weights_name(entry: BankEntry) -> str:
    if entry.weights is not None:
        return Path(entry.weights).name
    # An exported program is its own factory.
    return "untrained" if entry.is_untrained else "with the network"
