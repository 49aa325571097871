"""State dicts from files, loaded without running what a file says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from skte._text import clean_text
from skte.bank._checkpoint import Archive, MalformedError, RefusedGlobalsError, read_torch_file
from skte.bank._containers import pick_state_dict
from skte.bank._safetensors import read_safetensors
from skte.exceptions import BankError

__all__ = ["load_weights", "read_checkpoint"]

_MOST_SHOWN = 5
_SUFFIXES = {
    ".onnx": "an ONNX graph, which has no modules to read features from",
    ".pt2": "an exported program, which holds its own network: use BankEntry.from_exported",
    ".npy": "an array of NumPy, which does not name the weights of layers",
    ".npz": "an archive of NumPy, which skte does not read",
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
        Read no values: tensors are on the meta device, with their shapes and types.

    Returns
    -------
    object
        What was saved: tensors, numbers, text and containers of them, on the CPU.

    Raises
    ------
    BankError
        If the file is missing, truncated, of another format, or holds anything else.
    """
    problem = _file_problem(path)
    if problem:
        raise BankError(f"Weights {path}: {problem}.")
    try:
        if path.suffix == ".safetensors":
            return read_safetensors(path, values=not lazily)
        archive = _archive(path, whole=not lazily)
        if trusted:
            return torch.load(path, map_location="cpu", weights_only=False)
        return read_torch_file(path, archive, values=not lazily)
    except RefusedGlobalsError as error:
        raise BankError(f"Weights {path}: {_refusal(error.names)}.") from None
    except Exception as error:  # what the file holds decides what is raised
        raise BankError(f"Weights {path}: {_corrupt(error)}.") from error


def _file_problem(path: Path) -> str | None:
    if not path.exists():
        return "there is no such file"
    if path.is_dir():
        return "this is a folder; name the file in it"
    if not path.is_file():
        return "this is no regular file; copy what it gives into one"
    if path.suffix in _SUFFIXES:
        return (
            f"this is {_SUFFIXES[path.suffix]}; to use its weights alone, save the network's "
            "state_dict() with torch.save and name that file"
        )
    with path.open("rb") as file:
        start = file.read(64)
    if not start:
        return "the file is empty; copy or download it again"
    if start.startswith(b"version https://git-lfs"):
        return "this is a Git LFS pointer, not the file itself; run 'git lfs pull'"
    return None


def _archive(path: Path, whole: bool) -> Archive | None:
    """Look at the parts of a file; None where it is not an archive."""
    with path.open("rb") as file:
        if file.read(2) != b"PK":
            return None
    archive = Archive(path)
    inner = {name.partition("/")[2] for name in archive.parts}
    if "constants.pkl" in inner or any(name.startswith("code/") for name in inner):
        raise MalformedError(
            "this is TorchScript, whose layers cannot be hooked, so no features can be read; "
            "save the state_dict() of the original nn.Module with torch.save",
            "",
        )
    archive.check()
    damaged = archive.damaged(path) if whole else []
    # torch.load does not look at checksums, and torch.save may be told to write none.
    if 0 < len(damaged) < len(archive.parts):
        raise MalformedError(
            f"{_some('the checksum does not fit in', damaged)}: the file was changed or "
            "damaged after it was written",
            "copy or download it again",
        )
    return archive


def _refusal(refused: Sequence[str]) -> str:
    if any(name.startswith("torch.nn.modules.") for name in refused):
        what = "the file holds a whole pickled network, and unpickling one runs its code"
    elif all(
        name.startswith(
            ("torch._utils._rebuild", "torch.per_", "torch.Q", "torch.serialization._get_layout")
        )
        for name in refused
    ):
        what = "the file holds sparse, quantized, nested or meta tensors, which are not read"
    else:
        what = "the file holds more than tensors, and reading the rest would run code"
    return (
        f"{what} ({_some('needs', sorted(refused))}). It was refused. Where you trust its "
        "origin, pass trusted=True for this entry, or load it yourself with "
        "torch.load(..., weights_only=False) and save network.state_dict() with torch.save"
    )


def _corrupt(error: Exception) -> str:
    if isinstance(error, MalformedError):
        return str(error)
    reason = clean_text(error, 200)
    return (
        "the file is truncated, corrupted, or not a file of torch.save "
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
