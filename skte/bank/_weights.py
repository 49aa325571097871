"""State dicts from files, loaded without running what a file says."""

from __future__ import annotations

import logging
import shutil
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from torch import nn

from skte._files import scratch_folder
from skte._memory import memory_problem
from skte._text import clean_text, did_you_mean
from skte.bank._checkpoint import (
    LeftOut,
    MalformedError,
    check_archive,
    check_shape,
    read_torch_file,
)
from skte.bank._stages import architecture_of
from skte.exceptions import BankError

_log = logging.getLogger("skte")
_AGAIN = "copy or download it again"
_MOST_SHOWN = 5
# Of data-parallel and averaged, compiled, and sharded networks.
_WRAPPERS = ("module.", "_orig_mod.", "_fsdp_wrapped_module.")
_MOST_PARTS = 50  # of a key, between its dots
_MOST_RENAMED, _LONGEST_PART, _LONGEST_KEY = 50, 300, 10_000
_HDF5 = "a file of HDF5 or Keras, which skte does not read"
#: Endings of weights that are not read, and what they are.
NOT_READ = {
    ".h5": _HDF5,
    ".hdf5": _HDF5,
    ".keras": _HDF5,
    ".onnx": "an ONNX graph, which has no modules to read features from",
    ".pt2": "an exported program, which holds its own network: use BankEntry.from_exported",
    ".npy": "an array of NumPy, which does not name the weights of layers",
    ".npz": "an archive of NumPy, which skte does not read",
    ".gguf": "a file of GGUF, which skte does not read",
    ".t7": "a file of Lua Torch, which skte does not read",
    ".tar.gz": "a packed folder, which skte does not unpack",
    ".safetensors.index.json": "the index of weights in several files, which skte does not join",
}


def load_weights(
    module: nn.Module,
    path: Path,
    *,
    state_key: str | None = None,
    prefix: str = "",
    rename: Mapping[str, str] | None = None,
    encoder_only: bool = False,
    trusted: bool = False,
) -> None:
    """Load a state dict from a file into a network, strictly; of an encoder alone if so told."""
    own = module.state_dict(keep_vars=True)
    state = pick_state_dict(read_checkpoint(path, trusted=trusted), path, state_key, prefix)
    state = _renamed(state, path, rename or {})
    known = architecture_of(module)
    roots = tuple(f"{name}." for name in known.encoder_roots(module) or _stated_encoder(module))
    left_out: list[str] = []
    state = _unwrapped(state, own, known_only=not (encoder_only and roots))
    if encoder_only and (roots or known.is_encoder):
        state, left_out = _encoder_part(state, own, roots or ("",))
    problems, missing, unexpected = _misfits(own, state, roots if encoder_only else ())
    if problems:
        n_matched = sum(key in own for key in state)
        remedy = _remedy(missing, unexpected)
        part = _encoder_part(state, own, roots)[0] if roots and not encoder_only else {}
        if part and not _misfits(own, part, roots)[0]:
            remedy = 'It holds the encoder: pass layers="encoder" to read that alone.'
        raise BankError(
            f"Weights {path} do not fit the model {type(module).__name__}: {n_matched} of its "
            f"{len(own)} keys are in the file. Keys {'; '.join(problems)}. {remedy}"
        )
    if left_out:
        _log.info("Weights %s: %s", path, _some(f"left out ({len(left_out)})", left_out))
    module.load_state_dict(state, strict=False)  # what is missing is shared, or not needed


def _misfits(
    own: Mapping[str, Any], state: Mapping[str, Any], needed: Sequence[str]
) -> tuple[list[str], list[str], list[str]]:
    """List what does not fit, then missing and unexpected keys; `needed` are their beginnings."""
    # Of weights that are shared, some files hold one copy only.
    given = {id(own[key]) for key in state if isinstance(own.get(key), torch.Tensor)}
    missing = [
        key
        for key, value in own.items()
        if key not in state and key.startswith(tuple(needed) or "") and id(value) not in given
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
    listed = [
        _some(f"missing in the file ({len(missing)})", missing),
        _some(f"unexpected in the file ({len(unexpected)})", unexpected),
        _some(f"of another shape ({len(reshaped)})", reshaped),
        _some(f"complex in the file, real in the model ({len(complex_ones)})", complex_ones),
    ]
    return [part for part in listed if part], missing, unexpected


def _stated_encoder(module: nn.Module) -> list[str]:
    """Name the encoder of a network of dynamic-network-architectures, which says it itself."""
    names = [getattr(module, key, None) for key in ("key_to_encoder", "key_to_stem")]
    known = dict(module.named_modules())
    return [name for name in names if isinstance(name, str) and name in known]


def rename_problem(rename: Any) -> str | None:
    """Say what is wrong with the parts of keys that are to be renamed; None if nothing is."""
    if not isinstance(rename, Mapping) or len(rename) > _MOST_RENAMED:
        return f"must map at most {_MOST_RENAMED} parts of keys to others, got {rename!r:.200}"
    for old, new in rename.items():
        if not isinstance(old, str) or not isinstance(new, str) or not old:
            return f"must map text to text, such as '^encoder.': 'swinViT.', got {old!r}: {new!r}"
        if max(len(old), len(new)) > _LONGEST_PART:
            return f"has a part with more than {_LONGEST_PART} characters"
    return None


def _renamed(
    state: dict[str, torch.Tensor], path: Path, rename: Mapping[str, str]
) -> dict[str, torch.Tensor]:
    """Replace parts of keys, one after the other; ``^`` stands for the beginning of a key."""
    names = {key: key for key in state}
    for old, new in rename.items():
        before = list(names.values())
        for key, name in names.items():
            if old.startswith("^"):
                names[key] = new + name[len(old) - 1 :] if name.startswith(old[1:]) else name
            elif len(name) + name.count(old) * (len(new) - len(old)) <= _LONGEST_KEY:
                names[key] = name.replace(old, new)
            else:
                raise BankError(f"Weights {path}: rename makes keys longer than {_LONGEST_KEY}.")
        if before == list(names.values()):
            raise BankError(
                f"Weights {path}: rename names {old!r}, which is in no key of the file; keys are "
                f"{_some('for example', before)}."
            )
    repeated = [name for name, n in Counter(names.values()).items() if n > 1]
    if repeated:
        raise BankError(f"Weights {path}: {_some('rename gives several keys one name', repeated)}.")
    return {names[key]: value for key, value in state.items()}


def _unwrapped(state: dict[str, Any], own: Mapping[str, Any], known_only: bool) -> dict[str, Any]:
    """Strip what wrappers left in keys, where it is clear which of the network's own are meant."""
    if "n_averaged" not in own and all(k.startswith("module.") or k == "n_averaged" for k in state):
        state = {key: value for key, value in state.items() if key != "n_averaged"}
    found = state
    while found and not any(key in own for key in found):
        wrapper = next((w for w in _WRAPPERS if all(key.startswith(w) for key in found)), None)
        if wrapper is None:
            found = state if known_only else found
            break
        found = {key.removeprefix(wrapper): value for key, value in found.items()}
    own_of = {_plain(key): key for key in own}
    names = {key: key if key in own else own_of.get(_plain(key), key) for key in found}
    unclear = len(own_of) < len(own) or len({*names.values()}) < len(names)
    return found if unclear else {names[key]: value for key, value in found.items()}


def _plain(key: str) -> str:
    """Return a key without the parts that wrappers add to it."""
    return ".".join(part for part in key.split(".") if f"{part}." not in _WRAPPERS)


def _encoder_part(
    state: dict[str, Any], own: Mapping[str, Any], roots: Sequence[str]
) -> tuple[dict[str, Any], list[str]]:
    """Return a state dict without what is not the encoder's and does not fit, and those keys."""
    missing = [key for key in own if key.startswith(tuple(roots)) and key not in state]
    prefix = next((start for key in missing for start, end in _cuts(key) if end in state), "")
    # A file of the encoder alone lacks the name that the encoder has in the network.
    if prefix and all(key.removeprefix(prefix) in state for key in missing):
        state = {
            prefix + key if prefix + key in own else key: value for key, value in state.items()
        }
    left_out = [
        key
        for key, value in state.items()
        if (key not in own or _shape(value) != _shape(own[key]))
        and (not key.startswith(tuple(roots)) or (roots == ("",) and key not in own))
    ]
    return {key: value for key, value in state.items() if key not in left_out}, left_out


def _cuts(key: str) -> Iterator[tuple[str, str]]:
    """Cut a key at each of its dots; not one of very many."""
    parts = key.split(".")
    for cut in range(1, len(parts) if len(parts) <= _MOST_PARTS else 1):
        yield ".".join(parts[:cut]) + ".", ".".join(parts[cut:])


def read_checkpoint(path: Path, *, trusted: bool = False, lazily: bool = False) -> Any:
    """Read a file of weights, perhaps in an archive, without executing anything in it."""
    if zip_place(path) is None:
        return _read_file(path, path, trusted, lazily)
    with scratch_folder("skte-unpacked-") as folder:
        return _read_file(unpack(path, folder), path, trusted, lazily)


def zip_place(path: Path) -> tuple[Path, str] | None:
    """Split a path that leads into a zip archive into that and the part's name."""
    archive = next((p for p in path.parents if p.suffix.lower() == ".zip" and p.is_file()), None)
    return None if archive is None else (archive, path.relative_to(archive).as_posix())


def unpack(path: Path, folder: Path) -> Path:
    """Unpack one part of a zip archive, of bounded size, into a folder, without its path."""
    archive, part = zip_place(path) or (path, "")
    shown = f"{archive}: its part {clean_text(part, 300)}"
    target = folder / PurePosixPath(part).name
    try:
        with zipfile.ZipFile(archive) as file:
            info = file.getinfo(part)
            problem = memory_problem(info.file_size, info.compress_size)
            if info.file_size > shutil.disk_usage(folder).free:
                problem = f"does not fit on the disk of {folder}; set TMPDIR to another"
            if not problem:
                with file.open(info) as source, target.open("wb") as copy:
                    shutil.copyfileobj(source, copy)
    except (KeyError, OSError, RuntimeError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise BankError(
            f"{shown} cannot be read ({clean_text(error, 200)}); copy or download the archive "
            "again."
        ) from error
    if problem:
        raise BankError(f"{shown} {problem}.")
    return target


def weight_file(path: Path) -> Path:
    """Return the file that weights are read from: their own, or the archive they lie in."""
    place = zip_place(path)
    return place[0] if place else path


def _read_file(file: Path, path: Path, trusted: bool, lazily: bool) -> Any:
    """Read a file that messages call `path`."""
    problem = _file_problem(file)
    if problem:
        raise BankError(f"Weights {path}: {problem}.")
    try:
        if file.suffix == ".safetensors":
            return read_safetensors(file, values=not lazily)
        if trusted:
            if zipfile.is_zipfile(file):
                with zipfile.ZipFile(file) as archive:
                    check_archive(archive, file.stat().st_size, whole=True)
            return torch.load(file, map_location="cpu", weights_only=False)
        found = read_torch_file(file, values=not lazily)
        if isinstance(found, LeftOut):
            raise MalformedError(_refusal([found.name], path, whole=True), "")
        return found
    except BankError:
        raise
    except Exception as error:  # what the file holds decides what is raised
        raise BankError(f"Weights {path}: {_corrupt(error)}.") from error


def _file_problem(path: Path) -> str | None:
    if not path.exists():
        return "there is no such file"
    if path.is_dir():
        return "this is a folder; name the file in it"
    if not path.is_file():
        return "this is not a regular file; copy its content into one"
    kind = next((NOT_READ[end] for end in NOT_READ if path.name.lower().endswith(end)), None)
    if kind is not None:
        return (
            f"this is {kind}; to use its weights alone, save the network's "
            "state_dict() with torch.save and name that file"
        )
    with path.open("rb") as file:
        start = file.read(64)
    if not start:
        return "the file is empty; copy or download it again"
    if start.startswith(b"version https://git-lfs"):
        return "this is a Git LFS pointer, not the file itself; run 'git lfs pull'"
    return None


def _refusal(refused: Sequence[str], path: Path, *, whole: bool) -> str:
    """Say what was left out where weights were asked for; `whole`: they are all of it."""
    remedy = (
        "Where you trust its origin, pass trusted=True for this entry, or load it yourself with "
        "torch.load(..., weights_only=False) and save network.state_dict() with torch.save"
    )
    if all(name.startswith("torch._utils._rebuild") for name in refused):
        what = "the file holds sparse, quantized, nested or meta tensors, which are not read"
    elif whole or any(name.startswith("torch.nn.modules.") for name in refused):
        what = "the file is a whole pickled network or other object, and reading it would run code"
        remedy = (
            "Where you trained it, save its weights alone: "
            f"network = torch.load({clean_text(path.name)!r}, weights_only=False); "
            f"torch.save(network.state_dict(), {clean_text(path.stem) + '_state.pt'!r}). Or, "
            "where you trust its origin, pass trusted=True for this entry"
        )
    else:
        what = "the file holds more than tensors, and reading the rest would run code"
    return f"{what} ({_some('needs', sorted(refused))}). It was refused. {remedy}"


def _corrupt(error: Exception) -> str:
    if isinstance(error, MalformedError):
        return str(error)
    reason = clean_text(error, 200)
    return (
        "the file is truncated, corrupted, or not a file of torch.save "
        f"({type(error).__name__}: {reason}); copy or download it again"
    )


def _shape(tensor: Any) -> tuple[int, ...] | None:
    # Lazy parameters have no shape yet, and extra state is not a tensor at all.
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
        found.update(start for start, end in _cuts(key) if end in wanted)
    prefix, count = found.most_common(1)[0] if found else ("", 0)
    return prefix if 2 * count > len(wanted) else ""


def _some(title: str, items: Sequence[str]) -> str:
    if not items:
        return ""
    more = ", ..." if len(items) > _MOST_SHOWN else ""
    shown = (clean_text(item, 200) for item in items[:_MOST_SHOWN])
    return f"{title}: {', '.join(shown)}{more}"


def pick_state_dict(
    checkpoint: Any, path: Path, state_key: str | None, prefix: str
) -> dict[str, torch.Tensor]:
    """Take the state dict out of a checkpoint and strip a prefix from its keys."""
    found = _follow(checkpoint, path, state_key) if state_key else checkpoint
    if isinstance(found, nn.Module):  # of a file that is trusted
        found = found.state_dict()
    if not _is_state_dict(found):
        names = {value.name for value in _below(found) if isinstance(value, LeftOut)}
        if names and not any(_state_dicts(found)):
            refusal = _refusal(sorted(names), path, whole=isinstance(found, LeftOut))
            raise BankError(f"Weights {path}: {refusal}.")
        place = f" under state_key={state_key!r}" if state_key else ""
        raise BankError(
            f"Weights {path}: no state dict{place}, but {_spoken(found)}. {_advice(checkpoint)}"
        )
    if not prefix:
        return dict(found)
    state = {
        key.removeprefix(prefix): value for key, value in found.items() if key.startswith(prefix)
    }
    if not state:
        starts = sorted({clean_text(key.partition(".")[0], 100) + "." for key in found})
        raise BankError(
            f"Weights {path}: no key starts with prefix={prefix!r}; keys start with "
            f"{', '.join(map(repr, starts[:8]))}."
        )
    return state


def state_dict_places(checkpoint: Any) -> list[str]:
    """Name the places of state dicts within a checkpoint; none if it is one itself."""
    return [] if _is_state_dict(checkpoint) else list(islice(_state_dicts(checkpoint), _MOST_SHOWN))


def _follow(checkpoint: Any, path: Path, state_key: str) -> Any:
    """Follow a dotted path; keys that hold dots themselves are found as well."""
    value, rest = checkpoint, state_key
    while rest:
        known = value if isinstance(value, Mapping) else {}
        parts = rest.split(".")
        heads = (".".join(parts[:n]) for n in range(len(parts), 0, -1))
        head = next((head for head in heads if head in known), None)
        if head is None:
            keys = [str(key) for key in known]
            hint = did_you_mean(rest.partition(".")[0], keys, listed=False)
            raise BankError(
                f"Weights {path}: there is nothing at state_key={state_key!r}"
                f"{f'; {hint}' if hint else '.'} {_advice(checkpoint)}"
            )
        value, rest = value[head], rest[len(head) + 1 :]
    return value


def _is_state_dict(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and any(isinstance(item, torch.Tensor) for item in value.values())
        and all(
            isinstance(key, str) and (isinstance(item, torch.Tensor) or _is_extra_state(key, item))
            for key, item in value.items()
        )
    )


def _is_extra_state(key: str, item: Any) -> bool:
    return key.endswith("_extra_state") and not any(isinstance(v, LeftOut) for v in _below(item))


def _below(value: Any, depth: int = 3) -> Iterator[Any]:
    """Yield what a value holds, itself included."""
    yield value
    if isinstance(value, (Mapping, list, tuple)) and depth:
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _below(item, depth - 1)


def _state_dicts(value: Any, place: str = "", depth: int = 3) -> Iterator[str]:
    if place and _is_state_dict(value):
        yield place
    elif isinstance(value, Mapping) and depth:
        for key, item in value.items():
            name = clean_text(key, 100)
            yield from _state_dicts(item, f"{place}.{name}" if place else name, depth - 1)


def _advice(checkpoint: Any) -> str:
    places = list(islice(_state_dicts(checkpoint), _MOST_SHOWN))
    if places:
        return f"Pass state_key={' or '.join(map(repr, places))}."
    return "Save network.state_dict() with torch.save and name that file."


def _spoken(value: Any) -> str:
    if isinstance(value, Mapping):
        keys = [clean_text(key, 100) for key in islice(value, 8)]
        more = ", ..." if len(value) > 8 else ""
        return f"a dict with keys {', '.join(keys)}{more}" if keys else "an empty dict"
    return f"a {type(value).__name__}"


def read_safetensors(path: Path, *, values: bool = True) -> dict[str, torch.Tensor]:
    """Read all tensors of a ``.safetensors`` file; of shapes alone the types are not known."""
    try:
        import safetensors.torch
    except ImportError as error:
        raise BankError(
            f"Reading {path} needs the package safetensors: pip install skte[safetensors]."
        ) from error
    size = path.stat().st_size
    problem = memory_problem(size, size) if values else None
    if problem:
        raise MalformedError(f"the file {problem}", "")
    try:
        with safetensors.safe_open(path, "pt") as file:
            shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
        for shape in shapes.values():
            check_shape(shape, 1)
        if not values:
            return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
        # Not mapped into memory: a file that is cut off while it is used would end the process.
        state: dict[str, torch.Tensor] = safetensors.torch.load(path.read_bytes())
    except (safetensors.SafetensorError, KeyError, ValueError) as error:
        raise MalformedError(
            f"it is truncated, corrupted or not a safetensors file ({clean_text(error, 200)})",
            _AGAIN,
        ) from error
    for tensor in state.values():
        if tensor.dtype == torch.bool:
            tensor.view(torch.uint8).clamp_(max=1)  # code that indexes by truth relies on 0 and 1
    return state
