"""What is kept of a run: values, digests of arrays, cache keys and words, each by its path."""

from __future__ import annotations

import dataclasses
import hashlib
import html
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["KINDS", "Record"]

#: The kinds of findings. Names are values; a copy edit changes words alone.
KINDS = ("values", "digests", "keys", "words")

_SECONDS = re.compile(r"\b\d+(?:\.\d+)?(?:e-?\d+)?( s\b| ms\b| min\b| seconds?\b)")
_VERSION = re.compile(r"\b\d+\.\d+\.\d+(?:[.+]\w+)*\b")
_DATE = re.compile(r"\b\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d)?(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)?)?")
_HEX = re.compile(r"\b[0-9a-f]{40,64}\b")
_MINUS = "\N{MINUS SIGN}"
_NUMBER = re.compile(rf"(?<![\w.])[-+{_MINUS}]?\d+(?:\.\d+)?(?:e[-+]?\d+)?(?![\w])")
_HIDDEN = re.compile(r"<(script|style|svg)\b.*?</\1>", re.DOTALL | re.IGNORECASE)
_BREAK = re.compile(r"</(?:p|tr|h\d|li|table|section|figure|details|summary)>", re.IGNORECASE)
_LARGEST_LISTED = 64


class Record:
    """Findings by kind and path.

    Parameters
    ----------
    folder, data : Path
        Their names are left out of words.
    """

    def __init__(self, folder: Path, data: Path) -> None:
        self.found: dict[str, dict[str, Any]] = {kind: {} for kind in KINDS}
        self._places = {str(folder): "<folder>", str(data): "<data>"}

    def value(self, path: str, value: Any) -> None:
        """Keep all public content of a value, but for seconds."""
        for place, leaf in _leaves(path, value):
            if isinstance(leaf, np.ndarray):
                self._put("digests", place, _describe(leaf))
            elif isinstance(leaf, str) and " " in leaf:
                self._put("words", place, self._clean(leaf))
            else:
                self._put("values", place, leaf)

    def text(self, path: str, text: str) -> None:
        """Keep words and numbers of a text apart, so that either may change alone."""
        lines, numbers = [], []
        for line in self._clean(text).splitlines():
            words = " ".join(re.sub(r"-{2,}|─+", "-", line).split())
            numbers += [float(found.replace(_MINUS, "-")) for found in _NUMBER.findall(words)]
            lines.append(_NUMBER.sub("#", words))
        self._put("words", path, [line for line in lines if line])
        self._put("values", path, numbers)

    def page(self, path: str, page: str) -> None:
        """Keep the visible text of a page, and how many pictures it shows."""
        pictures = len(re.findall(r"<img\b|<svg\b", page, re.IGNORECASE))
        visible = _BREAK.sub("\n", _HIDDEN.sub("", page))
        self.value(f"{path}/pictures", pictures)
        self.text(path, html.unescape(re.sub(r"<[^>]*>", " ", visible)))

    def keys(self, path: str, keys: Sequence[str]) -> None:
        """Keep names of cached files."""
        self._put("keys", path, list(keys))

    def _put(self, kind: str, path: str, value: Any) -> None:
        if path in self.found[kind]:
            raise ValueError(f"{path} is recorded twice")
        self.found[kind][path] = value

    def _clean(self, text: str) -> str:
        for place, name in self._places.items():
            text = text.replace(place, name)
        text = _HEX.sub("<digest>", _DATE.sub("<date>", text))
        return _VERSION.sub("<version>", _SECONDS.sub(r"<time>\1", text))


def _leaves(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Walk through containers and public attributes to arrays, numbers and text."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        public = [item.name for item in dataclasses.fields(value) if item.name[0] != "_"]
        value = {name: getattr(value, name) for name in public}
    if isinstance(value, Mapping):
        for key, item in value.items():
            if not str(key).startswith("seconds"):
                yield from _leaves(f"{path}/{key}", item)
    elif isinstance(value, np.ndarray) and value.dtype != object and value.size > _LARGEST_LISTED:
        yield path, value
    elif isinstance(value, (list, tuple, np.ndarray)):
        yield from _sequence(path, list(value))
    else:
        yield path, _plain(value)


def _sequence(path: str, items: list[Any]) -> Iterator[tuple[str, Any]]:
    if all(_is_value(item) for item in items):
        yield path, [_plain(item) for item in items]  # one line for a column
        return
    for i, item in enumerate(items):
        yield from _leaves(f"{path}/{i}", item)


def _is_value(item: Any) -> bool:
    if isinstance(item, str):
        return " " not in item
    return item is None or isinstance(item, (bool, int, float, np.number, np.bool_))


def _plain(value: Any) -> Any:
    """Return what JSON holds; infinite numbers and NaN by name."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if value is None or isinstance(value, (bool, int, float)) else str(value)


def _describe(array: np.ndarray) -> dict[str, Any]:
    """Digest an array, with enough beside it to see how far another one is."""
    content = np.ascontiguousarray(array)
    numbers = content.astype(np.float64)
    return {
        "sha256": hashlib.sha256(content.tobytes()).hexdigest()[:16],
        "is": f"{content.dtype.str} {'x'.join(map(str, content.shape))}",
        "mean": float(f"{numbers.mean():.9g}"),
        "std": float(f"{numbers.std():.9g}"),
    }
