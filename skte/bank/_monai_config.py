"""The configuration of a MONAI bundle: files merged, references followed, expressions bounded.

Of MONAI's language as much is read as published bundles need (github.com/Project-MONAI/model-zoo);
anything else is refused by name.
"""

from __future__ import annotations

import ast
import operator
import os
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skte._text import clean_text
from skte.bank._documents import check_inside, parse_file
from skte.exceptions import BankError

TARGET = "_target_"  # the key that names a class
_SUFFIXES = (".json", ".yaml", ".yml")
# Groups of files, each with what counts most last; later groups are read if need be.
_GROUPS = (("common", "inference"), ("evaluate",), ("train",))
#: Files of a configuration.
FILES = tuple(f"configs/{stem}{end}" for group in _GROUPS for stem in group for end in _SUFFIXES)
_NETWORK_KEYS = ("network_def", "network", "net", "model")
_DEEPEST = 50
_INDEX = re.compile(r"[0-9]{1,6}")
# References to lists of references multiply: with this many values a file describes no model.
_MOST_VALUES = 100_000
# Keys beside the arguments that MONAI's parser looks at.
_ABOUT = ("_desc_", "_disabled_", "_requires_", "_mode_")
_DISABLED = object()


@dataclass(frozen=True)
class Refused:
    """An expression that was not evaluated, and why."""

    text: str
    why: str

    def __str__(self) -> str:
        return f"{clean_text(repr(self.text), 200)} is not evaluated ({self.why})"


def refused_in(value: Any) -> Refused | None:
    """Return the first expression in a value that was not evaluated."""
    if isinstance(value, Refused):
        return value
    items: list[Any] = []
    if isinstance(value, Mapping):
        items = [*value.values()]
        strange = next((k for k in value if isinstance(k, str) and k.startswith(("$", "%"))), None)
        if strange:
            return Refused(strange, "it stands for a key")
    elif isinstance(value, list):
        items = value
    return next((found for item in items if (found := refused_in(item))), None)


class Configuration:
    """What the files of a bundle say together, as MONAI's parser has it; nothing of it runs."""

    def __init__(self, folder: Path, roots: Sequence[str | os.PathLike[str]] = ()) -> None:
        self.folder, self.roots = folder, roots
        self.content: dict[str, Any] = {}
        self.files: list[Path] = []
        self._n_values = 0
        self.network_key = self._read()

    def get(self, key: str) -> Any:
        """Return a part with its references (``@``, ``%``) and expressions replaced."""
        self._n_values = 0
        try:
            found = self._resolve(self.content.get(key), 0)
        except RecursionError:
            raise BankError(f"{key!r:.100} is nested too deep") from None
        return None if found is _DISABLED else found

    def _read(self) -> str:
        if not self.folder.is_dir():
            raise BankError("there is no such folder")
        check_inside(self.folder, FILES, self.roots)
        for group in _GROUPS:
            merged: dict[str, Any] = {}
            for path in self._existing(group):
                content = parse_file(path, "Configuration")
                self.files.append(path)
                merged |= content if isinstance(content, Mapping) else {}
            self.content = {**merged, **self.content}
            extended = [key for key in self.content if str(key).startswith("+")]
            if extended:
                raise BankError(
                    f"{clean_text(extended, 200)} add to what other files say, which is not "
                    "followed: write the whole value into the configuration"
                )
            for key in _NETWORK_KEYS:
                value = self.content.get(key)
                if isinstance(value, Mapping) and TARGET in value:
                    return key
        if not self.files:
            raise BankError("it has no configs/inference.json (or .yaml); give the bundle's folder")
        read = ", ".join(path.relative_to(self.folder).as_posix() for path in self.files)
        given = {key: self.content[key] for key in _NETWORK_KEYS if key in self.content}
        shown = f", and {clean_text(repr(given), 200)} is not evaluated" if given else ""
        raise BankError(
            f"{read} has no network: one of {', '.join(_NETWORK_KEYS)} must hold {TARGET!r} and "
            f"its arguments{shown}"
        )

    def _existing(self, stems: Sequence[str]) -> list[Path]:
        found = (self.folder / "configs" / f"{s}{end}" for s in stems for end in _SUFFIXES[::-1])
        return [path for path in found if path.is_file()]

    def _resolve(self, value: Any, depth: int) -> Any:
        """Replace references and expressions in a value."""
        self._n_values += 1
        if self._n_values > _MOST_VALUES:
            raise BankError(
                f"its references (@) stand for more than {_MOST_VALUES} values, which was "
                "refused; write them out, or check where it comes from"
            )
        if depth > _DEEPEST:
            raise BankError(f"references lead in a circle, or too deep: {value!r:.80}")
        if isinstance(value, str):
            if value.startswith("$"):
                return self._evaluate(value, depth)
            if value.startswith("%") or _REFERENCE.fullmatch(value.replace("#", "::")):
                return self._resolve(self._find(value), depth + 1)
            return value
        if isinstance(value, Mapping):
            inner = {
                key: self._resolve(item, depth + 1)
                for key, item in value.items()
                if key not in _ABOUT
            }
            if TARGET in value and self._is_disabled(value, depth):
                return _DISABLED
            return {key: item for key, item in inner.items() if item is not _DISABLED}
        if isinstance(value, list):
            items = (self._resolve(item, depth + 1) for item in value)
            return [item for item in items if item is not _DISABLED]
        return value

    def _is_disabled(self, value: Mapping[str, Any], depth: int) -> bool:
        flag = self._resolve(value.get("_disabled_", False), depth + 1)
        refused = refused_in(flag)
        if refused:
            raise BankError(f"whether {value[TARGET]!r:.80} is used is unknown: {refused}")
        return flag.strip().lower() == "true" if isinstance(flag, str) else bool(flag)

    def _find(self, text: str) -> Any:
        """Return what a reference or macro leads to, before it is resolved."""
        found: Any = self.content
        parts = text[1:].replace("#", "::").split("::")
        if not parts[0] or _FILE.search(parts[0]):
            what = "is relative to where it stands" if not parts[0] else "copies from another file"
            raise BankError(
                f"the reference {text[:100]!r} {what}, which is not followed: name the place from "
                "the top of the configuration, or write the value itself"
            )
        for part in parts:
            if isinstance(found, list) and _INDEX.fullmatch(part) and int(part) < len(found):
                found = found[int(part)]
            elif isinstance(found, Mapping) and part in found:
                found = found[part]
            else:
                raise BankError(
                    f"the reference {text[:100]!r} leads nowhere: there is no {part[:100]!r}"
                )
        return found

    def _evaluate(self, text: str, depth: int) -> Any:
        names: list[str] = []

        def look_up(number: int) -> Any:
            found = self._resolve(self._find(names[number]), depth + 1)
            return None if found is _DISABLED else found

        def keep(match: re.Match[str]) -> str:
            names.append(match[0])
            return f" {_NAME}{len(names) - 1} "

        code = text[1:].strip()
        try:
            if len(code) > _LONGEST or _NAME in code or _nesting(code) > _DEEPEST_CODE:
                raise _RefusedError("it is too long or nested too deep")
            code = _REFERENCE.sub(keep, code.replace("#", "::")).strip()
            with warnings.catch_warnings():  # of odd code, which is not run
                warnings.simplefilter("ignore")
                tree = ast.parse(code, mode="eval")
            self._n_values += sum(1 for _ in ast.walk(tree))
            return _plain(_Walk(look_up).value(tree.body))
        except _RefusedError as error:
            why = re.sub(rf"{_NAME}(\d+)", lambda match: names[int(match[1])], str(error))
            return Refused(text, why)
        except (SyntaxError, RecursionError, MemoryError):
            return Refused(text, "only expressions of values are")
        except (ArithmeticError, LookupError, TypeError, ValueError) as error:
            return Refused(text, f"it fails: {type(error).__name__}")


_REFERENCE = re.compile(r"@(?:::)*\w+(?:::\w+)*")
_FILE = re.compile(r"[.](json|ya?ml)$")
_NAME = "__reference_"
_LONGEST = 1000  # characters of an expression
_DEEPEST_CODE = 5  # brackets in brackets
_MOST_ITEMS = 10_000  # of a list or text that an expression makes
_LARGEST = 2**63
_SCALARS = (bool, int, float, str, type(None))
_ARITHMETIC: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
}
_COMPARISONS: dict[type, Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_UNARY: dict[type, Callable[[Any], Any]] = {ast.USub: operator.neg, ast.Not: operator.not_}


class _RefusedError(Exception):
    """What an expression does that is not evaluated."""


class _Walk:
    """Evaluates the few kinds of expressions that describe values; anything else is refused."""

    def __init__(self, look_up: Callable[[int], Any]) -> None:
        self.look_up = look_up

    def value(self, node: ast.expr) -> Any:
        """Return the value of a part of an expression."""
        match node:
            case ast.Constant(value=value) if type(value) in _SCALARS and _NAME not in str(value):
                return _bounded(value)
            case ast.Name(id=name) if name.startswith(_NAME):
                return _evaluated(self.look_up(int(name.removeprefix(_NAME))))
            case ast.List(elts=items) | ast.Tuple(elts=items):
                values = [self.value(item) for item in items]
                _check_size(values)
                return values if isinstance(node, ast.List) else tuple(values)
            case ast.IfExp(test=test, body=body, orelse=other):
                return self.value(body if self._known(test) else other)
            case ast.UnaryOp(op=op, operand=operand) if type(op) in _UNARY:
                return _bounded(_UNARY[type(op)](self._known(operand)))
            case ast.BinOp(op=op, left=left, right=right) if type(op) in _ARITHMETIC:
                return _calculate(op, self.value(left), self.value(right))
            case ast.Compare(left=left, ops=[op], comparators=[other]) if type(op) in _COMPARISONS:
                return _COMPARISONS[type(op)](self._known(left), self._known(other))
            case ast.Subscript(value=inner, slice=index):
                return _evaluated(self._known(inner, deep=False)[self._known(index)])
            case ast.Call(func=ast.Name(id="len"), args=[one], keywords=[]):
                return len(self._known(one, deep=False))
        raise _RefusedError(_named(node))

    def _known(self, node: ast.expr, deep: bool = True) -> Any:
        """Return a value that is data throughout, or at its top: no component of MONAI's."""
        value = self.value(node)
        if isinstance(value, Mapping) and TARGET in value:
            raise _RefusedError(f"it needs the object that {value[TARGET]!r:.80} would make")
        if deep and (_has_component(value) or refused_in(value)):
            raise _RefusedError("it looks at objects that would have to be made")
        return value


def _evaluated(value: Any) -> Any:
    if isinstance(value, Refused):
        raise _RefusedError(f"it needs {clean_text(repr(value.text), 100)}: {value.why}")
    return value


def _nesting(code: str) -> int:
    deepest = level = 0
    for character in code:
        level += (character in "([{") - (character in ")]}")
        deepest = max(deepest, level)
    return deepest


def _calculate(op: ast.operator, a: Any, b: Any) -> Any:
    """Apply an operator to numbers; add texts and lists, and repeat lists; all bounded."""
    numbers = (bool, int, float)
    if isinstance(op, ast.Add) and type(a) is type(b) and isinstance(a, (str, list, tuple)):
        _check_size([a, b])
    elif isinstance(op, ast.Mult) and isinstance(a, (list, tuple)) and isinstance(b, int):
        _check_size(a, b)
    elif not (isinstance(a, numbers) and isinstance(b, numbers)):
        raise _RefusedError(f"it applies {type(op).__name__} to other things than numbers or lists")
    return _bounded(_ARITHMETIC[type(op)](a, b))


def _bounded(value: Any) -> Any:
    if isinstance(value, complex) or (isinstance(value, int) and abs(value) >= _LARGEST):
        raise _RefusedError("its numbers are too large")
    return value


def _check_size(value: Any, times: int = 1) -> None:
    """Refuse a list that would hold too much, what is in it counted wherever it occurs."""
    n_items, rest = 0, [value]
    while rest and n_items * times <= _MOST_ITEMS:
        one = rest.pop()
        n_items += len(one) if isinstance(one, str) else 1
        if isinstance(one, (list, tuple, Mapping)):
            rest += one.values() if isinstance(one, Mapping) else one
    if n_items * times > _MOST_ITEMS:
        raise _RefusedError(f"it makes more than {_MOST_ITEMS} items")


def _has_component(value: Any) -> bool:
    if isinstance(value, Mapping):
        return TARGET in value or any(map(_has_component, value.values()))
    return isinstance(value, (list, tuple)) and any(map(_has_component, value))


def _plain(value: Any) -> Any:
    """Return a value with lists for tuples, as a file would have it."""
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def _named(node: ast.expr) -> str:
    """Name what an expression does that is not evaluated."""
    if isinstance(node, ast.Call):
        return f"it calls {clean_text(ast.unparse(node.func), 80)}()"
    if isinstance(node, (ast.Name, ast.Attribute)):
        return f"it uses {clean_text(ast.unparse(node), 80)}"
    return f"it is or holds a {type(node).__name__}"
