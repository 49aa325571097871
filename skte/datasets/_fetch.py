"""Downloads of public datasets."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from skte.datasets._archive import extract_folder
from skte.datasets._download import Progress, download, parse_checksum
from skte.datasets._home import cache_home
from skte.exceptions import DatasetError

try:
    import fcntl
except ImportError:  # Windows: two processes at once may both download
    fcntl = None  # type: ignore[assignment]

__all__ = ["MSD_TASKS", "fetch_msd"]

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


def fetch_msd(
    name: str,
    *,
    folder: str | os.PathLike[str] | None = None,
    base_url: str = _BASE_URL,
    checksum: str | None = None,
    progress: Progress | None = None,
) -> Path:
    """Download a task of the Medical Segmentation Decathlon, unless it is there.

    The archive's checksum is checked, a dropped connection is taken up where it ended
    (in this call and in later ones), and the folder appears when it is complete. Of
    several processes one downloads and the others wait.

    Parameters
    ----------
    name : str
        The task, ``"Task04_Hippocampus"`` for instance.
    folder : path-like, optional
        Where it goes; by default ``$SKTE_HOME/datasets``, or the same in the platform's
        place for caches (``~/.cache/skte/datasets`` on Linux).
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
        If there is no such task, it cannot be had, its checksum is wrong, or its archive
        holds what none should (paths that lead out, links, more than it may).

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
        raise DatasetError(f"There is no task {name!r}: choose among {', '.join(MSD_TASKS)}.")
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
        while fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(_WAIT)
            except OSError:  # a network folder without locks
                break
        yield
