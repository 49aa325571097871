"""What a user's type checker sees of the public API."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
from skte import CCFV, BankEntry, FeatureBlock, FeatureSet, ModelBankSelector
from skte.demo import small_unet

selector: ModelBankSelector = ModelBankSelector(CCFV(), n_jobs=2, cache="features")
selector = selector.fit([BankEntry("a", small_unet)], "data")
best: str = selector.best_name_
names: list[str] = list(selector.ranking_)
first: float = float(selector.scores_[0])
score: float = CCFV(n_pairs=10).fit([[0.0, 1.0]], [1]).score()


def widths(features: FeatureSet) -> list[int]:
    blocks: list[FeatureBlock] = features.blocks()
    return [block.X.shape[1] for block in blocks]
"""
WRONG = """
from skte import CCFV, ModelBankSelector

ModelBankSelector(CCFV(), n_jobs="two")
number: int = ModelBankSelector(CCFV()).best_name_
"""


def check(folder: Path, text: str) -> tuple[int, str]:
    (folder / "user.py").write_text(text)
    (folder / "mypy.ini").write_text(
        "[mypy]\n[mypy-joblib.*,scipy.*,sklearn.*,torchio.*]\nignore_missing_imports = True\n"
        "follow_imports = skip\n"
    )
    command = [sys.executable, "-m", "mypy", "--strict", "user.py"]
    run = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    return run.returncode, run.stdout + run.stderr


def test_users_scripts_are_checked(tmp_path: Path) -> None:
    pytest.importorskip("mypy", reason="needs mypy: pip install 'skte[dev]'")
    code, said = check(tmp_path, SCRIPT)
    assert code == 0, said
    code, said = check(tmp_path, WRONG)
    assert code == 1
    assert 'Argument "n_jobs"' in said
    assert "Incompatible types in assignment" in said
