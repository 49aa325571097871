"""Unpacking an archive that someone else made."""

from __future__ import annotations

import shutil
import tarfile
import tempfile
import unicodedata
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from skte._text import clean_text
from skte.exceptions import DatasetError

__all__ = ["extract_folder"]

_MOST_FILES = 100_000
_COMPONENT = 255  # bytes a name may have
_LONGEST, _DEEPEST = 1024, 32  # bytes of a path, and folders in it
# What Python's reader raises for headers that are damaged or meant to do harm.
_BROKEN = (tarfile.TarError, ValueError, EOFError, OverflowError, RecursionError)


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
    except DatasetError:  # a ValueError too
        raise
    except _BROKEN as error:
        what = clean_text(error, 200) or type(error).__name__
        raise DatasetError(f"{archive} is not a tar archive ({what}): get it again.") from error


def _checked(
    tar: tarfile.TarFile, name: str, archive: Path
) -> Iterator[tuple[tarfile.TarInfo, PurePosixPath]]:
    room = archive.stat().st_size
    free = shutil.disk_usage(archive.parent).free
    if room > free:
        raise DatasetError(f"{archive} needs {room} bytes to unpack, and {free} are left.")
    found: dict[str, bool] = {}  # whether each name is that of a folder
    for count, member in enumerate(tar):
        relative = PurePosixPath(member.name)
        wrong = _flaw(member, name) or _clash(relative, member.isdir(), found)
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
        if any(part.startswith(".") for part in relative.parts) or not relative.parts:
            continue
        for folder in relative.parents:
            found[_key(folder)] = True
        found[_key(relative)] = member.isdir()
        yield member, relative
    if not found:
        raise DatasetError(f"{archive} holds no folder {name!r}: it is another archive.")


def _key(path: PurePosixPath) -> str:
    """Name under which file systems that ignore case or accents' forms keep a file."""
    return unicodedata.normalize("NFC", str(path)).casefold()


def _clash(path: PurePosixPath, is_folder: bool, found: Mapping[str, bool]) -> str | None:
    """Say what forbids a name beside those before it."""
    if any(not found.get(_key(folder), True) for folder in path.parents):
        return "it lies in what is a file"
    before = found.get(_key(path))
    if before is None or (before and is_folder):
        return None
    return "its name occurs twice, as a file or in capitals"


def _flaw(member: tarfile.TarInfo, name: str) -> str | None:
    """Say what forbids unpacking a member."""
    # Both kinds of slashes: what is a name here may be a path elsewhere.
    parts = member.name.replace("\\", "/").split("/")
    if member.name.startswith("/") or ".." in parts or ":" in member.name or "\\" in member.name:
        return "its name leads out of the folder"
    if any(not part.isprintable() or len(part.encode()) > _COMPONENT for part in parts):
        return "its name cannot be that of a file"
    if len(member.name.encode()) > _LONGEST or len(parts) > _DEEPEST:
        return "its name is too long, or lies too deep"
    if [part for part in parts if part not in ("", ".")][:1] not in ([name], []) and not any(
        part.startswith("._") for part in parts
    ):
        return f"it lies beside the folder {name!r}"
    if member.isfile() and PurePosixPath(member.name).parts == (name,):
        return "it is a file where the folder should be"
    if not (member.isfile() or member.isdir()) or member.issparse() or member.size < 0:
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
