"""Draw README's picture from a result file of the evidence study.

python -m benchmarks.picture
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.evidence._judging import Target
from benchmarks.evidence._report import RESULTS, read_results
from benchmarks.evidence._tasks import BANKS
from benchmarks.picture._draw import draw_picture

ROOT = Path(__file__).resolve().parents[2]
# The study's first target, whatever came out, and the score that ranks by default.
TARGET = BANKS["ladder"].targets[0]
SCORE = "CrossCaseProbe, threshold|all"
PICTURE = ROOT / "docs" / "images" / "ranking.svg"


def target() -> Target:
    """Read the target that is drawn."""
    return next(one for one in read_results(RESULTS, "ladder") if one.name == TARGET)


def main() -> None:
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    PICTURE.write_text(draw_picture(target(), SCORE), encoding="utf-8")
    print(PICTURE.relative_to(ROOT))


if __name__ == "__main__":
    main()
