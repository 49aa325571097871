"""The command line with random words: every command and option that the parser knows."""

import argparse
import contextlib
import io
import json
import os
import re

import torch

from skte.cli import main
from skte.cli._main import build_parser  # what each option takes
from skte.datasets import make_phantoms
from skte.demo import small_unet, write_msd
from tests.reliability.arrays import ESTIMATORS
from tests.reliability.mutate import pick
from tests.reliability.outcome import require

SIZE = (12, 12, 10)

# Other machines, other processes and minutes of work are not what is looked for here.
LEFT_OUT = {"demo"}
NEVER_SET = {"timeout", "debug", "device"}

ODD = [
    "", " ", "0", "-0", "-1", "1", "2", "0.5", "nan", "inf", "-inf", "1e309", "9" * 30, "0x10",
    "١٢", "½", "ü", "名", "a" * 5000, "a\nb", "a\tb", "{", "[]", "null", '{"a": "b"}',
    '{"tubes 1": ["tubes 1"]}', "[" * 2000, ".", "..", "missing", "missing/x.csv", "empty",
    "plain.txt", "fifo", "loop", "/dev/null", "/dev/zero", "/proc/self/mem", "\udcff", "--", "-",
    "~nobody/x", "C:\\x", "*", "%s", "{}", "=", "first", "second", "auto", "ccfv", "up", "1,2",
    "models", "bank.json", "data", "ranking.csv", "performance.json", "cache",
]  # fmt: skip
SOUND = {
    "bank": ["bank.json", "models"],
    "data": ["data"],
    "path": ["data"],
    "ranking": ["ranking.csv"],
    "performance": ["performance.json"],
    "folder": ["cache"],
    "source": ["models/first.pt", "models", "."],
    "out": ["new.csv", "new.json", "ranking.csv"],
    "report": ["new.html"],
    "cache": ["cache", "new-cache"],
    "entry": ["first"],
    "confidence": ["0.9"],
    "labels": ['{"organ": ["ellipsoids 1", "ellipsoids 2"]}'],
}


def prepare_shell(folder):
    """A bank, a dataset, a ranking and a cache; and places where there is nothing to find."""
    models = folder / "models"
    models.mkdir()
    network = {"factory": "skte.demo:small_unet", "arguments": {"widths": [2, 4]}}
    entries = []
    for seed, name in enumerate(("first", "second")):
        torch.manual_seed(seed)
        torch.save(small_unet(widths=(2, 4)).state_dict(), models / f"{name}.pt")
        entries.append({"name": name, **network, "weights": f"{name}.pt"})
    (models / "bank.json").write_text(json.dumps({"version": 1, "models": entries}))
    for entry in entries:
        entry["weights"] = f"models/{entry['weights']}"
    (folder / "bank.json").write_text(json.dumps({"version": 1, "models": entries}))
    write_msd(folder / "data", make_phantoms(3, size=SIZE), "tiny")
    rows = [{"name": name, "performance": 0.5} for name in ("first", "second")]
    (folder / "performance.json").write_text(json.dumps(rows))
    (folder / "plain.txt").write_text("text\n")
    (folder / "empty").mkdir()
    os.mkfifo(folder / "fifo")
    (folder / "loop").symlink_to("loop")
    with contextlib.chdir(folder), contextlib.redirect_stdout(io.StringIO()):
        words = "rank --bank bank.json --data data --confidence 0.9 --out ranking.csv"
        code = main([*words.split(), "--cache", "cache", "--report", "old.html"])
        # Libraries are loaded at the first use, and not by an input.
        every = [word for name in ESTIMATORS for word in ("--estimator", name.lower())]
        main(["rank", "--bank", "bank.json", "--data", "data", *every])
    require(code == 0, "the sound command line failed")
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def attempt_shell(rng, folder, sound):
    """Run one command line. Wrong usage and unusable input end with 2 and say why."""
    words = command_line(rng)
    said = io.StringIO()
    with contextlib.chdir(folder):
        try:
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
                code = main(words)
        except SystemExit as end:  # argparse
            code = end.code
        finally:
            unfinished = [path.name for path in folder.rglob(".*.*") if path.is_file()]
            restore(folder, sound)
    require(not unfinished, f"{words} left {unfinished}")
    require(code in (0, 1, 2), f"{words} ended with {code!r}")
    told = said.getvalue().strip()
    require("Traceback" not in told, f"{words}: {told[-400:]}")
    if code != 2:
        return "result"
    require(len(told) > 20, f"{words} ended with 2 and said {told!r}")
    kind = re.search(r"error: (\w+): .*\(--debug shows where\)$", told)
    # Of errors that are not skte's, those by which scikit-learn checks parameters may appear.
    known = kind is None or kind[1] in ("InvalidParameterError", "ValueError")
    require(known, f"{words}: {told[-400:]}")
    return "named error"


def command_line(rng):
    """Words of a command: some that are right, some that are odd, some left out."""
    parser, words = build_parser(), []
    while inner := [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]:
        names = [name for name in inner[0].choices if name not in LEFT_OUT]
        words.append(pick(rng, names))
        parser = inner[0].choices[words[-1]]
    oddness = pick(rng, [0.0, 0.1, 0.1, 0.5])
    positional, options = [], []
    for action in parser._actions:
        if action.dest in NEVER_SET or isinstance(action, argparse._HelpAction):
            continue
        if not action.option_strings:
            positional.append(value_of(rng, action, oddness))
        elif rng.random() < (0.97 if action.required else 0.15):
            flag = pick(rng, action.option_strings)
            options += [flag] if action.nargs == 0 else [flag, *values_of(rng, action, oddness)]
    words += [*positional, *options] if rng.random() < 0.7 else [*options, *positional]
    if rng.random() < oddness / 2:
        words.insert(int(rng.integers(len(words) + 1)), pick(rng, ODD))
    return words


def values_of(rng, action, oddness):
    several = action.nargs in ("+", "*")
    return [
        value_of(rng, action, oddness) for _ in range(int(rng.integers(1, 4)) if several else 1)
    ]


def value_of(rng, action, oddness):
    if action.dest == "n_jobs":  # others than 1 start processes
        return pick(rng, ["1", "1", "0", "nan", "", "x", "9" * 30])
    if rng.random() < oddness:
        return pick(rng, ODD)
    if action.choices:
        return str(pick(rng, list(action.choices)))
    if action.dest in SOUND:
        return pick(rng, SOUND[action.dest])
    return pick(rng, ["1", "2", "8"])


def restore(folder, sound):
    """Bring the place back to what it was."""
    known = {parent for path in sound for parent in path.parents}
    kept = {folder / name for name in ("empty", "fifo", "loop")}
    for path in sorted(folder.rglob("*"), reverse=True):
        if path in sound or path in known or path in kept:
            continue
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    for path, data in sound.items():
        if not path.is_file() or path.read_bytes() != data:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    for name in ("empty",):
        (folder / name).mkdir(exist_ok=True)
