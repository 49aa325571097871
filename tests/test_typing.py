"""What a user's type checker sees of the public API."""

import subprocess
import sys
from pathlib import Path

import pytest

# `assert_type` where a value has no annotation of its own: to one, Any would do.
SCRIPT = """
from typing import assert_type

import numpy as np
from sklearn.pipeline import Pipeline
from torch import nn

from skte import (
    CCFV,
    GBC,
    BankEntry,
    FeatureBlock,
    FeatureSet,
    LogME,
    ModelBank,
    ModelBankSelector,
    SegmentationFeatureExtractor,
    TransferabilityEstimator,
    weighted_kendall_score,
)
from skte.bank import BankLike
from skte.datasets import (
    CaseList,
    DatasetLike,
    DatasetReport,
    inspect_dataset,
    load_dataset,
    make_phantoms,
)
from skte.demo import small_unet
from skte.estimators import Diagnosis
from skte.evaluation import evaluate_ranking
from skte.report import RankingDisplay, StabilityDisplay, write_report, write_results
from skte.selection import BankConfidence, HalvingModelBankSelector, Ranking

# Estimators on arrays.
X, y = np.zeros((4, 3)), np.array([0, 0, 1, 1])
score: float = CCFV(s=2.0).fit(X, y, groups=[0, 1, 0, 1]).score()
score = LogME().score(X, y)
score = GBC(log=True).fit([[0.0, 1.0]], [1]).score()
assert_type(CCFV().fit(X, y), CCFV)
assert_type(CCFV().fit(X, y).score(), float)
estimators: dict[str, TransferabilityEstimator] = {"ccfv": CCFV(), "logme": LogME()}

# Datasets.
cases: CaseList = make_phantoms(4, size=(16, 16, 16))
merged: CaseList = load_dataset("folder", labels={"ventricle": ["LV", "RV"]})[:2]
report: DatasetReport = inspect_dataset(cases)
problems: list[str] = [problem.what for problem in report.problems]

# Banks.
entry = BankEntry("a", small_unet, weights="a.pt", window_size=(32, 32, 32))
bank = ModelBank([entry, BankEntry.from_module("b", nn.Conv3d(1, 2, 1))])
found: ModelBank = ModelBank.from_folder("models")
same: BankEntry = bank["a"]

# Ranking.
selector: ModelBankSelector = ModelBankSelector(
    estimators, n_jobs=2, cache="features", confidence_level=0.9
)
selector = selector.fit(bank, cases)
selector = selector.fit({"a": nn.Conv3d(1, 2, 1)}, "folder")
ranking: Ranking = selector.ranking_
best: str = selector.best_name_
assert_type(ModelBankSelector(CCFV()).fit(bank, cases), ModelBankSelector)
assert_type(selector.fit("models", "folder").ranking_, Ranking)
assert_type(HalvingModelBankSelector(CCFV()).fit(bank, cases).ranking_, Ranking)
names: list[str] = list(ranking)
first: str = ranking[0]
number: float = float(selector.scores_[0])
confidence: BankConfidence | None = selector.confidence_
tau: float = selector.score(bank, {"a": 0.5, "b": 0.75})


def rank_all(bank: BankLike, dataset: DatasetLike) -> list[str]:
    return list(ModelBankSelector(CCFV()).fit(bank, dataset).ranking_)


rank_all({"a": nn.Conv3d(1, 2, 1), "b": entry}, [{"image": X, "label": y}])
rank_all([entry], [cases[0]])
raced: str = HalvingModelBankSelector(CCFV()).fit(bank, cases).best_name_
tau = weighted_kendall_score([1.0, 2.0], [0.1, 0.2])
card = evaluate_ranking({"ccfv": {"a": 1.0, "b": 2.0}}, performance={"a": 0.5, "b": 0.75})

# Features.
extractor = SegmentationFeatureExtractor(entry, samples="roi")
assert_type(extractor.fit(cases), SegmentationFeatureExtractor)
features = extractor.fit_transform(cases)
assert_type(features, FeatureSet)
assert_type(CCFV().fit(features).diagnose(), Diagnosis)
blocks: list[FeatureBlock] = features.blocks()
widths: list[int] = [block.X.shape[1] for block in blocks]
pipeline = Pipeline([("features", extractor), ("score", CCFV())])

# Results.
display: RankingDisplay = RankingDisplay.from_selector(selector)
if confidence is not None:
    sure: bool = confidence.told_apart("a", "b")
    StabilityDisplay(confidence).plot()
write_report(selector, "ranking.html")
write_results(selector.results_, "ranking.csv")
"""
WRONG = """
from skte import CCFV, ModelBank, ModelBankSelector
from skte.datasets import load_dataset

ModelBankSelector(CCFV(), n_jobs="two")
number: int = ModelBankSelector(CCFV()).best_name_
load_dataset("folder", layuot="msd")
score: str = CCFV().score([[1.0]], [1])
wrong: int = ModelBankSelector(CCFV()).fit("models", "folder").best_name_
CCFV().fit([[1.0]], [1], grups=[0])
ModelBankSelector(CCFV()).fit("models")
ModelBankSelector(CCFV()).fit({"a": 0.5}, "folder")
ModelBankSelector(CCFV()).fit("models", ModelBank.from_folder("models"))
from skte import CCVF
"""


# What skte's signatures are not made of, and mypy would read for most of its time.
OF_TORCH = """_decomp _dynamo _export _functorch _inductor _library _prims _refs _subclasses ao
compiler cuda distributed export func fx jit library masked nested onnx optim sparse testing"""
SKIPPED = [
    *("joblib", "matplotlib", "nibabel", "pandas", "scipy", "SimpleITK", "sklearn", "torchio"),
    *(f"torch.{name}" for name in OF_TORCH.split()),
]


def check(folder: Path) -> tuple[int, str]:
    (folder / "user.py").write_text(SCRIPT)
    (folder / "wrong.py").write_text(WRONG)
    skipped = ",".join(f"{name}.*" for name in SKIPPED)
    (folder / "mypy.ini").write_text(
        f"[mypy]\n[mypy-{skipped}]\nignore_missing_imports = True\nfollow_imports = skip\n"
    )
    command = [sys.executable, "-m", "mypy", "--strict", "user.py", "wrong.py"]
    run = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    return run.returncode, run.stdout + run.stderr


@pytest.mark.slow
def test_users_scripts_are_checked(tmp_path: Path) -> None:
    pytest.importorskip("mypy", reason="needs mypy: pip install 'skte[dev]'")
    code, said = check(tmp_path)
    assert "user.py" not in said, said
    assert code == 1
    assert "Found 10 errors in 1 file (checked 2 source files)" in said
    assert 'Argument "n_jobs"' in said
    assert 'Module "skte" has no attribute "CCVF"' in said
    assert said.count("Incompatible types in assignment") == 3
    assert 'Unexpected keyword argument "layuot"' in said
    assert 'Unexpected keyword argument "grups"' in said
    assert 'Missing positional argument "dataset"' in said
    assert 'Dict entry 0 has incompatible type "str": "float"' in said
    assert 'Argument 2 to "fit" of "ModelBankSelector"' in said
