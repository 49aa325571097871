"""Manifests, models of nnU-Net and checkpoints with something random in them."""

import json
import os
import pickle
import subprocess
from pathlib import Path

import torch

from skte import ModelBank
from skte.bank import BankEntry
from skte.demo import small_unet
from skte.exceptions import BankError
from tests.model_folders import write_nnunet
from tests.reliability.mutate import bytes_mutated, json_mutated, pick
from tests.reliability.outcome import require


def prepare_manifest(folder):
    torch.save(small_unet(widths=(2, 4)).state_dict(), folder / "a.pt")
    return {
        "version": 1,
        "description": "a bank",
        "defaults": {"source_head": True, "activation": "softmax"},
        "models": [
            {
                "name": name,
                "factory": "skte.demo:small_unet",
                "arguments": {"widths": [2, 4], "in_channels": 1, "n_classes": 2},
                "weights": "a.pt",
                "layers": "auto",
                "window_size": [8, 8, 8],
                "preprocessing": ["ToCanonical", {"name": "Resample", "target": [1, 1, 1]}],
                "provenance": {"trained_on": "nothing"},
            }
            for name in ("first", "second")
        ],
    }


def attempt_manifest(rng, folder, sound):
    path = folder / pick(rng, ["bank.json", "bank.yaml"])
    path.write_bytes(json_mutated(rng, sound))
    try:
        bank = ModelBank.from_manifest(path)
        for entry in bank:
            require(isinstance(entry.load(), torch.nn.Module), "no network")
            entry.transform()
    except BankError:
        return "named error"
    return "result"


def prepare_plans(folder):
    model, _ = write_nnunet(folder)
    return {name: json.loads((model / name).read_text()) for name in ("plans.json", "dataset.json")}


def attempt_plans(rng, folder, sound):
    (model,) = (path.parent for path in folder.rglob("plans.json"))
    name = pick(rng, ["plans.json", "plans.json", "dataset.json"])
    (model / name).write_bytes(json_mutated(rng, sound[name]))
    try:
        entry = BankEntry.from_nnunet(model)
        entry.load()
        entry.transform()
    except BankError:
        return "named error"
    finally:
        (model / name).write_text(json.dumps(sound[name]))
    return "result"


class Payload:
    """Would run a command when it is unpickled."""

    def __init__(self, run, command):
        self.run, self.command = run, command

    def __reduce__(self):
        return self.run, (self.command,)


# No path in them: equal seeds must give equal bytes. Whatever runs is seen by what it makes.
PAYLOADS = [
    (os.system, "mkdir skte-ran"),
    (subprocess.getoutput, "mkdir skte-ran"),
    (eval, "__import__('os').mkdir('skte-ran')"),
    (exec, "import os; os.mkdir('skte-ran')"),
]


def prepare_checkpoint(folder):
    torch.manual_seed(0)
    state = small_unet(widths=(2, 4)).state_dict()
    files = {}
    for name, content, options in [
        ("zip.pt", state, {}),
        ("legacy.pt", state, {"_use_new_zipfile_serialization": False}),
        ("nested.pt", {"model": state, "epoch": 3, "notes": ["a"]}, {}),
    ]:
        torch.save(content, folder / name, **options)
        files[name] = (folder / name).read_bytes()
    import safetensors.torch

    safetensors.torch.save_file(state, folder / "safe.safetensors")
    files["safe.safetensors"] = (folder / "safe.safetensors").read_bytes()
    for i, payload in enumerate(PAYLOADS):
        evil = {**state, "x": Payload(*payload)}
        files[f"evil{i}.pt"] = pickle.dumps(evil)
        torch.save(evil, folder / "evil.pt")
        files[f"evil{i}.zip.pt"] = (folder / "evil.pt").read_bytes()
    return state, files


def attempt_checkpoint(rng, folder, sound):
    state, files = sound
    name = pick(rng, list(files))
    path = folder / f"tried{name[name.index('.') :]}"
    data = files[name]
    path.write_bytes(data if rng.random() < 0.05 else bytes_mutated(rng, data))
    entry = BankEntry(
        "a",
        "skte.demo:small_unet",
        arguments={"widths": (2, 4)},
        weights=path,
        state_key="model" if name.startswith("nested") else None,
    )
    try:
        network = entry.load()
    except BankError:
        return "named error"
    finally:
        require(not Path("skte-ran").exists(), "a file ran code")
    found = network.state_dict()
    same = all(torch.equal(found[key], state[key]) for key in state)
    # Formats without checksums cannot tell: what is read is what stands there.
    require(same or not name.endswith("zip.pt"), "other weights than were saved, without a word")
    return "result" if same else "other weights, and a format without checksums"
