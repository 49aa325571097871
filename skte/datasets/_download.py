"""Downloads of public datasets: fetching a file, unpacking it, and where it is kept."""

from __future__ import annotations

import errno
import hashlib
import http.client
import os
import re
import shutil
import sys
import tarfile
import tempfile
import time
import unicodedata
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from skte._files import lock
from skte._text import clean_text
from skte.exceptions import DatasetError

_MOST_FILES = 100_000
_COMPONENT = 255  # bytes a name may have
_LONGEST, _DEEPEST = 1024, 32  # bytes of a path, and folders in it
# What Python's reader raises for headers that are damaged or meant to do harm.
_BROKEN = (tarfile.TarError, ValueError, EOFError, OverflowError, RecursionError)

#: Called with the number of bytes that are there, and of all (None: not known).
Progress = Callable[[int, int | None], object]
_CHUNK = 2**18
_TIMEOUT = 60.0  # seconds without a byte
# Failures in a row, none of which brought a byte.
_MOST_FAILURES = 5
_PAUSE = 0.5  # seconds after the first failure; doubled after each further one
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EFBIG, errno.ENOENT)
_DIGITS = {"md5": 32, "sha256": 64}
_BASE_URL = "https://msd-for-monai.s3-us-west-2.amazonaws.com"
_MOST_BYTES = 100 * 10**9  # more than any of the archives has
_WAIT = 0.1  # seconds between looks at another process's lock

#: Tasks of the Medical Segmentation Decathlon and the MD5 of their archives, as MONAI's
#: `DecathlonDataset` states them.
MSD_TASKS = {
    "Task01_BrainTumour": "md5:240a19d752f0d9e9101544901065d872",
    "Task02_Heart": "md5:06ee59366e1e5124267b774dbd654057",
    "Task03_Liver": "md5:a90ec6c4aa7f6a3d087205e23d4e6397",
    "Task04_Hippocampus": "md5:9d24dba78a72977dbd1d2e110310f31b",
    "Task05_Prostate": "md5:35138f08b1efaef89d7424d2bcc928db",
    "Task06_Lung": "md5:8afd997733c7fc0432f71255ba4e52dc",
    "Task07_Pancreas": "md5:4f7080cfca169fa8066d17ce6eb061e4",
    "Task08_HepaticVessel": "md5:641d79e80ec66453921d997fbf12a29c",
    "Task09_Spleen": "md5:410d4a301da4e5b2f6f86ec3ddba524e",
    "Task10_Colon": "md5:bad7a188931dc2f6acf72b08eb6202d0",
}


def cache_home() -> Path:
    """Return the folder of downloads: ``SKTE_HOME``, or the platform's place for caches."""
    if chosen := os.environ.get("SKTE_HOME"):
        return Path(chosen).expanduser()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "skte"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "skte"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "skte"


def extract_folder(archive: Path, name: str, target: Path) -> None:
    """Unpack the one folder of a tar archive, plain files and folders: all or nothing."""
    room, free = archive.stat().st_size, shutil.disk_usage(archive.parent).free
    if room > free:
        raise DatasetError(f"{archive} needs {room} bytes to unpack, and {free} are left.")
    try:
        with (
            tarfile.open(archive, "r:") as tar,
            tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{name}-") as place,
        ):
            found: set[str] = set()  # as file systems keep names that ignore case or accents' forms
            for count, member in enumerate(tar):
                room -= member.size
                key = unicodedata.normalize("NFC", member.name).casefold()
                wrong = _flaw(member, name)
                if room < 0:
                    wrong = "it is larger than the archive"
                elif count >= _MOST_FILES:
                    wrong = f"it holds more than {_MOST_FILES} files"
                elif member.isfile() and key in found:
                    wrong = "its name occurs twice, be it in capitals"
                elif not (wrong or _is_hidden(member)):
                    found.add(key)
                    wrong = _write(tar, member, Path(place, member.name))
                if wrong:
                    raise DatasetError(
                        f"{archive} is not unpacked: {member.name!r:.200}: {wrong}. Nothing of it "
                        "was kept; the archive is not what it should be."
                    )
            folder = Path(place, name)
            if not folder.is_dir():
                raise DatasetError(f"{archive} holds no folder {name!r}: it is another archive.")
            folder.chmod(0o755)
            folder.replace(target)
    except DatasetError:  # a ValueError too
        raise
    except _BROKEN as error:
        what = clean_text(error, 200) or type(error).__name__
        raise DatasetError(
            f"{archive} is not a tar archive ({what}): download it again."
        ) from error


def _flaw(member: tarfile.TarInfo, name: str) -> str:
    """Return what forbids unpacking a member."""
    # Both kinds of slashes: what is a name here may be a path elsewhere.
    parts = member.name.replace("\\", "/").split("/")
    if member.name.startswith("/") or ".." in parts or ":" in member.name or "\\" in member.name:
        return "its name leads out of the folder"
    if not member.name.isprintable() or max(len(part.encode()) for part in parts) > _COMPONENT:
        return "its name is not valid for a file"
    if len(member.name.encode()) > _LONGEST or len(parts) > _DEEPEST:
        return "its name is too long, or lies too deep"
    if not _is_hidden(member) and PurePosixPath(member.name).parts[:1] not in ((name,), ()):
        return f"it lies beside the folder {name!r}"
    if not (member.isfile() or member.isdir()) or member.issparse() or member.size < 0:
        return "it is neither a plain file nor a folder"
    return ""


def _is_hidden(member: tarfile.TarInfo) -> bool:
    """Whether it is what macOS leaves in archives, or lies in a hidden folder."""
    return any(part.startswith(".") for part in PurePosixPath(member.name).parts)


def _write(tar: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> str:
    """Write a member; return what forbids it."""
    try:
        if member.isdir():
            path.mkdir(parents=True, exist_ok=True)
            return ""
        path.parent.mkdir(parents=True, exist_ok=True)
        source = tar.extractfile(member)
        assert source is not None  # it is a file
        with source, path.open("xb") as file:
            shutil.copyfileobj(source, file)
    except (FileExistsError, NotADirectoryError):
        return "its name, or that of a parent folder, is that of a file"
    return "" if path.stat().st_size == member.size else "it is cut short: download it again"


def parse_checksum(text: str) -> tuple[str, str]:
    """Return kind and digits of a checksum such as ``md5:9d24...``."""
    kind, _, digits = text.lower().partition(":")
    if not re.fullmatch(r"[0-9a-f]+", digits) or _DIGITS.get(kind) != len(digits):
        raise DatasetError(
            f"checksum must be 'md5:' or 'sha256:' and {' or '.join(map(str, _DIGITS.values()))} "
            f"hexadecimal digits, got {text!r}."
        )
    return kind, digits


def download(
    url: str, target: Path, checksum: str, *, max_bytes: int, progress: Progress | None = None
) -> None:
    """Fetch a file, unless it is there, and check it; ``<target>.part`` until it is whole."""
    if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
        raise DatasetError(f"An address begins with http:// or https://, got {url!r}.")
    kind, digits = parse_checksum(checksum)
    if target.is_file() and _digest(target, kind) == digits:  # of a run that came no further
        return
    part = target.with_name(f"{target.name}.part")
    # Damage on the way, or what an earlier run left of another version: once more from scratch.
    for _ in range(2):
        _Transfer(url, part, max_bytes, progress).run()
        found = _digest(part, kind)
        if found == digits:
            part.replace(target)
            return
        part.unlink()
    raise DatasetError(
        f"{url} came with the wrong {kind} twice: {found} where {digits} is expected. "
        "It is damaged, or not the file that was published: try later, or another base_url."
    )


@dataclass(frozen=True)
class _Transfer:
    """A download that goes on where a dropped connection stopped."""

    url: str
    part: Path  # what came so far
    max_bytes: int
    progress: Progress | None

    def run(self) -> None:
        """Fill the part file to its end, however often the connection drops."""
        # The most bytes there ever were: a server that lets us begin again and again brings
        # nothing new.
        failures, most = 0, _size(self.part)
        while True:
            try:
                if self._receive():
                    return
                reason = "the connection dropped"
            except urllib.error.HTTPError as error:
                with error:
                    reason = f"the server answered {error.code} {error.reason}"
                    # Nothing that waiting would help.
                    if 400 <= error.code < 500 and error.code not in (408, 416, 425, 429):
                        raise DatasetError(f"{self.url} cannot be downloaded: {reason}.") from error
                    if error.code == 416:  # there is more in the part file than on the server
                        self.part.unlink(missing_ok=True)
            except (OSError, http.client.HTTPException) as error:
                if isinstance(error, OSError) and error.errno in _DISK_ERRORS:
                    raise DatasetError(f"{self.part} cannot be written: {error}.") from error
                reason = str(getattr(error, "reason", error)) or type(error).__name__
            failures = 0 if _size(self.part) > most else failures + 1
            most = max(most, _size(self.part))
            if failures >= _MOST_FAILURES:
                raise DatasetError(
                    f"{self.url} cannot be downloaded: {reason}, {failures} times in a row. "
                    f"The part downloaded so far is kept in {self.part}: run the same again to "
                    "continue."
                )
            time.sleep(_PAUSE * 2 ** max(failures - 1, 0))

    def _receive(self) -> bool:
        """Receive until the connection ends; whether the file is whole."""
        start = _size(self.part)
        headers = {"User-Agent": "skte", "Accept-Encoding": "identity"}
        if start:
            headers["Range"] = f"bytes={start}-"
        request = urllib.request.Request(self.url, headers=headers)
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as response:
            start = start if response.status == 206 else 0  # without ranges, all of it comes
            length = response.headers.get("Content-Length", "")
            total = start + int(length) if length.isdecimal() else None
            free = shutil.disk_usage(self.part.parent).free
            if total is not None and total - start > free:
                raise DatasetError(
                    f"{self.url} needs {total - start} more bytes, and {self.part.parent} has "
                    f"{free} left: make room, or name another folder."
                )
            done = start
            with self.part.open("ab" if start else "wb") as file:
                while chunk := response.read(_CHUNK):
                    done += len(chunk)
                    if max(done, total or 0) > self.max_bytes:
                        raise DatasetError(
                            f"{self.url} has more than the {self.max_bytes} bytes allowed: the "
                            "download was stopped."
                        )
                    file.write(chunk)
                    if self.progress is not None:
                        self.progress(done, total)
        # Without a stated size, the end of the connection is all there is to go by.
        return total is None or done >= total


def _digest(path: Path, kind: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, kind).hexdigest()


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def fetch_msd(
    name: str,
    *,
    folder: str | os.PathLike[str] | None = None,
    base_url: str = _BASE_URL,
    checksum: str | None = None,
    progress: Progress | None = None,
) -> Path:
    """Download a task of the Medical Segmentation Decathlon, unless it is there.

    The archive's checksum is checked, a dropped connection is taken up where it ended (in
    later calls too), and the folder appears when it is complete.

    Parameters
    ----------
    name : str
        The task, ``"Task04_Hippocampus"`` for instance.
    folder : path-like, optional
        Where it goes; by default ``$SKTE_HOME/datasets``, or ``~/.cache/skte/datasets``.
    base_url : str, optional
        Address of a mirror, to which ``/<name>.tar`` is added.
    checksum : str, optional
        ``md5:...`` or ``sha256:...`` of the archive; the published one by default.
    progress : callable, optional
        Called with the bytes that are there and the bytes of all (None: not known).

    Returns
    -------
    Path
        The folder of the task, for `load_dataset`.

    Raises
    ------
    DatasetError
        If there is no such task, it cannot be downloaded, its checksum is wrong, or its archive
        holds what none should.

    References
    ----------
    .. [1] M. Antonelli et al., "The Medical Segmentation Decathlon", Nature
       Communications 13, 4128 (2022).

    Examples
    --------
    >>> from skte.datasets import fetch_msd, load_dataset
    >>> cases = load_dataset(fetch_msd("Task04_Hippocampus"))  # doctest: +SKIP
    """
    if name not in MSD_TASKS:
        raise DatasetError(f"There is no task {name!r}: choose one of {', '.join(MSD_TASKS)}.")
    checksum = MSD_TASKS[name] if checksum is None else checksum
    parse_checksum(checksum)  # before anything is made
    root = cache_home() / "datasets" if folder is None else Path(folder).expanduser()
    target = root / name
    if target.is_dir():
        return target
    archive = root / f"{name}.tar"
    try:
        root.mkdir(parents=True, exist_ok=True)
        with _only_one(root / f".{name}.lock"):
            if target.is_dir():  # another process was faster
                return target
            url = f"{base_url.rstrip('/')}/{name}.tar"
            download(url, archive, checksum, max_bytes=_MOST_BYTES, progress=progress)
            for left in root.glob(f".{name}-*"):  # by a killed process
                shutil.rmtree(left, ignore_errors=True)
            extract_folder(archive, name, target)
            archive.unlink()
    except OSError as error:
        raise DatasetError(f"{target} cannot be written: {error}.") from error
    return target


@contextmanager
def _only_one(path: Path) -> Iterator[None]:
    """Wait until no other process holds the lock; a killed one gives it up."""
    with path.open("ab") as file:
        while lock(file.fileno()) is False:
            time.sleep(_WAIT)
        yield
