"""Reading a YAML or JSON file strictly: no key twice, nothing that holds itself."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from skte.exceptions import BankError

__all__ = ["holds_itself", "parse_file"]


# A file with more than this describes no models.
_MOST_BYTES, _MOST_VALUES = 2**26, 1_000_000


def parse_file(path: Path, what: str = "Manifest") -> Any:
    """Return the content of a ``.yaml``, ``.yml`` or ``.json`` file; `what` messages call it."""
    try:
        n_bytes = path.stat().st_size
        if path.suffix.lower() not in (".yaml", ".yml", ".json"):
            raise BankError(
                f"{what} {path} must be a .yaml, .yml or .json file"
                + ("; name the file in this folder." if path.is_dir() else ".")
            )
        if n_bytes > _MOST_BYTES:
            raise BankError(
                f"{what} {path} was refused: it has {n_bytes} bytes, far more than "
                "a description needs; check where it comes from."
            )
        text = path.read_text(encoding="utf-8-sig")  # editors may leave a byte order mark
    except FileNotFoundError as error:
        raise BankError(f"There is no {what.lower()} {path}.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise BankError(f"{what} {path} cannot be read: {error}.") from error
    if path.suffix.lower() == ".json":
        try:
            return json.loads(text, object_pairs_hook=_distinct)
        except (ValueError, RecursionError) as error:
            raise BankError(f"{what} {path} is not valid JSON: {error}.") from error
    return _parse_yaml(text, path, what)


def _parse_yaml(text: str, path: Path, what: str) -> Any:
    try:
        import yaml
    except ImportError as error:
        raise BankError(
            f"Reading {path} needs PyYAML: pip install skte[cli], or write it as JSON."
        ) from error
    try:
        content = yaml.load(text, Loader=_loader())  # a SafeLoader: tags run nothing
        n_values = 0 if holds_itself(content) else _n_values(content, {})
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise BankError(f"{what} {path} is not valid YAML: {error}.") from error
    if n_values > _MOST_VALUES:
        raise BankError(
            f"{what} {path} was refused: its aliases (*) stand for {n_values:.3g} values, more "
            "than memory may hold; write them out, or check where it comes from."
        )
    return content


def _n_values(value: Any, known: dict[int, int]) -> int:
    """Count values with every alias written out, without writing them out."""
    if not isinstance(value, (Mapping, list)):
        return 1
    if id(value) not in known:
        items = value.values() if isinstance(value, Mapping) else value
        known[id(value)] = 1 + sum(_n_values(item, known) for item in items)
    return known[id(value)]


def holds_itself(value: Any) -> bool:
    """Whether a container is found within itself, as an alias in YAML can have it."""
    return _is_cyclic(value, set(), set())


def _is_cyclic(value: Any, above: set[int], done: set[int]) -> bool:
    if not isinstance(value, (Mapping, list)) or id(value) in done:
        return False
    if id(value) in above:
        return True
    above.add(id(value))
    items = value.values() if isinstance(value, Mapping) else value
    found = any(_is_cyclic(item, above, done) for item in items)
    above.remove(id(value))
    done.add(id(value))
    return found


def _distinct(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    repeated = [key for i, key in enumerate(keys) if key in keys[:i]]
    if repeated:
        raise ValueError(f"the key {repeated[0]!r} stands twice in one object; keep one")
    return dict(pairs)


def _loader() -> Any:
    """Return a SafeLoader that refuses a key that stands twice: the last would win unseen."""
    import yaml

    class Loader(yaml.SafeLoader):
        def compose_mapping_node(self, anchor: Any) -> Any:
            node = super().compose_mapping_node(anchor)
            seen: set[tuple[str, str]] = set()
            for key, _ in node.value:
                if not isinstance(key, yaml.ScalarNode):
                    continue
                if (key.tag, key.value) in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key {key.value!r} stands twice; keep one", key.start_mark
                    )
                seen.add((key.tag, key.value))
            return node

    return Loader
