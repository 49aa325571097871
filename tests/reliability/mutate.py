"""Values and bytes changed at random, with a liking for what breaks readers."""

import copy
import json

import numpy as np

NASTY = [
    None, True, False, 0, -1, 1, 2**31, 2**63, -(2**63), 10**30, 1e308, -1e-308, 0.5,
    float("nan"), float("inf"), "", " ", "a", "nan", "../../etc/passwd", "/etc/passwd",
    "C:\\Windows\\win.ini", "~", "a\0b", "\ud800", "é" * 300, "x" * 100_000, "%s%n{0}",
    "$(touch x)",
    "!!python/object/apply:os.system ['true']", "os:system", "subprocess:Popen", "builtins:eval",
    "os.system", "torch.hub.load", "torch:load", "posix:_exit", "__import__('os')._exit(3)",
    "$import os", "$__import__('os').system('true')", "@network_def", [], {}, [[]], [None],
    {"": {}},
    [0] * 1000, [1e9] * 3, [-1, 0, 1], ["a"] * 50, {"a": {"b": [1, {"c": None}]}},
]  # fmt: skip


def pick(rng, items):
    return items[int(rng.integers(len(items)))]


def mutated(rng, value):
    """A copy of what JSON holds with one to three changes somewhere in it."""
    holder = [copy.deepcopy(value)]
    for _ in range(int(rng.integers(1, 4))):
        places = list(_places(holder))
        container, key = pick(rng, places)
        kind = rng.integers(7)
        if kind == 0 and container is not holder:
            del container[key]
        elif kind == 1 and isinstance(container, dict):
            container[pick(rng, ["", "name", "x", "trusted", str(key) + " "])] = container[key]
        elif kind == 2 and isinstance(container, list):
            container.insert(key, copy.deepcopy(pick(rng, places)[0]))
        elif kind == 3:
            container[key] = [copy.deepcopy(container[key])]
        elif kind == 4 and isinstance(container[key], (int, float)):
            container[key] = container[key] * pick(rng, [-1, 0, 1000, 10**9, 0.5]) + pick(
                rng, [0, 1]
            )
        elif kind == 5 and isinstance(container[key], str):
            text = bytes_mutated(rng, container[key].encode(errors="surrogatepass"))
            container[key] = text.decode(errors="replace")
        else:
            container[key] = copy.deepcopy(pick(rng, NASTY))
    return holder[0]


def json_mutated(rng, value):
    """The bytes of a changed JSON file: mostly changed values, sometimes changed bytes."""
    text = json.dumps(mutated(rng, value) if rng.random() < 0.9 else value)
    data = text.encode(errors="surrogatepass")
    return bytes_mutated(rng, data) if rng.random() < 0.2 else data


def bytes_mutated(rng, data):
    """Bytes with one to eight changes: flipped, set, cut off, left out, repeated, inserted."""
    changed = bytearray(data)
    for _ in range(int(rng.integers(1, 9))):
        if not changed:
            return bytes(rng.integers(0, 256, 10, dtype=np.uint8))
        at = int(rng.integers(len(changed)))
        length = int(min(rng.integers(1, 65), len(changed) - at))
        kind = rng.integers(7)
        if kind == 0:
            changed[at] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            changed[at] = pick(rng, [0, 255, 127, 128, 10, 34, 92])
        elif kind == 2:
            changed[at : at + length] = rng.integers(0, 256, length, dtype=np.uint8).tobytes()
        elif kind == 3:
            del changed[at : at + length]
        elif kind == 4:
            changed[at:at] = changed[at : at + length]
        elif kind == 5:
            changed[at:at] = pick(rng, [b"\0" * 8, b"\xff" * 8, b"[" * 50, b"\n", b'"'])
        elif rng.random() < 0.3:
            del changed[at:]
    return bytes(changed)


def _places(value):
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in list(items):
        yield value, key
        if isinstance(inner, (dict, list)):
            yield from _places(inner)
