"""Published models: a catalogue of collections, and snapshots from the Hugging Face Hub."""

from __future__ import annotations

import os
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from skte._text import clean_text
from skte.bank._documents import parse_file
from skte.bank._trust import MANIFESTS
from skte.exceptions import BankError

__all__ = ["Collection", "catalogue", "download_snapshot"]

_REPOSITORY = re.compile(r"[\w][\w.-]*/[\w][\w.-]*")
# What describes and holds models; no programs.
_SUFFIXES = (
    ".json", ".yaml", ".yml", ".pt", ".pth", ".pt2", ".ckpt", ".safetensors", ".md", ".txt",
)  # fmt: skip
_LONGEST = 240  # characters of a name; file systems end at 255 bytes
_DEEPEST = 20
_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)


def download_snapshot(
    repository: str, folder: str | os.PathLike[str], *, revision: str | None = None
) -> Path:
    """Download the models of a repository of the Hugging Face Hub.

    The network is used by this function and no other of skte's banks.

    Parameters
    ----------
    repository : str
        ``"owner/name"``.
    folder : path-like
        Where its files go. Those that are there already are not downloaded again.
    revision : str, optional
        Branch, tag or commit. Default: the main branch.

    Returns
    -------
    Path
        The folder. Descriptions and weights only: no programs are downloaded, and no
        manifests, because they name code that would be run.

    Raises
    ------
    BankError
        If the package is missing, the repository cannot be reached, or a file's name
        leads out of the folder.

    Notes
    -----
    ``HF_ENDPOINT`` names another server, ``HF_TOKEN`` gives access to what is private.
    """
    if not _REPOSITORY.fullmatch(repository):
        raise BankError(f"{repository!r} must read 'owner/name', as on the Hub.")
    try:
        import huggingface_hub
    except ImportError as error:
        raise BankError(
            f"Downloading {repository} needs the package huggingface_hub: pip install skte[hub]."
        ) from error
    endpoint = os.environ.get("HF_ENDPOINT")
    try:
        info: Any = huggingface_hub.HfApi(endpoint=endpoint).model_info(
            repository, revision=revision
        )
        names = [file.rfilename for file in info.siblings or ()]
        _check_names(repository, names)
        huggingface_hub.snapshot_download(
            repository,
            revision=info.sha,  # what was checked, not what it may have become
            local_dir=folder,
            # Names and not patterns, which tell Bank.yaml from bank.yaml; file systems may not.
            allow_patterns=[_literally(name) for name in names if _is_wanted(name)],
            endpoint=endpoint,
        )
    except BankError:
        raise
    except Exception as error:
        first = next(iter(str(error).splitlines()), "")
        raise BankError(
            f"{repository} could not be downloaded ({type(error).__name__}: {first:.200}). Check "
            "its name, the revision and the network; private ones need HF_TOKEN."
        ) from error
    return Path(folder)


def _is_wanted(name: str) -> bool:
    """Whether a file describes or holds a model, and names no code."""
    *folders, last = name.split("/")
    if any(part.startswith(".") for part in (*folders, last)):
        return False
    plain = unicodedata.normalize("NFKC", last).casefold()
    if plain in MANIFESTS:
        return False
    return plain.endswith(_SUFFIXES) or plain.startswith("license")


def _literally(name: str) -> str:
    return re.sub(r"([*?[])", r"[\1]", name)


def _check_names(repository: str, names: list[str]) -> None:
    taken: dict[str, str] = {}
    for name in names:
        problem = _name_problem(name)
        if not problem and _is_wanted(name):
            plain = unicodedata.normalize("NFC", name).casefold()
            other = taken.setdefault(plain, name)
            problem = (
                "" if other == name else f"is the same as {clean_text(repr(other), 100)} on some"
            )
            problem = problem and f"{problem} file systems"
        if problem:
            shown = clean_text(repr(name), 200)
            raise BankError(f"{clean_text(repository)} was refused: its file {shown} {problem}.")


def _name_problem(name: str) -> str:
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or ":" in name or "\\" in name:
        return "would be written outside the folder"
    parts = name.split("/")
    if any(not part or part == "." or part != part.rstrip(". ") for part in parts):
        return "has a part that some file systems change (empty, or ending in a dot or space)"
    if any(len(part) > _LONGEST for part in parts) or len(parts) > _DEEPEST:
        return "is longer or deeper than a file of a model needs"
    if name != clean_text(name, len(name) + 5):
        return "contains invisible characters"
    if any(_DEVICES.fullmatch(part) for part in parts):
        return "has a name that Windows reserves for devices"
    return ""


_CATALOGUE = Path(__file__).with_name("catalogue.yaml")


@dataclass(frozen=True, kw_only=True)
class Collection:
    """What is known of a published collection of models.

    Parameters
    ----------
    name : str
        Its name.
    where : str
        The address of its page.
    models : str
        Architectures, and what they were trained on.
    modality : str
        Kind of images.
    license : str
        Of the weights.
    read : str
        How skte reads them.
    checked : str
        What was tried with skte, and what was not.
    spacing : str, default=""
        Voxel size that the models expect, where all have one.
    """

    name: str
    where: str
    models: str
    modality: str
    license: str
    read: str
    checked: str
    spacing: str = ""


def catalogue() -> list[Collection]:
    """List published collections of models; nothing is downloaded.

    Returns
    -------
    list of Collection
        Facts of their own pages; `Collection.checked` says what was tried with skte.

    Raises
    ------
    BankError
        Without PyYAML (``pip install skte[cli]``).

    See Also
    --------
    download_snapshot : Fetches a repository of the Hugging Face Hub.

    Examples
    --------
    >>> from skte.bank import catalogue
    >>> [one.name for one in catalogue()][:2]
    ['OpenMind', 'SuPreM']
    """
    return [Collection(**row) for row in parse_file(_CATALOGUE, "Catalogue")]
