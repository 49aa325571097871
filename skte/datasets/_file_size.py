"""Headers that promise more than their file can hold."""

from __future__ import annotations

from pathlib import Path

__all__ = ["check_size"]

# No byte of a deflate stream can become more than 1032. Of other compressions (bzip2 in
# NRRD) constant volumes become smaller still.
_DEFLATE, _ANY = 1032, 50_000
# Formats whose values lie in a file beside the one that is named.
_DETACHED = (".mhd", ".nhdr", ".hdr", ".img")


def check_size(path: Path, n_bytes: int) -> None:
    """Refuse a header that promises more values than its file can hold.

    Memory is asked for by the header: one of a few hundred bytes could ask for
    terabytes.

    Parameters
    ----------
    path : Path
        An image file that exists.
    n_bytes : int
        What the header promises, at least.

    Raises
    ------
    ValueError
        If the file is too small for that, however it is compressed.
    """
    name = path.name.lower()
    if name.endswith(".nii"):
        most = path.stat().st_size
    elif name.endswith((".nii.gz", ".mgz")):
        most = path.stat().st_size * _DEFLATE
    elif name.endswith(_DETACHED):
        beside = [file for file in path.parent.iterdir() if file.name.startswith(path.stem)]
        most = _ANY * sum(file.stat().st_size for file in beside if file.is_file())
    else:
        most = path.stat().st_size * _ANY
    if n_bytes > most:
        raise ValueError(
            f"its header promises {n_bytes:.3g} bytes of values, more than the file can hold"
        )
