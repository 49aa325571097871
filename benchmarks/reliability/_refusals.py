"""List what is refused, with its message: one line for each kind of error that tests raise.

    python -m benchmarks.reliability._refusals [TESTS ...]

Runs the tests of files and models (or those given), and writes every message that they raise
to ``results/refusals.md``, to be read.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest

from skte.datasets import Problem
from skte.exceptions import BankError, DatasetError, SkteError

RESULT = Path(__file__).parent / "results" / "refusals.md"
_LONGEST = 300
#: What differs from run to run, or from machine to machine.
_HERE = (
    (re.compile(r"(?<![\w:/])/(?:[\w.+~;$() -]*/)+"), "DIR/"),
    (re.compile(r":\d{5}/"), ":PORT/"),
)
_VARIABLE = re.compile(r"'[^']*'|\"[^\"]*\"|DIR\S*|\[.*?\]|\(.*?\)|[\w.-]*\d[\w.-]*|\w{30,}")

_WHERE = re.compile(r"^(- )?((Entry|Case|Weights|model|MONAI bundle|nnU-Net folder) [^:]*: )*")


def main(tests: list[str]) -> None:
    """Run the tests and write what they refused."""
    found: dict[str, dict[str, str]] = {"Models": {}, "Data": {}}
    _record(BankError, found["Models"])
    _record(DatasetError, found["Data"])
    ignored = "ignore::pytest.PytestAssertRewriteWarning"  # skte is imported already
    status = pytest.main(["-q", "-p", "no:cacheprovider", "-W", ignored, *tests])
    parts = [
        f"## {title}\n\n" + "\n".join(f"- {text}" for text in sorted(messages.values()))
        for title, messages in found.items()
    ]
    head = f"# What is refused\n\nMade by `python -m {__spec__.name}` from the tests' own inputs."
    RESULT.write_text("\n\n".join([head, *parts]) + "\n", "utf-8")
    for title, messages in found.items():
        print(f"{title}: {len(messages)} kinds of messages")
    sys.exit(status)


def _record(error: type[SkteError], found: dict[str, str]) -> None:
    """Keep an example of each kind of message of an error."""
    plain = error.__init__

    def record(self: Any, *arguments: Any, **options: Any) -> None:
        plain(self, *arguments, **options)
        problems = [p for p in options.get("problems", ()) if isinstance(p, Problem)]
        texts = [f"{p.what}; {p.remedy}" for p in problems] or str(self).splitlines()
        for text in texts:
            shown = text
            for pattern, instead in _HERE:
                shown = pattern.sub(instead, shown)
            shown = " ".join(shown[:_LONGEST].replace("|", "\\|").split())
            kind = _VARIABLE.sub("#", _WHERE.sub("", shown))[:60]
            found.setdefault(kind, shown)

    error.__init__ = record  # type: ignore[method-assign]


if __name__ == "__main__":
    main(sys.argv[1:] or ["tests/bank", "tests/datasets"])
