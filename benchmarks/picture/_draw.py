"""A ranking beside what fine-tuning reached, as SVG text.

Written by hand: the same file comes out with every version of every library, so a test can hold
the picture to its result file.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.evidence._judging import Target
from skte.metrics import weighted_kendall_test

__all__ = ["draw_picture"]

Array = NDArray[np.float64]
_WIDTH, _ROW, _TOP, _FOOT = 860, 19, 84, 52
_NAMES, _SCORES, _DICE = 250, (270, 550), (590, 840)
_BLUE, _ORANGE, _GREY = "#0072B2", "#D55E00", "#767676"
_STEP = {"score": 0.1, "Dice": 0.1}
_STYLE = (
    "text{font:12px Helvetica,Arial,sans-serif;fill:#222}"
    ".head{font-weight:bold;font-size:14px}.note{fill:#555}.right{text-anchor:end}"
    ".mid{text-anchor:middle}"
)


def draw_picture(target: Target, score: str) -> str:
    """Draw the models of one target, best score on top."""
    scores, dice = np.array(target.scores[score]), target.dice
    order = np.argsort(-scores, kind="stable")
    low, high = _limits(scores, "score")
    score_x = _scale(low, high, _SCORES)
    runs = np.concatenate([np.array(found) for found in target.runs])
    ends = _limits(runs, "Dice")
    dice_x = _scale(*ends, _DICE)

    height = _TOP + _ROW * len(scores) + _FOOT
    lines = [*_head(target, scores, height)]
    lines += _axis(low, high, "score", score_x, height, score.split(",")[0])
    lines += _axis(*ends, "Dice", dice_x, height, "Dice after fine-tuning: runs, mean")
    for row, i in enumerate(order):
        y = _TOP + _ROW * row + _ROW // 2
        name = escape(target.models[i].replace("-", " ").replace("_", " "))
        lines.append(f'<text class="right" x="{_NAMES}" y="{y + 4}">{row + 1}. {name}</text>')
        lines.append(_dot(score_x(scores[i]), y, 4, _BLUE))
        lines += [_line(dice_x(v), dice_x(v), y - 4, y + 4, _GREY, 1) for v in target.runs[i]]
        lines.append(_dot(dice_x(float(dice[i])), y, 4, _ORANGE))
    return "\n".join([*lines, "</svg>", ""])


def _head(target: Target, scores: Array, height: int) -> list[str]:
    dice = target.dice
    found = weighted_kendall_test(dice, scores)
    reached, best, middle = dice[np.argmax(scores)], dice.max(), np.median(dice)
    title = (
        f"{len(dice)} networks ranked for {target.name} without training, "
        "and what fine-tuning reached"
    )
    numbers = (
        f"weighted Kendall {found.statistic:.2f} (p = {found.pvalue:.2g}). "
        f"First choice: Dice {reached:.2f}; best {best:.2f}, median {middle:.2f}."
    )
    return [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" '
        f'width="{_WIDTH}" height="{height}" role="img" aria-labelledby="t d">',
        f'<title id="t">{escape(title)}</title><desc id="d">{escape(numbers)}</desc>',
        f"<style>{_STYLE}</style>",
        f'<rect width="{_WIDTH}" height="{height}" fill="#fff"/>',
        f'<text class="head" x="16" y="26">{escape(title)}</text>',
        f'<text x="16" y="46">{escape(numbers)}</text>',
    ]


def _axis(low: float, high: float, kind: str, x: Any, height: int, title: str) -> list[str]:
    bottom = height - _FOOT
    lines = [f'<text class="note mid" x="{(x(low) + x(high)) / 2:.1f}" y="72">{title}</text>']
    for k in range(round((high - low) / _STEP[kind]) + 1):
        value = low + k * _STEP[kind]
        lines.append(_line(x(value), x(value), _TOP, bottom, "#e4e4e4", 1))
        lines.append(
            f'<text class="note mid" x="{x(value):.1f}" y="{bottom + 16}">{value:.1f}</text>'
        )
    middle = (x(low) + x(high)) / 2
    lines.append(
        f'<text class="note mid" x="{middle:.1f}" y="{bottom + 34}">higher is better</text>'
    )
    return lines


def _limits(values: Array, kind: str) -> tuple[float, float]:
    """Whole steps around the values."""
    step = _STEP[kind]
    return float(np.floor(values.min() / step) * step), float(np.ceil(values.max() / step) * step)


def _scale(low: float, high: float, span: Sequence[int]) -> Any:
    return lambda value: span[0] + (value - low) / (high - low) * (span[1] - span[0])


def _line(x1: float, x2: float, y1: float, y2: float, color: str, width: float) -> str:
    return (
        f'<line x1="{x1:.1f}" x2="{x2:.1f}" y1="{y1:.1f}" y2="{y2:.1f}" '
        f'stroke="{color}" stroke-width="{width}"/>'
    )


def _dot(x: float, y: float, r: float, color: str) -> str:
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{r}" fill="{color}"/>'
