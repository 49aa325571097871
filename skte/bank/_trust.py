"""What reading a model may do, and which packages a user trusts for a bank."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from skte._files import write_text_atomically
from skte.bank._factory import package_problem
from skte.exceptions import BankError

__all__ = ["MANIFESTS", "ReadOptions", "check_packages", "keep_trust", "kept_trust"]

#: Names of manifests that are looked for in a folder.
MANIFESTS = ("bank.yaml", "bank.yml", "bank.json")


@dataclass(frozen=True)
class ReadOptions:
    """What a reader of models may do.

    Parameters
    ----------
    trusted : bool, default=False
        Whether reading this model may run code.
    trusted_packages : tuple of str, default=()
        Packages whose functions may be named as factories.
    extra_roots : tuple of path-like, default=()
        Folders that links and paths may lead to.
    """

    trusted: bool = False
    trusted_packages: tuple[str, ...] = ()
    extra_roots: tuple[str | os.PathLike[str], ...] = ()


def check_packages(packages: Collection[str]) -> tuple[str, ...]:
    """Return the packages that a user trusts."""
    if isinstance(packages, str):
        raise BankError(f"trusted_packages must be a list: write [{packages!r}].")
    problems = [problem for item in packages if (problem := package_problem(item))]
    if problems:
        raise BankError(f"trusted_packages: {'; '.join(problems)}.")
    return tuple(packages)


def keep_trust(bank: str | os.PathLike[str], packages: Iterable[str]) -> Path:
    """Note for this user and machine that a bank's factories may come from packages."""
    path = _path()
    notes = _read(path)
    key = os.path.realpath(bank)
    notes[key] = sorted({*notes.get(key, ()), *check_packages(tuple(packages))})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text_atomically(path, json.dumps(notes, indent=1) + "\n")
    except OSError as error:
        raise BankError(f"The trust in {packages} cannot be kept in {path}: {error}.") from error
    return path


def kept_trust(manifest: Path) -> tuple[str, ...]:
    """Return the packages that this user trusts for a manifest."""
    notes = _read(_path())
    real = os.path.realpath(manifest)
    found = list(notes.get(real, ()))
    if os.path.basename(real) in MANIFESTS:
        found += notes.get(os.path.dirname(real), ())
    return tuple(dict.fromkeys(found))


def _path() -> Path:
    base = os.environ.get("APPDATA" if os.name == "nt" else "XDG_CONFIG_HOME")
    if not base or not os.path.isabs(base):
        base = os.path.join(os.path.expanduser("~"), ".config")
    return Path(base, "skte", "trusted.json")


def _read(path: Path) -> dict[str, list[str]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise BankError(
            f"{path}, where trust in packages is kept, cannot be read ({error}); fix or remove it."
        ) from error
    if not isinstance(content, dict) or any(
        not isinstance(packages, list) or any(map(package_problem, packages))
        for packages in content.values()
    ):
        raise BankError(
            f"{path}, where trust in packages is kept, must map banks to lists of packages; fix "
            "or remove it."
        )
    return content
