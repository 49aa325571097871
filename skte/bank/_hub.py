"""Snapshots of models from the Hugging Face Hub."""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath
from typing import Any

from skte.bank._from_folder import MANIFESTS
from skte.exceptions import BankError

__all__ = ["download_snapshot"]

_REPOSITORY = re.compile(r"[\w][\w.-]*/[\w][\w.-]*")
# What describes and holds models; no programs.
_PATTERNS = (
    "*.json", "*.yaml", "*.yml", "*.pt", "*.pth", "*.pt2", "*.ckpt", "*.safetensors", "*.md",
    "*.txt", "LICENSE*",
)  # fmt: skip


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
        _check_names(repository, [file.rfilename for file in info.siblings or ()])
        huggingface_hub.snapshot_download(
            repository,
            revision=info.sha,  # what was checked, not what it may have become
            local_dir=folder,
            allow_patterns=list(_PATTERNS),
            ignore_patterns=[f"*{name}" for name in MANIFESTS],
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


def _check_names(repository: str, names: list[str]) -> None:
    for name in names:
        path = PurePosixPath(name.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or ":" in name:
            raise BankError(
                f"{repository} was refused: its file {name!r} would be written outside the folder."
            )
