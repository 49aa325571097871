"""Reading a YAML or JSON file strictly: no key twice, no aliases, all bounded."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from skte._files import outside_problem
from skte._text import clean_text
from skte.exceptions import BankError

# A file with more than this describes no models. PyYAML takes 10 microseconds per byte.
_MOST_BYTES = {".json": 2**22, ".yaml": 2**18, ".yml": 2**18}
_DEEPEST = 100
_LONGEST_NUMBER = 1000  # characters; long ones take time that grows with the square


def parse_file(path: Path, what: str = "Manifest") -> Any:
    """Return the content of a ``.yaml``, ``.yml`` or ``.json`` file; `what` messages call it."""
    suffix = path.suffix.lower()
    text = _read(path, suffix, what)
    name = "JSON" if suffix == ".json" else "YAML"
    try:
        content = parse_json(text) if suffix == ".json" else _parse_yaml(text, path)
        _check_depth(content)
    except BankError:
        raise
    except RecursionError:
        raise BankError(f"{what} {path} is not valid {name}: it is nested too deep.") from None
    except Exception as error:  # PyYAML lets errors of many kinds through
        raise BankError(f"{what} {path} is not valid {name}: {clean_text(error, 500)}.") from error
    return content


def check_inside(
    folder: Path,
    names: Iterable[str | os.PathLike[str]],
    extra_roots: Sequence[str | os.PathLike[str]] = (),
) -> None:
    """Raise a `BankError` where a file of a folder is a link that leads out of it."""
    for name in names:
        problem = outside_problem(folder / name, [folder, *extra_roots])
        if problem:
            raise BankError(f"{os.path.relpath(folder / name, folder)} {problem}")


def _read(path: Path, suffix: str, what: str) -> str:
    try:
        n_bytes = path.stat().st_size
        if suffix not in _MOST_BYTES:
            raise BankError(
                f"{what} {path} must be a .yaml, .yml or .json file"
                + ("; name the file in this folder." if path.is_dir() else ".")
            )
        if not path.is_file():
            raise BankError(f"{what} {path} is not a regular file; name a file.")
        if n_bytes > _MOST_BYTES[suffix]:
            raise BankError(
                f"{what} {path} was refused: it has {n_bytes} bytes, far more than a "
                f"description needs ({_MOST_BYTES[suffix]}{_advice(suffix)}); check where it comes "
                "from."
            )
        with path.open(encoding="utf-8-sig") as file:  # editors may leave a byte order mark
            return file.read(_MOST_BYTES[suffix])
    except FileNotFoundError as error:
        raise BankError(f"There is no {what.lower()} {path}.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise BankError(f"{what} {path} cannot be read: {error}.") from error


def _advice(suffix: str) -> str:
    return "" if suffix == ".json" else f", {_MOST_BYTES['.json']} as JSON"


def parse_json(text: str | bytes) -> Any:
    """Parse JSON in which no key occurs twice."""
    return json.loads(text, object_pairs_hook=_distinct)


def _parse_yaml(text: str, path: Path) -> Any:
    try:
        import yaml
    except ImportError as error:
        raise BankError(
            f"Reading {path} needs PyYAML: pip install skte[cli], or write it as JSON."
        ) from error
    return yaml.load(text, Loader=_loader())  # a SafeLoader: tags run nothing


def _check_depth(value: Any, left: int = _DEEPEST) -> None:
    if left < 0:
        raise ValueError(f"it is nested deeper than {_DEEPEST} levels")
    inner = value.values() if isinstance(value, Mapping) else value
    for item in inner if isinstance(value, (Mapping, list)) else ():
        _check_depth(item, left - 1)


def _distinct(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        repeated = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise ValueError(
            f"the key {clean_text(repr(repeated), 100)} occurs twice in one object; keep one"
        )
    return found


def _loader() -> Any:
    """Return a SafeLoader that refuses a repeated key: the last would win silently."""
    import yaml

    class Loader(yaml.SafeLoader):
        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):  # a few of them can stand for gigabytes
                why = "aliases (*) are not read; write the value out, or use 'defaults'"
                events: Any = self  # the stubs know no types of its parser
                mark = events.peek_event().start_mark
                raise yaml.constructor.ConstructorError(None, None, why, mark)
            return super().compose_node(parent, index)

        def compose_mapping_node(self, anchor: Any) -> Any:
            node = super().compose_mapping_node(anchor)
            seen: set[tuple[str, str]] = set()
            for key, _ in node.value:
                if not isinstance(key, yaml.ScalarNode):
                    continue
                if (key.tag, key.value) in seen:
                    shown = clean_text(repr(key.value), 100)
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key {shown} occurs twice; keep one", key.start_mark
                    )
                seen.add((key.tag, key.value))
            return node

        def construct_number(self, node: Any) -> Any:
            if len(node.value) > _LONGEST_NUMBER:
                raise ValueError(f"a number of {len(node.value)} characters")
            kind = node.tag.rpartition(":")[2]
            return getattr(self, f"construct_yaml_{kind}")(node)

    for kind in ("int", "float"):
        Loader.add_constructor(f"tag:yaml.org,2002:{kind}", Loader.construct_number)
    return Loader
