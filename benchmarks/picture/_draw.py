"""A ranking with its confidence beside what fine-tuning reached, as SVG text.

Written by hand: the same file comes out with every version of every library, so a test can hold
the picture to its result file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t

from skte.metrics import weighted_kendall_test

__all__ = ["draw_picture"]

Array = NDArray[np.float64]
_WIDTH, _ROW, _TOP, _FOOT = 860, 19, 84, 52
_NAMES, _SCORES, _DICE = 250, (270, 550), (590, 840)
_BLUE, _ORANGE, _GREY = "#0072B2", "#D55E00", "#767676"
_LEVEL, _STEP = 0.9, {"score": 0.5, "Dice": 0.1}
_STYLE = (
    "text{font:12px Helvetica,Arial,sans-serif;fill:#222}"
    ".head{font-weight:bold;font-size:14px}.note{fill:#555}.right{text-anchor:end}"
    ".mid{text-anchor:middle}"
)


def draw_picture(result: Mapping[str, Any], estimator: str = "CCFV") -> str:
    """Draw the models of one target, best score on top."""
    names = [model["name"] for model in result["models"]]
    scores = np.array(result["scores"][estimator]["scores"], dtype=float)
    errors = _jackknife(np.array(result["scores"][estimator]["left_out"], dtype=float))
    n_cases = len(result["scores"][estimator]["left_out"])
    half = t.ppf(0.5 + _LEVEL / 2, n_cases - 1) * errors
    dice = np.array([np.mean(model["dice"], axis=1) for model in result["models"]])
    order = np.argsort(-scores, kind="stable")
    finite = np.isfinite(scores)
    low, high = _limits(scores[finite] - half[finite], scores[finite] + half[finite], "score")
    score_x = _scale(low, high, _SCORES)
    ends = _limits(dice, dice, "Dice")
    dice_x = _scale(*ends, _DICE)

    height = _TOP + _ROW * len(names) + _FOOT
    lines = [*_head(result, scores, dice.mean(axis=1), height)]
    lines += _axis(low, high, "score", score_x, height, f"{estimator} score, {_LEVEL:.0%} interval")
    lines += _axis(*ends, "Dice", dice_x, height, "Dice after fine-tuning: seeds, mean")
    for row, i in enumerate(order):
        y = _TOP + _ROW * row + _ROW // 2
        lines.append(
            f'<text class="right" x="{_NAMES}" y="{y + 4}">{row + 1}. {_label(names[i])}</text>'
        )
        if finite[i]:
            ends_x = score_x(max(scores[i] - half[i], low)), score_x(min(scores[i] + half[i], high))
            lines.append(_line(*ends_x, y, y, _GREY, 1.5))
            lines.append(_dot(score_x(scores[i]), y, 4, _BLUE))
        else:
            lines.append(f'<text class="note" x="{_SCORES[0]}" y="{y + 4}">collapsed</text>')
        lines += [_line(dice_x(v), dice_x(v), y - 4, y + 4, _GREY, 1) for v in dice[i]]
        lines.append(_dot(dice_x(float(dice[i].mean())), y, 4, _ORANGE))
    return "\n".join([*lines, "</svg>", ""])


def _jackknife(left_out: Array) -> Array:
    n = len(left_out)
    with np.errstate(invalid="ignore"):  # a collapsed model has no finite score
        return np.asarray(np.sqrt((n - 1) / n * ((left_out - left_out.mean(axis=0)) ** 2).sum(0)))


def _head(result: Mapping[str, Any], scores: Array, dice: Array, height: int) -> list[str]:
    found = weighted_kendall_test(dice, scores)
    reached, best, middle = dice[np.argmax(scores)], dice.max(), np.median(dice)
    title = (
        f"{len(dice)} networks ranked for {result['target']} without training, "
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


def _limits(low: Array, high: Array, kind: str) -> tuple[float, float]:
    """Whole steps around the values."""
    step = _STEP[kind]
    return float(np.floor(low.min() / step) * step), float(np.ceil(high.max() / step) * step)


def _scale(low: float, high: float, span: Sequence[int]) -> Any:
    return lambda value: span[0] + (value - low) / (high - low) * (span[1] - span[0])


def _label(name: str) -> str:
    source, what = name.removeprefix("Task04_").split("__")
    return escape(f"{'untrained' if source == 'none' else source} · {what.replace('_', ' ')}")


def _line(x1: float, x2: float, y1: float, y2: float, color: str, width: float) -> str:
    return (
        f'<line x1="{x1:.1f}" x2="{x2:.1f}" y1="{y1:.1f}" y2="{y2:.1f}" '
        f'stroke="{color}" stroke-width="{width}"/>'
    )


def _dot(x: float, y: float, r: float, color: str) -> str:
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{r}" fill="{color}"/>'
