"""Unpacking an archive that someone else made."""

from __future__ import annotations

import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from skte.exceptions import DatasetError

__all__ = ["extract_folder"]

_MOST_FILES = 100_000
_COMPONENT = 255  # bytes a name may have


def extract_folder(archive: Path, name: str, target: Path) -> None:
    """Unpack the one folder that a tar archive holds, all of it or nothing.

    Only plain files and folders below ``name/`` are taken. Anything else (links,
    devices, names that lead elsewhere, sparse files that become larger than the archive)
    is refused before a byte is written. Hidden files, which macOS leaves, are left out.

    Parameters
    ----------
    archive : Path
        A tar file that is not compressed.
    name : str
        The folder in it.
    target : Path
        What the folder becomes; it must not exist.

    Raises
    ------
    DatasetError
        If the archive is no such thing; the message names the member.
    """
    try:
        with tarfile.open(archive, "r:") as tar:
            members = list(_checked(tar, name, archive))
            with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{name}-") as place:
                for member, relative in members:
                    _write(tar, member, Path(place, *relative.parts))
                folder = Path(place, name)
                folder.chmod(0o755)
                folder.replace(target)
    except tarfile.TarError as error:
        raise DatasetError(f"{archive} is no tar archive ({error}): get it again.") from error


def _checked(
    tar: tarfile.TarFile, name: str, archive: Path
) -> Iterator[tuple[tarfile.TarInfo, PurePosixPath]]:
    room = archive.stat().st_size
    found: set[str] = set()
    for count, member in enumerate(tar):
        wrong = _flaw(member, name)
        room -= member.size
        if room < 0:
            wrong = "it is larger than the archive"
        elif count >= _MOST_FILES:
            wrong = f"it holds more than {_MOST_FILES} files"
        if wrong:
            raise DatasetError(
                f"{archive} is not unpacked: {member.name!r:.200}: {wrong}. Nothing was "
                "written; the archive is not what it should be."
            )
        relative = PurePosixPath(member.name)
        hidden = any(part.startswith(".") for part in relative.parts)
        if hidden or str(relative).lower() in found:
            continue
        found.add(str(relative).lower())
        yield member, relative
    if not found:
        raise DatasetError(f"{archive} holds no folder {name!r}: it is another archive.")


def _flaw(member: tarfile.TarInfo, name: str) -> str | None:
    """Say what forbids unpacking a member."""
    # Both kinds of slashes: what is a name here may be a path elsewhere.
    parts = member.name.replace("\\", "/").split("/")
    if member.name.startswith("/") or ".." in parts or ":" in member.name or "\\" in member.name:
        return "its name leads out of the folder"
    if any(not part.isprintable() or len(part.encode()) > _COMPONENT for part in parts):
        return "its name is no file name"
    if [part for part in parts if part not in ("", ".")][:1] not in ([name], []) and not any(
        part.startswith("._") for part in parts
    ):
        return f"it lies beside the folder {name!r}"
    if not (member.isfile() or member.isdir()) or member.issparse():
        return "it is neither a plain file nor a folder"
    return None


def _write(tar: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
    if member.isdir():
        path.mkdir(parents=True, exist_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    source = tar.extractfile(member)
    if source is None:
        raise DatasetError(f"{member.name!r:.200} cannot be read from the archive.")
    with source, path.open("xb") as file:
        shutil.copyfileobj(source, file)
    if path.stat().st_size != member.size:
        raise DatasetError(f"{member.name!r:.200} is cut short in the archive: get it again.")
