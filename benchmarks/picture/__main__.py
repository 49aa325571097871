"""Draw README's picture from a result file of the evidence study.

python -m benchmarks.picture
"""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.picture._draw import draw_picture

ROOT = Path(__file__).resolve().parents[2]
# The study's first target, whatever came out.
RESULT = ROOT / "benchmarks" / "evidence" / "results" / "Heart_ACDC.json"
PICTURE = ROOT / "docs" / "images" / "ranking.svg"


def main() -> None:
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    PICTURE.write_text(draw_picture(json.loads(RESULT.read_text())), encoding="utf-8")
    print(PICTURE.relative_to(ROOT))


if __name__ == "__main__":
    main()
