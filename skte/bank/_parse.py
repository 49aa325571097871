"""Reading a YAML or JSON file strictly: no key twice, nothing that holds itself."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from skte.exceptions import BankError

__all__ = ["holds_itself", "parse_file"]


def parse_file(path: Path) -> Any:
    """Return the content of a ``.yaml``, ``.yml`` or ``.json`` file."""
    if path.suffix.lower() not in (".yaml", ".yml", ".json"):
        raise BankError(
            f"Manifest {path} must be a .yaml, .yml or .json file"
            + ("; name the file in this folder." if path.is_dir() else ".")
        )
    try:
        text = path.read_text(encoding="utf-8-sig")  # editors may leave a byte order mark
    except FileNotFoundError as error:
        raise BankError(f"There is no manifest {path}.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise BankError(f"Manifest {path} cannot be read: {error}.") from error
    if path.suffix.lower() == ".json":
        try:
            return json.loads(text, object_pairs_hook=_distinct)
        except (ValueError, RecursionError) as error:
            raise BankError(f"Manifest {path} is not valid JSON: {error}.") from error
    return _parse_yaml(text, path)


def _parse_yaml(text: str, path: Path) -> Any:
    try:
        import yaml
    except ImportError as error:
        raise BankError(
            f"Reading {path} needs PyYAML: pip install skte[cli], or write the manifest as JSON."
        ) from error
    try:
        return yaml.load(text, Loader=_loader())  # a SafeLoader: tags run nothing
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise BankError(f"Manifest {path} is not valid YAML: {error}.") from error


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
