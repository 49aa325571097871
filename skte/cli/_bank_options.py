"""Options that say which models are meant, and which of them are trusted."""

from __future__ import annotations

import argparse
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

from skte._text import complain
from skte.bank import ModelBank
from skte.exceptions import BankError, SkteWarning

__all__ = [
    "add_trust_package_option",
    "add_trusted_option",
    "for_shell",
    "open_bank",
    "tell_problems",
]


def add_trusted_option(parser: Any) -> None:
    """Add ``--trusted`` and ``--trust-package`` to a parser or group."""
    parser.add_argument(
        "--trusted",
        action="append",
        default=[],
        metavar="NAME",
        help="this model may run code when it is read: its path relative to the bank's folder, "
        "or its name in a manifest; may be repeated, and is stored nowhere",
    )
    add_trust_package_option(parser)


def add_trust_package_option(parser: Any) -> None:
    """Add ``--trust-package`` to a parser or group."""
    parser.add_argument(
        "--trust-package",
        action="append",
        default=[],
        metavar="PACKAGE",
        help="manifests may name functions of this package or module as factories; may be repeated",
    )


def open_bank(path: str, args: argparse.Namespace) -> tuple[ModelBank, list[str]]:
    """Return a bank, its trusted models marked, and what was not understood of its folder."""
    limits = {"trusted_packages": args.trust_package, "extra_roots": args.allow_root}
    with warnings.catch_warnings():
        # It is a problem, reported at the end.
        warnings.filterwarnings("ignore", "Folder ", SkteWarning)
        if Path(path).is_dir():
            bank = ModelBank.from_folder(path, trusted=args.trusted, **limits)
        else:
            bank = _trust(ModelBank.from_manifest(path, **limits), args.trusted)
    return bank, [f"{name}: {why}" for name, why in bank.not_understood.items()]


def tell_problems(problems: list[str]) -> int:
    """Print problems to stderr; returns the exit code."""
    for problem in problems:
        complain("problem", for_shell(problem))
    return 1 if problems else 0


def for_shell(text: str) -> str:
    """Return a message with the remedy that there is here, in place of Python's."""
    return text.replace("pass trusted=True", "give --trusted NAME")


def _trust(bank: ModelBank, names: list[str]) -> ModelBank:
    strangers = sorted(set(names) - set(bank.names))
    if strangers:
        raise BankError(
            f"trusted names {strangers}, but the manifest has no such models; it has "
            f"{sorted(bank.names)}."
        )
    return ModelBank(replace(e, trusted=True) if e.name in names else e for e in bank)
