"""Fetching one file over HTTP, going on where a dropped connection stopped."""

from __future__ import annotations

import errno
import hashlib
import http.client
import json
import re
import shutil
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from skte.exceptions import DatasetError

__all__ = ["Progress", "download", "parse_checksum"]

#: Called with the number of bytes that are there, and of all (None: not known).
Progress = Callable[[int, int | None], object]

_CHUNK = 2**18
_TIMEOUT = 60.0  # seconds without a byte
# Failures in a row, none of which brought a byte.
_MOST_FAILURES = 5
_PAUSE = 0.5  # seconds after the first failure; doubled after each further one
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EFBIG, errno.ENOENT)
_DIGITS = {"md5": 32, "sha256": 64}


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
    """Fetch a file, unless it is there, and check it.

    What was received lies in ``<target>.part`` until it is whole and its checksum right.

    Parameters
    ----------
    url : str
        Address, http or https.
    target : Path
        The file to be.
    checksum : str
        ``md5:...`` or ``sha256:...``.
    max_bytes : int
        Most bytes it may have.
    progress : callable, optional
        Told about bytes.

    Raises
    ------
    DatasetError
        If it cannot be had: the message says what happened and what to do.
    """
    if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
        raise DatasetError(f"An address begins with http:// or https://, got {url!r}.")
    kind, digits = parse_checksum(checksum)
    if target.is_file():  # of an earlier run that came no further
        if _digest(target, kind) == digits:
            return
        target.unlink()
    part = target.with_name(f"{target.name}.part")
    # Damage in what an earlier run left, or on the way, is worth one more try from scratch.
    for attempt in range(2):
        _receive(url, part, max_bytes, progress)
        found = _digest(part, kind)
        if found == digits:
            part.replace(target)
            _tag_file(part).unlink(missing_ok=True)
            return
        _discard(part)
        if attempt:
            raise DatasetError(
                f"{url} came with the wrong {kind} twice: {found} where {digits} is expected. "
                "It is damaged, or not the file that was published: try later, or another base_url."
            )


def _receive(url: str, part: Path, max_bytes: int, progress: Progress | None) -> None:
    """Fill the part file to its end, however often the connection drops."""
    # The most bytes there ever were: a server that lets us begin again and again brings
    # nothing new.
    failures, most = 0, _size(part)
    while True:
        try:
            if _receive_once(url, part, max_bytes, progress):
                return
            reason = "the connection dropped"
        except urllib.error.HTTPError as error:
            with error:
                reason = f"the server says {error.code} {error.reason}"
                # Nothing that waiting would help.
                if 400 <= error.code < 500 and error.code not in (408, 416, 425, 429):
                    raise DatasetError(f"{url} cannot be had: {reason}.") from error
                if error.code == 416:  # there is more in the part file than on the server
                    _discard(part)
        except (OSError, http.client.HTTPException) as error:
            if _is_local(error):
                raise DatasetError(f"{part} cannot be written: {error}.") from error
            reason = str(getattr(error, "reason", error)) or type(error).__name__
        failures = 0 if _size(part) > most else failures + 1
        most = max(most, _size(part))
        if failures >= _MOST_FAILURES:
            raise DatasetError(
                f"{url} cannot be had: {reason}, {failures} times in a row. What came so far is "
                f"kept in {part}: run it again to go on."
            )
        time.sleep(_PAUSE * 2 ** max(failures - 1, 0))


def _receive_once(url: str, part: Path, max_bytes: int, progress: Progress | None) -> bool:
    """Receive until the connection ends; tell whether the file is whole."""
    start, tag = _size(part), _read_tag(part)
    headers = {"User-Agent": "skte", "Accept-Encoding": "identity"}
    if start and tag:
        # If-Range: of a file that has changed, the server sends all of it.
        headers |= {"Range": f"bytes={start}-", "If-Range": tag}
    elif start:
        headers["Range"] = f"bytes={start}-"
    request = urllib.request.Request(url, headers=headers)
    with urllib.request.urlopen(request, timeout=_TIMEOUT) as response:
        start, total = _place(response, start)
        if (total or 0) > max_bytes:
            raise DatasetError(f"{url} has {total} bytes, more than the {max_bytes} allowed.")
        free = shutil.disk_usage(part.parent).free
        if total is not None and total - start > free:
            raise DatasetError(
                f"{url} needs {total - start} more bytes, and {part.parent} has {free} left: "
                "make room, or name another folder."
            )
        if not start:
            _discard(part)
            _write_tag(part, response)
        return _copy(response, part, start, total, max_bytes, progress)


def _place(response: Any, start: int) -> tuple[int, int | None]:
    """Tell where in the file the answer begins, and the size of the whole file."""
    length = response.headers.get("Content-Length", "")
    n_coming = int(length) if length.isdecimal() else None
    if response.status != 206:  # a server that knows no ranges sends all of it
        return 0, n_coming
    match = re.fullmatch(
        r"bytes (\d+)-(\d+)/(\d+|\*)", response.headers.get("Content-Range", "").strip()
    )
    if not match or int(match[1]) != start:
        raise http.client.HTTPException("the server sent another range than was asked for")
    return start, int(match[3]) if match[3] != "*" else None


def _copy(
    response: Any,
    part: Path,
    start: int,
    total: int | None,
    max_bytes: int,
    progress: Progress | None,
) -> bool:
    done = start
    with part.open("ab") as file:
        while chunk := response.read(_CHUNK):
            done += len(chunk)
            if done > max_bytes:
                raise DatasetError(f"The server sends more than {max_bytes} bytes: it is stopped.")
            file.write(chunk)
            if progress is not None:
                progress(done, total)
    # Without a stated size, the end of the connection is all there is to go by.
    return total is None or done >= total


def _is_local(error: BaseException) -> bool:
    """Tell a full disk or missing permission from a failing network."""
    return isinstance(error, OSError) and error.errno in _DISK_ERRORS


def _digest(path: Path, kind: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, kind).hexdigest()


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _tag_file(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _read_tag(part: Path) -> str | None:
    """Return the server's mark of the version that the part file is of."""
    try:
        tag = json.loads(_tag_file(part).read_text(encoding="utf-8")).get("etag")
    except (OSError, ValueError, AttributeError):
        return None
    # Text from a file goes into a header: one line only.
    return tag if isinstance(tag, str) and tag.isprintable() else None


def _write_tag(part: Path, response: Any) -> None:
    etag = response.headers.get("ETag")
    if etag and not etag.startswith("W/"):  # a weak one vouches for no byte
        _tag_file(part).write_text(json.dumps({"etag": etag}), encoding="utf-8")


def _discard(part: Path) -> None:
    for path in (part, _tag_file(part)):
        path.unlink(missing_ok=True)
