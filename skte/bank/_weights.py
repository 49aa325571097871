"""State dicts from files, loaded without running what a file says."""

from __future__ import annotations

import pickle
import re
import zipfile
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from skte.bank._containers import pick_state_dict
from skte.bank._safetensors import read_safetensors
from skte.exceptions import BankError

__all__ = ["load_weights", "read_checkpoint"]

_MOST_SHOWN = 5
_DOS_FOLDER = 0x10
_SUFFIXES = {
    ".onnx": "an ONNX graph, which has no modules to read features from",
    ".pt2": "an exported program, which holds its own network: use BankEntry.from_exported",
}


def load_weights(
    module: nn.Module,
    path: Path,
    *,
    state_key: str | None = None,
    prefix: str = "",
    needed: Sequence[str] = (),
    trusted: bool = False,
) -> None:
    """Load a state dict from a file into a network, strictly.

    Parameters
    ----------
    module : nn.Module
        Gets the weights, in place.
    path : Path
        A file written by ``torch.save``, or a ``.safetensors`` file.
    state_key : str, optional
        Dotted path of the state dict within the file.
    prefix : str, default=""
        Stripped from the keys; keys without it are left out.
    needed : sequence of str, default=()
        Modules that the file must hold; weights elsewhere may be missing. Default: all.
    trusted : bool, default=False
        As for `read_checkpoint`.

    Raises
    ------
    BankError
        If the file cannot be read or its keys, shapes or types do not fit.
    """
    state = pick_state_dict(read_checkpoint(path, trusted=trusted), path, state_key, prefix)
    own = module.state_dict(keep_vars=True)
    roots = tuple(f"{name}." for name in needed) or ("",)
    # Of weights that are shared, some files hold one copy only.
    given = {id(own[key]) for key in state if isinstance(own.get(key), torch.Tensor)}
    missing = [
        key
        for key, value in own.items()
        if key not in state and key.startswith(roots) and id(value) not in given
    ]
    unexpected = [key for key in state if key not in own]
    shapes = {key: (_shape(state.get(key)), _shape(own[key])) for key in own}
    reshaped = [
        f"{key} is {there} in the file, {here} in the model"
        for key, (there, here) in shapes.items()
        if None not in (there, here) and there != here
    ]
    # load_state_dict would drop the imaginary part with no more than a warning.
    complex_ones = [key for key in own if _is_complex(state.get(key)) and not _is_complex(own[key])]
    if missing or unexpected or reshaped or complex_ones:
        listed = [
            _some(f"missing in the file ({len(missing)})", missing),
            _some(f"unexpected in the file ({len(unexpected)})", unexpected),
            _some(f"of another shape ({len(reshaped)})", reshaped),
            _some(f"complex in the file, real in the model ({len(complex_ones)})", complex_ones),
        ]
        raise BankError(
            f"Weights {path} do not fit the model {type(module).__name__}. Keys "
            + "; ".join(part for part in listed if part)
            + f". {_remedy(missing, unexpected)}"
        )
    module.load_state_dict(state, strict=False)  # what is missing is shared, or not needed


def read_checkpoint(path: Path, *, trusted: bool = False, lazily: bool = False) -> Any:
    """Read a file written by ``torch.save`` without executing anything in it.

    Parameters
    ----------
    path : Path
        The file; with the suffix ``.safetensors`` one of that format.
    trusted : bool, default=False
        Read with ``weights_only=False``, which runs code if the file holds any.
    lazily : bool, default=False
        Leave values on the disk until they are used, where the format allows.

    Returns
    -------
    object
        What was saved: tensors, numbers, text and containers of them, on the CPU.

    Raises
    ------
    BankError
        If the file is missing, truncated, of another format, or holds anything else.
    """
    problem = _file_problem(path, whole=not lazily)
    if problem:
        raise BankError(f"Weights {path}: {problem}.")
    if path.suffix == ".safetensors":
        return read_safetensors(path)
    try:
        with torch.serialization.safe_globals(_numpy_scalars()):
            return torch.load(
                path,
                map_location="cpu",
                weights_only=not trusted,
                mmap=lazily and zipfile.is_zipfile(path),
            )
    except pickle.UnpicklingError as error:
        refused = _refused_globals(path, error)
        problem = _refusal(refused) if refused else _corrupt(error)
        raise BankError(f"Weights {path}: {problem}.") from error
    except Exception as error:
        raise BankError(f"Weights {path}: {_corrupt(error)}.") from error


def _file_problem(path: Path, whole: bool) -> str | None:
    if not path.exists():
        return "there is no such file"
    if path.is_dir():
        return "this is a folder; name the file in it"
    if not path.is_file():
        return "this is no regular file; copy what it gives into one"
    if path.suffix in _SUFFIXES:
        return (
            f"this is {_SUFFIXES[path.suffix]}; or save the network's state_dict() with "
            "torch.save and name that file"
        )
    with path.open("rb") as file:
        start = file.read(64)
    if not start:
        return "the file is empty; copy or download it again"
    if start.startswith(b"version https://git-lfs"):
        return "this is a Git LFS pointer, not the file itself; run 'git lfs pull'"
    if start.startswith(b"PK"):
        return _archive_problem(path, whole)
    return None


def _archive_problem(path: Path, whole: bool) -> str | None:
    try:
        with zipfile.ZipFile(path) as archive:
            parts = archive.infolist()
            damaged = _damaged(archive) if whole else []
    except Exception:  # the module raises errors of many kinds for damaged files
        return "the file is truncated or corrupted; copy or download it again"
    inner = {part.filename.partition("/")[2] for part in parts}
    if "constants.pkl" in inner or any(name.startswith("code/") for name in inner):
        return (
            "this is TorchScript, whose layers cannot be hooked, so no features can be read; "
            "save the state_dict() of the original nn.Module with torch.save"
        )
    unpacked = sum(part.file_size for part in parts)
    if unpacked > 2 * path.stat().st_size + 2**20:  # torch.save does not compress
        return (
            f"the archive unpacks to {unpacked} bytes, far more than its size; torch.save "
            "writes no such file, so it is refused"
        )
    # torch.load does not look at checksums, and torch.save may be told to write none.
    if 0 < len(damaged) < len(parts):
        return (
            f"{_some('the checksum does not fit in', damaged)}: the file was changed or "
            "damaged after it was written; copy or download it again"
        )
    return None


def _damaged(archive: zipfile.ZipFile) -> list[str]:
    """Names of parts that are not what was written, by their checksums."""
    found = []
    for part in archive.infolist():
        try:
            with archive.open(part) as file:
                while file.read(2**20):
                    pass
            # torch.load takes it for a folder then, and returns memory that nothing filled.
            if part.external_attr & _DOS_FOLDER and part.file_size:
                found.append(part.filename)
        except Exception:
            found.append(part.filename)
    return found


def _numpy_scalars() -> list[Any]:
    """Numbers that training code leaves in checkpoints, under old and new names."""
    scalar = np.float64(0).__reduce__()[0]
    kinds = (np.bool_, np.int32, np.int64, np.uint8, np.float16, np.float32, np.float64)
    return [
        np.dtype,
        *{type(np.dtype(kind)) for kind in kinds},
        (scalar, "numpy.core.multiarray.scalar"),
        (scalar, "numpy._core.multiarray.scalar"),
    ]


def _refused_globals(path: Path, error: Exception) -> list[str]:
    try:
        with torch.serialization.safe_globals(_numpy_scalars()):
            return list(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except Exception:  # the old format, or a pickle too broken to look into
        return re.findall(r"GLOBAL ([\w.]+)", str(error))[:1]


def _refusal(refused: Sequence[str]) -> str:
    if any(name.startswith("torch.nn.modules.") for name in refused):
        what = "the file holds a whole pickled network, and unpickling one runs its code"
    else:
        what = "the file holds more than tensors, and reading the rest would run code"
    return (
        f"{what} ({_some('needs', sorted(refused))}). It was refused. Where you trust its "
        "origin, pass trusted=True for this entry, or load it yourself with "
        "torch.load(..., weights_only=False) and save network.state_dict() with torch.save"
    )


def _corrupt(error: Exception) -> str:
    lines = str(error).splitlines() or [""]
    reason = next((line for line in lines if line.startswith("Unsupported")), lines[0])[:200]
    return (
        "the file is truncated, corrupted, or no file of torch.save "
        f"({type(error).__name__}: {reason}); copy or download it again"
    )


def _shape(tensor: Any) -> tuple[int, ...] | None:
    # Lazy parameters have no shape yet, and extra state is no tensor at all.
    if not isinstance(tensor, torch.Tensor) or torch.nn.parameter.is_lazy(tensor):
        return None
    return tuple(tensor.shape)


def _is_complex(tensor: Any) -> bool:
    return isinstance(tensor, torch.Tensor) and tensor.is_complex()


def _remedy(missing: Sequence[str], unexpected: Sequence[str]) -> str:
    prefix = _common_prefix(missing, unexpected)
    if prefix:
        return f"All keys of the file start alike: pass prefix={prefix!r}."
    return "Check the factory's arguments (channels, classes, widths), or the file."


def _common_prefix(missing: Iterable[str], unexpected: Iterable[str]) -> str:
    """Find what to strip from the file's keys so that most of the missing ones appear."""
    wanted = set(missing)
    found: Counter[str] = Counter()
    for key in unexpected:
        parts = key.split(".")
        for cut in range(1, len(parts)):
            if ".".join(parts[cut:]) in wanted:
                found[".".join(parts[:cut]) + "."] += 1
    prefix, count = found.most_common(1)[0] if found else ("", 0)
    return prefix if 2 * count > len(wanted) else ""


def _some(title: str, items: Sequence[str]) -> str:
    if not items:
        return ""
    more = ", ..." if len(items) > _MOST_SHOWN else ""
    return f"{title}: {', '.join(items[:_MOST_SHOWN])}{more}"
