"""Published models: a catalogue of collections, and snapshots from the Hugging Face Hub."""

from __future__ import annotations

import os
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skte._text import clean_text
from skte.bank._documents import parse_file
from skte.bank._manifest import MANIFESTS
from skte.exceptions import BankError

_REPOSITORY = re.compile(r"[\w][\w.-]*/[\w][\w.-]*")
# What describes and holds models; no programs.
_SUFFIXES = (
    ".json", ".yaml", ".yml", ".pt", ".pth", ".pt2", ".ckpt", ".safetensors", ".md", ".txt",
)  # fmt: skip
# Of a path: at most 240 characters (file systems end at 255 bytes), no dot or space at the end.
_PART = re.compile(r"[\w.][\w .,;+=@#$%&~!'(){}\[\]^-]{0,239}(?<![. ])")
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
    """Refuse names that lead out of the folder, or that some file systems change or confuse."""
    taken: dict[str, str] = {}
    for name in names:
        parts = name.split("/")
        problem = ""
        if len(parts) > _DEEPEST or not all(_PART.fullmatch(part) for part in parts):
            problem = "is not plain text, leads out of the folder, or is longer than files need"
        elif any(_DEVICES.fullmatch(part) for part in parts):
            problem = "has a name that Windows reserves for devices"
        elif _is_wanted(name):
            other = taken.setdefault(unicodedata.normalize("NFC", name).casefold(), name)
            if other != name:
                problem = f"is the same as {other!r} on some file systems"
        if problem:
            shown = clean_text(repr(name), 200)
            raise BankError(f"{clean_text(repository)} was refused: its file {shown} {problem}.")


_CATALOGUE = Path(__file__).with_name("catalogue.yaml")


@dataclass(frozen=True, kw_only=True)
class Collection:
    """What is known of a published collection of models."""

    name: str
    where: str  # the address of its page
    models: str  # architectures, and what they were trained on
    modality: str
    license: str  # of the weights
    read: str  # how skte reads them
    checked: str  # what was tried with skte, and what was not
    spacing: str = ""  # voxel size that the models expect, where all have one


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
