"""Doors of skte with something random at them. Each says what came of it, or raises.

`prepare(folder)` writes what is sound, once; `attempt(rng, folder, sound)` changes it and tries
it. It returns "result" where what came out is right, or "named error"; whatever else it
raises is a failure of skte's.
"""

import gzip
import json
import os
import pickle
import re
import subprocess
import warnings
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
import torch

from skte import ModelBank, estimators
from skte.bank import BankEntry
from skte.datasets import case_fingerprint, check_dataset, load_dataset, make_phantoms, read_case
from skte.demo import small_unet, write_msd
from skte.exceptions import BankError, DatasetError, SkteError
from skte.extraction import FeatureCache, make_key
from skte.features import CaseFeatures, LayerSample, pack_case
from tests.model_folders import write_nnunet
from tests.reliability.mutate import bytes_mutated, json_mutated, pick

SIZE = (12, 12, 10)


class Target(NamedTuple):
    """One door."""

    prepare: object
    attempt: object
    what: str


class WrongError(Exception):
    """Something came out that may not."""


def require(condition, what):
    if not condition:
        raise WrongError(what)


# The manifest


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


# Descriptions of datasets


def prepare_msd(folder):
    write_msd(folder / "data", make_phantoms(2, size=SIZE), "tiny")
    return json.loads((folder / "data" / "dataset.json").read_text())


def prepare_nnunet_raw(folder):
    root = folder / "data"
    for part in ("imagesTr", "labelsTr"):
        (root / part).mkdir(parents=True)
    for subject in make_phantoms(2, size=SIZE):
        subject["image"].save(root / "imagesTr" / f"{subject['case_id']}_0000.nii.gz")
        subject["label"].save(root / "labelsTr" / f"{subject['case_id']}.nii.gz")
    labels = {"background": 0, "organ": [1, 2], "lesion": 2, "ignore": 3}
    return {
        "channel_names": {"0": "CT"},
        "labels": labels,
        "regions_class_order": [1, 2],
        "numTraining": 2,
        "file_ending": ".nii.gz",
    }


def attempt_description(rng, folder, sound):
    (folder / "data" / "dataset.json").write_bytes(json_mutated(rng, sound))
    return read_all(folder / "data")


def read_all(folder):
    """Read a dataset as a ranking does, and require that what comes out can be worked with."""
    try:
        subjects = load_dataset(folder)
        problems = check_dataset(subjects)
        cases = [read_case(subject) for subject in subjects]
    except DatasetError:
        return "named error"
    for case in cases:
        require(torch.isfinite(case.image).all(), "an image that is not finite")
        require(np.isfinite(case.affine).all(), "an affine that is not finite")
        require(abs(np.linalg.det(case.affine[:3, :3])) > 0, "an affine without volume")
        require(case.image.shape[1:] == case.label.shape, "image and label of different shape")
    [case_fingerprint(subject) for subject in subjects]
    return "named error" if problems else "result"


# Models of nnU-Net


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


# The cache


def prepare_cache(folder):
    rng = np.random.default_rng(0)
    sample = LayerSample(rng.normal(size=(9, 3)), rng.integers(0, 2, 9), rng.normal(size=(4, 3)))
    cache, key = FeatureCache(folder / "cache"), make_key(a=1)
    cache.store(key, CaseFeatures("case", {"up": sample}, None, {"n": [1, 2.5, "x"]}))
    cache.store_record(key, {"layers": [["up", [1.0, 2.0], 4]], "n_axes": 3})
    kept = {path: path.read_bytes() for path in cache.root.rglob("*") if path.is_file()}
    return cache, key, kept, pack_case(cache.load(key)), cache.load_record(key)


def attempt_cache(rng, folder, sound):
    cache, key, kept, case, record = sound
    for path, data in kept.items():
        path.write_bytes(data)
    path = pick(rng, list(kept))
    path.write_bytes(bytes_mutated(rng, kept[path]))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            cache = FeatureCache(cache.root)
        except SkteError:
            return "named error"
        found, facts = cache.load(key), cache.load_record(key)
    require(found is None or pack_case(found) == case, "other features than were stored")
    require(facts is None or facts == record, "another record than was stored")
    if found is None or facts is None:
        require(len(caught) == 1, "a miss without a warning")
        return "named error"
    return "result"


# Checkpoints


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


# Images


FIELDS = {
    "dim": [np.array(shape, "i2") for shape in (
        [3, 12, 12, 10, 1, 1, 1, 1], [3, 32767, 32767, 32767, 1, 1, 1, 1],
        [7, 2, 2, 2, 2, 2, 2, 2], [3, -1, 12, 10, 1, 1, 1, 1], [3, 0, 12, 10, 1, 1, 1, 1],
        [0, 0, 0, 0, 0, 0, 0, 0], [2, 12, 120, 0, 0, 0, 0, 0], [3, 12, 12, 9, 1, 1, 1, 1],
        [3, 6, 24, 10, 1, 1, 1, 1], [-3, 12, 12, 10, 1, 1, 1, 1], [4, 12, 12, 5, 2, 1, 1, 1],
        [9, 9, 9, 9, 9, 9, 9, 9], [5, 12, 12, 10, 1, 1, 1, 1], [1, 1440, 1, 1, 1, 1, 1, 1],
    )],
    "pixdim": [np.array([q, a, b, c, 1, 1, 1, 1], "f4") for q, a, b, c in (
        (1, -1, 1, 1), (1, 0, 0, 0), (-1, 1, 1, 1), (1, np.nan, 1, 1), (1, np.inf, 1, 1),
        (1, 1e-30, 1, 1), (1, 1e30, 1e30, 1e30), (0, 1, 1, 1), (7, 1, 2, 3),
    )],
    "datatype": [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 768, 1024, 1536, 1792, 2048, 2304, -1],
    "bitpix": [0, 1, 8, 16, 32, 64, -8],
    "vox_offset": [0, 1, 348, 351, 352, 353, 400, 1e9, -352, np.nan, np.inf, 1e30],
    "scl_slope": [0, 1, -1, np.nan, np.inf, 1e30, 1e-30, 1e38],
    "scl_inter": [0, 1, np.nan, np.inf, 1e30, -1e38],
    "qform_code": [0, 1, 2, -1, 99],
    "sform_code": [0, 1, 2, -1, 99],
    "quatern_b": [0, 1, 2, np.nan, np.inf, -1e30],
    "qoffset_x": [0, np.nan, np.inf, 1e30],
    "srow_x": [np.array(row, "f4") for row in (
        [0, 0, 0, 0], [np.nan] * 4, [np.inf, 0, 0, 0], [1e-30, 0, 0, 0], [-1, 0, 0, 1e30],
        [1, 1, 1, 1], [0, 1, 0, 0],
    )],
    "srow_y": [np.array(row, "f4") for row in ([0, 0, 0, 0], [1, 0, 0, 0], [np.nan] * 4)],
    "sizeof_hdr": [0, 347, 348, 540, -1],
    "magic": [b"n+1", b"ni1", b"n+2", b"", b"abc"],
    "xyzt_units": [0, 2, 255],
    "intent_code": [0, 1007, -1],
}  # fmt: skip


def prepare_nifti(folder):
    write_msd(folder / "data", make_phantoms(2, size=SIZE), "tiny")
    kept = {}
    for path in (folder / "data").rglob("*.nii.gz"):
        kept[path] = gzip.decompress(path.read_bytes())
    return kept


def attempt_nifti(rng, folder, sound):
    path = pick(rng, sorted(sound))
    data = bytearray(sound[path])
    if rng.random() < 0.85:
        header = np.frombuffer(data[:348], nib.Nifti1Header.template_dtype).copy()
        for _ in range(int(rng.integers(1, 4))):
            name = pick(rng, list(FIELDS))
            header[name] = pick(rng, FIELDS[name])
        data[:348] = header.tobytes()
    else:
        data = bytes_mutated(rng, data)
    packed = gzip.compress(bytes(data), 1)
    path.write_bytes(bytes_mutated(rng, packed) if rng.random() < 0.1 else packed)
    try:
        return read_all(folder / "data")
    finally:
        path.write_bytes(gzip.compress(sound[path], 1))


# Arrays


ESTIMATORS = [name for name in estimators.__all__ if name != "TransferabilityEstimator"]
ODD = [
    None, 3, "text", [], [[]], {}, np.zeros((0, 3)), np.zeros((3, 0)), np.zeros(5),
    np.zeros((2, 2, 2)), np.array([[1, "a"]], dtype=object), np.array([["a", "b"]] * 9),
    np.full((9, 3), np.nan), np.full((9, 3), np.inf), np.full((9, 3), 1e308),
    np.full((9, 3), 1e-320), np.zeros((9, 3)), np.ones((9, 3), complex), np.ones((9, 3), bool),
    np.eye(9, 3, dtype="f2") * 60_000, np.ones((9, 3), "datetime64[s]"), np.ma.masked_all((9, 3)),
]  # fmt: skip


def prepare_arrays(folder):
    """Use every estimator once: libraries are loaded at the first use, and not by an input."""
    rng = np.random.default_rng(0)
    X = np.abs(rng.normal(size=(60, 3)))
    X /= X.sum(axis=1, keepdims=True)
    y, groups = rng.integers(0, 2, 60), rng.integers(0, 3, 60)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in ESTIMATORS:
            if name != "Ensemble":
                getattr(estimators, name)().fit(X, y, groups=groups)


def attempt_arrays(rng, folder, sound):
    estimator = getattr(estimators, pick(rng, ESTIMATORS))()
    n, d, k = (int(v) for v in (rng.integers(1, 60), rng.integers(1, 12), rng.integers(1, 5)))
    X = rng.normal(size=(n, d)) * 10.0 ** rng.integers(-160, 160)
    if rng.random() < 0.3:  # what estimators of the source head take
        X = np.abs(X) / np.abs(X).sum(axis=1, keepdims=True)
    y = rng.integers(-1, k, n).astype(pick(rng, ["i8", "i2", "f8", "u1", "O", "U"]))
    groups = pick(rng, [None, rng.integers(0, 4, n), np.arange(n).astype(str)])
    kind = rng.integers(9)
    if kind == 0:
        X = pick(rng, ODD)
    elif kind == 1:
        y = pick(rng, ODD)
    elif kind == 2:
        groups = pick(rng, ODD)
    elif kind == 3:
        X.flat[int(rng.integers(X.size))] = pick(rng, [np.nan, np.inf, -np.inf, 1e308, 0])
    elif kind == 4:
        y = y[: int(rng.integers(n + 1))]
    elif kind == 5:
        X = np.repeat(X[:1], n, axis=0)  # all alike
    elif kind == 6:
        X = X.astype(pick(rng, ["f2", "f4", "i4", "u1", "g", "O", ">f8"]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            fitted = estimator.fit(X, y, groups=groups)
            score = None if estimator.relative_to_bank else fitted.score()
        except (SkteError, ValueError, TypeError) as error:
            require(len(str(error)) > 15, f"an error that says nothing: {error!r}")
            require(
                not re.match(r"array must not contain|SVD did|operands", str(error)), str(error)
            )
            return "named error"
    if estimator.relative_to_bank:
        return "result"
    require(isinstance(score, float), f"{score!r} is no number")
    require(score == score and score != np.inf, f"{type(estimator).__name__} scores {score}")
    return "result"


TARGETS = {
    "manifest": Target(prepare_manifest, attempt_manifest, "manifests of banks, loaded"),
    "msd": Target(prepare_msd, attempt_description, "`dataset.json` of the Decathlon"),
    "nnunet_raw": Target(prepare_nnunet_raw, attempt_description, "`dataset.json` of nnU-Net"),
    "plans": Target(prepare_plans, attempt_plans, "`plans.json` of nnU-Net's models, built"),
    "cache": Target(prepare_cache, attempt_cache, "files of a cache"),
    "checkpoint": Target(prepare_checkpoint, attempt_checkpoint, "checkpoints, some with code"),
    "nifti": Target(prepare_nifti, attempt_nifti, "NIfTI headers and bytes"),
    "arrays": Target(prepare_arrays, attempt_arrays, "arrays at the estimators"),
}
