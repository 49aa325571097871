"""Hostile text through every door, and all that comes out of skte read again.

    python -m benchmarks.reliability --only text

Held means: nothing that came out holds a control, invisible or text-reordering character, no
line pretends to be one of skte's, no line is endless, no cell begins a formula, and there was
no error but a named one.
"""

from __future__ import annotations

import csv
import html
import io
import json
import logging
import re
import tempfile
import unicodedata
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import chdir, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchio as tio
from torch import nn

from skte import CCFV, ModelBank, ModelBankSelector
from skte.bank import BankEntry
from skte.cli import main
from skte.datasets import inspect_dataset, make_phantoms
from skte.demo import small_unet, write_msd
from skte.exceptions import SkteError
from skte.report import RankingDisplay, write_report, write_results
from skte.selection import Ranking

__all__ = ["payloads", "run"]

_FORGED = "skte: FORGED"
_UNSAFE = {"Cc", "Cf", "Cs", "Zl", "Zp"}
_LONGEST_LINE, _LONGEST = 25_000, 3_000_000
_FORMULA = re.compile(r"\s*[=+\-@\uff1d\uff0b\uff0d\uff20]")
_MODEL = {
    "name": "m",
    "factory": "skte.demo:small_unet",
    "weights": "none",
    "arguments": {"widths": [2, 4]},
    "window_size": 8,
}
_PIECES = (
    f"\n{_FORGED}", f"\r{_FORGED}", f"\r\n{_FORGED}", f"\x1b[2K\x1b[1A{_FORGED}",
    f"\x85{_FORGED}", f"\u2028{_FORGED}", f"\u2029{_FORGED}", f"\x0b{_FORGED}", f"\x1c{_FORGED}",
    "\x1b]0;title\x07", "\x1b[31m", "\x9b31m", "\x00", "\x08" * 20, "\x7f", "\t", "\u202egpj.exe",
    "\u2066a\u2069", "\u200b", "\u200f", "\ufeff", "\u00ad", "\U000e0041", "\udc80", "\ud800",
    "=HYPERLINK(\"http://x\")", "+1+1", "-2+3", "@SUM(1)", "\t=1+1", "\uff1d1+1", "'=1",
    "<script>alert(1)</script>", "\"><img src=x onerror=alert(1)>", "&lt;", "]]>", "--></style>",
    "$\\frac{", "$x$", "_", "[red]", "[/]", "%s%n%d", "{0.__class__}", "\\", "'", "\"", ";", ",",
)  # fmt: skip


def payloads(n: int, seed: int) -> list[str]:
    """Return texts that forge, hide, reorder, flood or start formulas, alone and mixed."""
    rng = np.random.default_rng(seed)
    texts = [f"a{piece}b" for piece in _PIECES] + [*_PIECES, "x" * 3_800_000]
    while len(texts) < n:
        chosen = rng.choice(len(_PIECES), size=rng.integers(2, 6))
        texts.append("".join(_PIECES[i] + "ab"[: rng.integers(3)] for i in chosen))
    kept = [texts[i] for i in rng.permutation(len(texts))[:n]]
    return kept if texts[-1] in kept or len(texts) > len(_PIECES) * 2 + 1 else [*kept, texts[-1]]


def run(smoke: bool, seed: int) -> dict[str, Any]:
    """Send payloads through all doors.

    Returns
    -------
    dict
        ``door`` and ``rows``: for each attack how many were tried, how many held, and the
        first problems.
    """
    texts = payloads(4 if smoke else 120, seed)
    rows = []
    for attack in _ATTACKS:
        with tempfile.TemporaryDirectory(prefix="skte-text-") as folder, chdir(folder):
            found = _tried(attack, texts, Path(folder))
        problems = [problem for problem in found if problem]
        rows.append(
            {
                "attack": (attack.__doc__ or "").rstrip("."),
                "tried": len(found),
                "held": len(found) - len(problems),
                "problems": problems[:20],
            }
        )
    return {"door": "text out", "seed": seed, "rows": rows}


def _tried(attack: Callable[..., Any], texts: Sequence[str], folder: Path) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = list(attack(texts, folder))
    told = [flaws(str(w.message)) for w in caught if issubclass(w.category, UserWarning)]
    return [*found, *(flaw for flaw in told if flaw)]


def flaws(text: str, *, one_line: bool = False, longest: int = _LONGEST_LINE) -> str:
    """Return what is wrong with text that came out; empty if nothing is."""
    for line in text.split("\n"):
        bad = {c for c in line if unicodedata.category(c) in _UNSAFE}
        if bad:
            return f"holds {sorted(bad)!r} in {line[:200]!r}"
        if line.startswith(_FORGED):
            return f"has a forged line {line[:200]!r}"
        if len(line) > longest:
            return f"has a line of {len(line)} characters"
    if len(text) > _LONGEST:
        return f"has {len(text)} characters"
    return "has several lines" if one_line and "\n" in text else ""


def _command(*words: str) -> str:
    """Run ``skte``, and return what is wrong with what it printed."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        try:
            code = main(words)
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else -1
        except BaseException as error:
            return f"skte {words[0]} raised {type(error).__name__}: {str(error)[:200]!r}"
    wrong = flaws(out.getvalue()) or flaws(err.getvalue())
    if wrong:
        return f"skte {words[0]} {wrong}"
    return "" if code in (0, 1, 2) else f"skte {words[0]} ended with {code}"


def _of(error: BaseException) -> str:
    return flaws(str(error)) if isinstance(error, SkteError) else f"raised {error!r:.200}"


def _in_a_file_name(text: str, folder: Path) -> str | None:
    """Return text as a file's name, as far as the file system takes it."""
    name = "".join(c for c in text[:60] if c not in "/\x00" and not "\ud800" <= c <= "\udbff")
    try:
        (folder / name).touch()
        (folder / name).unlink()
    except (OSError, ValueError):
        return None
    return name


def _arguments(texts: Sequence[str], folder: Path) -> Iterator[str]:
    """Arguments of the command line."""
    for text in texts:
        yield _command("inspect", f"./{text}")
        yield _command("rank", "--bank", text, "--data", text)
        yield _command("rank", f"--estimator={text}", "--bank", "b", "--data", "d")
        yield _command(f"-{text}")
        yield _command("bank", "add", "b", f"hub:no one/{text}")
        yield _command("bank", "add", "b", f"./{text}", "--as", text)
        yield _command("cache", "info", f"./{text}")


def _entry_names(texts: Sequence[str], folder: Path) -> Iterator[str]:
    """Names of models, given to an entry and in a manifest."""
    for text in texts:
        try:
            entry = BankEntry(text, small_unet)
        except SkteError as error:
            yield _of(error)
        else:
            bank = ModelBank([entry])
            yield flaws(repr(bank)) or flaws(html.unescape(bank._repr_html_()))
        _manifest(folder, {"name": text, "factory": "skte.demo:small_unet", "weights": "none"})
        yield _command("bank", "list", "bank.json")


def _fields(texts: Sequence[str], folder: Path) -> Iterator[str]:
    """Factories, weights, layers, steps, provenance and keys of a manifest."""
    for text in texts:
        for field, value in (
            ("factory", f"skte.demo:{text}"), ("factory", text), ("weights", text),
            ("layers", [text]), ("preprocessing", [text]), ("provenance", {text: text}),
            ("arguments", {text: text}), (text, 1),
        ):  # fmt: skip
            _manifest(folder, {**_MODEL, field: value})
            yield _command("bank", "check", "bank.json")


def _manifest(folder: Path, model: dict[str, Any]) -> None:
    (folder / "bank.json").write_text(json.dumps({"models": [model]}), encoding="utf-8")


def _state_dicts(texts: Sequence[str], folder: Path) -> Iterator[str]:
    """Keys of weights."""
    for text in texts:
        torch.save({text: torch.zeros(2), f"{text}.weight": torch.zeros(1)}, folder / "w.pt")
        _manifest(folder, {**_MODEL, "weights": "w.pt"})
        yield _command("bank", "check", "bank.json")
        yield _command("bank", "list", ".")


def _file_names(texts: Sequence[str], folder: Path) -> Iterator[str]:
    """Names of files and folders in banks and datasets."""
    for text in texts:
        name = _in_a_file_name(text, folder)
        if name is None:
            continue
        for place in ("b", "d/imagesTr", "d/labelsTr"):
            (folder / place).mkdir(parents=True, exist_ok=True)
        (folder / "b" / f"{name}.pt").write_bytes(b"nothing")
        (folder / "b" / f"{name}d").mkdir(exist_ok=True)
        (folder / "b" / f"{name}d" / "bank.yaml").write_text("models: 3")
        for part in ("imagesTr", "labelsTr"):
            (folder / "d" / part / f"{name}.nii.gz").write_bytes(b"nothing")
        yield _command("bank", "list", "b")
        yield _command("inspect", "d")


def _class_names(texts: Sequence[str], folder: Path) -> Iterator[str]:
    """Names of classes, channels, images and keys in `dataset.json`."""
    write_msd(folder / "d", make_phantoms(2, size=(12, 12, 8)), "tiny")
    path = folder / "d" / "dataset.json"
    sound = json.loads(path.read_text())
    for text in texts:
        for change in (
            {"labels": {**sound["labels"], "1": text}},
            {"modality": {"0": text}},
            {"name": text, text: text},
            {"training": [{"image": text, "label": text}]},
            {"labels": {text: "1"}},
        ):
            path.write_text(json.dumps(sound | change))
            yield _command("inspect", "d", "--all")


def _case_names(texts: Sequence[str], folder: Path) -> Iterator[str]:
    """Names of cases in memory, and in a CSV file with its header."""
    image, label = torch.rand(1, 6, 6, 6), torch.zeros(1, 6, 6, 6)
    label[:, 2:4] = 1
    for text in texts:
        subject = tio.Subject(
            image=tio.ScalarImage(tensor=image), label=tio.LabelMap(tensor=label), case_id=text
        )
        report = inspect_dataset([subject])
        yield flaws(str(report)) or flaws(html.unescape(report._repr_html_()))
        with (folder / "cases.csv").open("w", encoding="utf-8", errors="replace") as file:
            writer = csv.writer(file)
            writer.writerows([["case_id", "image", "label", text], [f"c{text}", text, text, text]])
        yield _command("inspect", "cases.csv")


def _tables(texts: Sequence[str], folder: Path) -> Iterator[str]:
    """Names and columns of tables given to `skte evaluate`."""
    for text in texts:
        rows = [{"name": f"{text}{i}", "score": i, f"score_{text}": 3 - i} for i in range(3)]
        reached = {f"{text}{i}": 0.1 * i for i in range(2)} | {"x": 0.5}
        (folder / "r.json").write_text(json.dumps(rows))
        (folder / "p.json").write_text(json.dumps(reached))
        yield _command("evaluate", "--ranking", "r.json", "--performance", "p.json")
        yield _command(
            "evaluate", "--ranking", "r.json", "--performance", "p.json", "--column", text
        )


def _found_again(texts: Sequence[str], folder: Path) -> Iterator[str]:
    """Names in a CSV file: no formula for a spreadsheet, and found by `skte evaluate`."""
    for text in texts:
        names = [f"{text}{i}" for i in range(3)]
        try:
            for name in names:
                BankEntry(name, small_unet)
        except SkteError:
            names = []  # refused at the door; the columns are tried all the same
        table = {
            "name": np.array(names or ["a", "b", "c"], dtype=object),
            "score": np.array([-3.0, -2.0, -1.0]),
            "rank": np.array([3, 2, 1]),
            "error": np.array([text, "", text], dtype=object),
            "layers": np.array([(text,), (), (text, text)], dtype=object),
        }
        write_results(table, folder / "r.csv")
        written = (folder / "r.csv").read_text(encoding="utf-8")
        with io.StringIO(written, newline="") as file:
            cells = list(csv.reader(file))
        numbers = {"score", "rank"}
        formulas = [
            cell
            for row in cells[1:]
            for column, cell in zip(cells[0], row, strict=True)
            if column not in numbers and _FORMULA.match(cell)
        ]
        problem = flaws(written) or (f"formula {formulas[0]!r}" if formulas else "")
        if names and not problem:
            reached = dict(zip(names, [0.3, 0.2, 0.1], strict=True))
            (folder / "p.json").write_text(json.dumps(reached))
            err = io.StringIO()
            with redirect_stdout(io.StringIO()), redirect_stderr(err):
                code = main(["evaluate", "--ranking", "r.csv", "--performance", "p.json"])
            problem = "" if code == 0 else f"{text!r:.50} not found: {err.getvalue()[:200]!r}"
        yield problem


def _plots(texts: Sequence[str], folder: Path) -> Iterator[str]:
    """Names in plots and in a notebook's tables."""
    for text in texts:
        ranking = Ranking.from_scores([text, "b"], [1.0, 2.0])
        problem = flaws(repr(ranking)) or flaws(html.unescape(ranking._repr_html_()))
        buffer = io.StringIO()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph")
            display = RankingDisplay([text, "b"], [1.0, 2.0], score_name=text).plot()
            display.figure_.savefig(buffer, format="svg")
        yield problem or flaws(html.unescape(buffer.getvalue()))


class _Says(nn.Module):
    """A network that warns, or fails, with a text."""

    def __init__(self, text: str, fails: bool) -> None:
        super().__init__()
        self.text, self.fails, self.net = text, fails, small_unet(widths=(2, 4))

    def forward(self, x: torch.Tensor) -> Any:
        """Say the text, then run."""
        if self.fails:
            raise RuntimeError(self.text)
        warnings.warn(self.text, stacklevel=1)
        logging.getLogger("skte").warning("%s", "a line of a model")
        return self.net(x)


def _models(texts: Sequence[str], folder: Path) -> Iterator[str]:
    """Errors and warnings of models: warnings, log, results, CSV, JSON, HTML, notebook."""
    entries = [
        BankEntry.from_module(f"m{i} {fails}", _Says(text, fails), provenance={"by": text[:5000]})
        for i, text in enumerate(texts)
        for fails in (True, False)
    ]
    out = io.StringIO()
    with redirect_stdout(out):
        selector = ModelBankSelector(CCFV(), verbose=1, error_score=np.nan).fit(
            ModelBank(entries), make_phantoms(2, size=(8, 8, 8))
        )
    yield flaws(out.getvalue())
    yield flaws(repr(selector.ranking_)) or flaws(html.unescape(selector.ranking_._repr_html_()))
    results = selector.results_
    for error, told in zip(results["error"], results["warnings"], strict=True):
        yield flaws(" | ".join([error, *told]), one_line=True)
    for name in ("r.csv", "r.json"):
        write_results(results, folder / name)
        yield flaws((folder / name).read_text(encoding="utf-8"))
    write_report(selector, folder / "r.html", n_cases=0, explain=False)
    text = (folder / "r.html").read_text(encoding="utf-8")
    text = html.unescape(re.sub(r'src="data:[^"]*"', "", text))
    yield flaws(text, longest=_LONGEST)  # a page need not break its lines


_ATTACKS = (
    _arguments, _entry_names, _fields, _state_dicts, _file_names, _class_names, _case_names,
    _tables, _found_again, _plots, _models,
)  # fmt: skip
