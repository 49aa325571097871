"""Fixed runs through the public doors of skte."""

from __future__ import annotations

import csv
import importlib
import inspect
import io
import json
import pkgutil
import warnings
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import skte
from benchmarks.golden._models import write_folder, write_manifest
from benchmarks.golden._record import Record
from skte import BankEntry, ModelBankSelector, SegmentationFeatureExtractor, estimators
from skte.cli import main
from skte.datasets import load_msd, make_phantoms
from skte.demo import write_msd

__all__ = ["SITUATIONS", "Place"]

_HIPPOCAMPUS, _SLICES = "Task04_Hippocampus", "EM_ISBI_2D"
_SMALL = {"n_class_samples": 120, "n_case_samples": 120}
_PLANS: dict[str, dict[str, Any]] = {
    "grid": {},
    "one window": {"window_size": 28, "overlap": 0.0},
    "roi": {"samples": "roi"},
    "foreground": {"samples": "foreground"},
    "batches": {"batch_size": 3},
    "no head": {"source_head": False},
    "seed": {"random_state": 7},
    "few": {"n_class_samples": 60, "n_case_samples": 30},
}


@dataclass(frozen=True)
class Place:
    """Folders to write to and to read from."""

    folder: Path
    data: Path

    def phantoms(self) -> Path:
        """Folder of 3-D phantoms with three classes."""
        folder = self.folder / "phantoms"
        if not folder.exists():
            write_msd(folder, make_phantoms(6, size=(28, 28, 20), n_classes=3), "phantoms")
        return folder

    def manifest(self) -> Path:
        """Manifest of four networks for the phantoms."""
        folder = self.folder / "bank"
        if (folder / "bank.json").exists():
            return folder / "bank.json"
        return write_manifest(folder, n_axes=3, n_classes=3, preprocessing=["ZNormalization"])

    def real(self, name: str, n_cases: int) -> Path:
        """Folder with the first cases of a dataset of real images."""
        folder = self.folder / name
        if not folder.exists():
            folder.mkdir()
            about = json.loads((self.data / name / "dataset.json").read_text())
            about["training"] = about["training"][:n_cases]
            about["numTraining"], about["numTest"], about["test"] = n_cases, 0, []
            for pair in about["training"]:
                for file in pair.values():
                    target = folder / file
                    target.parent.mkdir(exist_ok=True)
                    target.write_bytes((self.data / name / file).read_bytes())
            (folder / "dataset.json").write_text(json.dumps(about))
        return folder


def door(name: str) -> Any:
    """Find a public name in whatever room of skte it is."""
    rooms = [f"skte.{room.name}" for room in pkgutil.iter_modules(skte.__path__)]
    for room in ["skte", *(room for room in rooms if not room.startswith("skte._"))]:
        module = importlib.import_module(room)
        if name in getattr(module, "__all__", ()):
            return getattr(module, name)
    raise SystemExit(f"skte has no public {name}")


def extractor(**params: Any) -> SegmentationFeatureExtractor:
    """Make an extractor with settings that keep runs short."""
    return SegmentationFeatureExtractor(**{"window_size": 16, **_SMALL, **params})


def every_estimator() -> dict[str, Any]:
    """Return an estimator of each kind, with its defaults."""
    names = [name for name in estimators.__all__ if name != "TransferabilityEstimator"]
    return {name: getattr(estimators, name)() for name in names}


def phantoms(record: Record, place: Place) -> None:
    """All estimators on one bank, with intervals."""
    selector = ModelBankSelector(
        every_estimator(), extractor=extractor(), confidence_level=0.9, n_resamples=200
    )
    keep_selector(record, "jackknife", selector.fit(place.manifest(), place.phantoms()))
    score = ModelBankSelector(skte.LogME(), extractor=extractor())
    score.fit(place.manifest(), place.phantoms())
    record.value("predict", score.predict(place.manifest()))
    record.value("score", score.score(place.manifest(), [0.5, 0.7, 0.6, 0.4]))


def failures(record: Record, place: Place) -> None:
    """A bank with a broken model."""
    bank = [*skte.ModelBank.from_manifest(place.manifest())]
    bank.append(BankEntry("broken", "skte.demo:small_unet", arguments={"spatial_dims": 2}))
    selector = ModelBankSelector(skte.CCFV(), extractor=extractor(), error_score=np.nan)
    keep_selector(record, "ranked", selector.fit(bank, place.phantoms()))


def plans(record: Record, place: Place) -> None:
    """Features of one model under each plan of windows and voxels."""
    entry = next(iter(skte.ModelBank.from_manifest(place.manifest())))
    cases = load_msd(place.phantoms())[:2]
    known = inspect.signature(SegmentationFeatureExtractor).parameters
    for name, params in _PLANS.items():
        if set(params) <= set(known):
            features = extractor(entry=entry, **params).fit_transform(cases)
            keep_features(record, name, features)
            record.value(f"{name}/LogME", skte.LogME().fit(features).score_)


def alone(record: Record, place: Place) -> None:
    """Estimators on features and on arrays, without a selector."""
    entry = next(iter(skte.ModelBank.from_manifest(place.manifest())))
    features = extractor(entry=entry).fit_transform(load_msd(place.phantoms())[:4])
    layer = next(iter(features[0].layers))
    X = np.concatenate([case.layers[layer].X for case in features])
    y = np.concatenate([case.layers[layer].y for case in features])
    groups = np.repeat(np.arange(len(features)), [len(case.layers[layer].y) for case in features])
    for name, estimator in every_estimator().items():
        if name == "Ensemble":  # it scores banks
            continue
        record.value(f"features/{name}", estimator.fit(features).score_)
        if hasattr(estimator, "diagnose"):
            record.value(f"diagnose/{name}", estimator.diagnose())
        if name not in ("LEEP", "NCE"):  # they score what the source head says
            record.value(f"arrays/{name}", estimator.fit(X, y, groups=groups).score_)


def hippocampus(record: Record, place: Place) -> None:
    """A bank of nnU-Net, MONAI and a manifest, on real volumes, in Python and the shell."""
    data = place.real(_HIPPOCAMPUS, 4)
    bank = write_folder(place.folder / "mixed", n_classes=3)
    some = {"ccfv": skte.CCFV(), "logme": skte.LogME(), "leep": skte.LEEP()}
    selector = ModelBankSelector(some, extractor=extractor(window_size=None), confidence_level=0.9)
    selector.fit(skte.ModelBank.from_folder(bank), data)
    keep_selector(record, "python", selector)
    for entry in skte.ModelBank.from_folder(bank):
        one = extractor(entry=entry, window_size=None).fit_transform(load_msd(data)[:2])
        keep_features(record, entry.name, one)
    shell(record, "bank list", "bank", "list", bank)
    shell(record, "inspect", "inspect", data)
    shell(record, "inspect bank", "inspect", "--bank", bank)
    for ending in ("csv", "json"):
        out = place.folder / f"out.{ending}"
        command = ["rank", "--bank", bank, "--data", data]
        command += ["--estimator", "ccfv", "--estimator", "logme"]
        shell(record, f"rank {ending}", *command, "--confidence", "0.9", "--out", out)
        keep_rows(record, f"rank {ending}/file", out)
    pages(record, place, selector)


def slices(record: Record, place: Place) -> None:
    """Real images in two dimensions."""
    data = place.real(_SLICES, 5)
    bank = write_manifest(
        place.folder / "bank2d", n_axes=2, n_classes=2, preprocessing=["ZNormalization"]
    )
    some = {"ccfv": skte.CCFV(), "rcfv": skte.RCFV(), "knn": skte.KNN()}
    selector = ModelBankSelector(some, extractor=extractor(window_size=64)).fit(bank, data)
    keep_selector(record, "ranked", selector)
    entry = next(iter(skte.ModelBank.from_manifest(bank)))
    for name in ("grid", "roi", "foreground"):
        one = extractor(entry=entry, **{"window_size": 64, **_PLANS[name]})
        keep_features(record, name, one.fit_transform(load_msd(data)[:2]))
    shell(record, "inspect", "inspect", data, "--bank", bank)


def cache(record: Record, place: Place) -> None:
    """Keys of cached features, and that a second run runs nothing."""
    folder = place.folder / "cache"
    for run in ("first", "second"):
        selector = ModelBankSelector(skte.CCFV(), extractor=extractor(), cache=folder)
        selector.fit(place.manifest(), place.phantoms())
        keep_selector(record, run, selector)
    other = ModelBankSelector(skte.LogME(), extractor=extractor(), cache=folder)
    keep_selector(record, "other", other.fit(place.manifest(), place.phantoms()))
    files = sorted(file for file in folder.rglob("*") if file.is_file() and len(file.stem) == 64)
    record.keys("files", [file.stem[:16] + file.suffix for file in files])
    bank = skte.ModelBank.from_manifest(place.manifest())
    digests = [str(door("entry_digest")(entry))[:16] for entry in bank]
    record.keys("entries", digests)
    mixed = place.folder / "mixed"
    if mixed.exists():
        found = skte.ModelBank.from_folder(mixed)
        record.keys("mixed", [str(door("entry_digest")(entry))[:16] for entry in found])


def judged(record: Record, place: Place) -> None:
    """A race, a learning curve, an evaluation and a comparison."""
    bank, data, few = place.manifest(), place.phantoms(), extractor()
    for elimination in ("both", "halving"):
        race = door("HalvingModelBankSelector")(
            skte.CCFV(), extractor=few, min_cases=3, elimination=elimination
        ).fit(bank, data)
        for name in ("n_resources_", "n_candidates_", "cost_", "rung_results_", "ranks_"):
            record.value(f"race {elimination}/{name}", getattr(race, name))
        record.text(f"race {elimination}/ranking", repr(race.ranking_))
    curve = door("rank_learning_curve")(skte.LogME(), bank, data, n_draws=10, extractor=few)
    record.value("curve", curve)
    record.text("curve/shown", str(curve))
    names = [entry.name for entry in skte.ModelBank.from_manifest(bank)]
    performance = dict(zip(names, (0.61, 0.55, 0.72, 0.7), strict=True))
    scores = {"a": [1.0, 2.0, 3.0, 2.5], "b": [-1.0, -3.0, -2.0, -2.5]}
    card = door("evaluate_ranking")(
        scores, performance=performance, names=names, size=[1.0, 2.0, 3.0, 4.0], n_resamples=200
    )
    record.value("card", card)
    record.text("card/shown", str(card))
    selector = skte.ModelBankSelector(
        {"ccfv": skte.CCFV(), "logme": skte.LogME()}, extractor=few, reference=False
    ).fit(bank, data)
    compared = door("compare_scores")(
        {"target": selector}, performance={"target": performance}, n_resamples=200
    )
    record.value("compared", compared)
    record.text("compared/shown", str(compared))


def pages(record: Record, place: Place, selector: Any) -> None:
    """The report, with all seconds zero."""
    for name, column in selector.results_.items():
        if name.startswith("seconds"):
            column[:] = 0.0
    page = place.folder / "page.html"
    door("write_report")(selector, page, n_cases=2)
    record.page("report", page.read_text("utf-8"))


def keep_selector(record: Record, path: str, selector: Any) -> None:
    """Keep a fitted selector's table and answer."""
    record.value(f"{path}/results", selector.results_)
    record.value(f"{path}/ranks", selector.ranks_)
    record.value(f"{path}/order", list(selector.ranking_))
    record.text(f"{path}/ranking", repr(selector.ranking_))


def keep_features(record: Record, path: str, features: Any) -> None:
    """Keep every array of a set of features."""
    for case in features:
        record.value(f"{path}/{case.case_id}", case)


def keep_rows(record: Record, path: str, file: Path) -> None:
    """Keep a result file without its seconds."""
    if file.suffix == ".json":
        record.value(path, json.loads(file.read_text()))
        return
    with file.open(newline="") as lines_of_file:
        header, *rows = csv.reader(lines_of_file)
    kept = [i for i, name in enumerate(header) if not name.startswith("seconds")]
    lines = [" | ".join(row[i] for i in kept if i < len(row)) for row in [header, *rows]]
    record.text(path, "\n".join(lines))


def shell(record: Record, path: str, *arguments: Any) -> None:
    """Run a command, and keep what it prints and returns."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = main([str(argument) for argument in arguments])
    record.value(f"{path}/code", code)
    record.text(f"{path}/stdout", out.getvalue())
    record.text(f"{path}/stderr", err.getvalue())


def with_warnings(run: Callable[[Record, Place], None]) -> Callable[[Record, Place], None]:
    """Keep the warnings of a situation as words."""

    def watched(record: Record, place: Place) -> None:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            run(record, place)
        messages = [str(w.message) for w in caught if issubclass(w.category, UserWarning)]
        record.text("warnings", "\n".join(sorted(set(messages))))

    return watched


#: What is run, in this order: later ones use files that earlier ones wrote.
SITUATIONS: dict[str, Callable[[Record, Place], None]] = {
    run.__name__: with_warnings(run)
    for run in (phantoms, failures, plans, alone, hippocampus, slices, cache, judged)
}
