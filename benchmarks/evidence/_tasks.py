"""What the study holds: data sets and their splits, tasks, the models of each target."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

__all__ = [
    "DATASETS",
    "LADDER",
    "N_RUNS",
    "OTHER_SUPPORTS",
    "SUPPORT",
    "TASKS",
    "Dataset",
    "Model",
    "Task",
    "models_of",
    "recipe",
    "targets",
]

N_RUNS = 2
#: Labelled cases that a target gives, and the seed of everything that is drawn.
SUPPORT = 5
OTHER_SUPPORTS = (3, 10)
SEED = 20261130
#: Steps of a full pre-training; a tenth of it is the weak version of every source.
FULL, TENTH = 240, 24
#: Steps of the rungs of a close source; 240 and 24 are its full and weak versions.
LADDER = (24, 48, 96, 160, 240)


@dataclass(frozen=True)
class Dataset:
    """A folder of real images, cut into 64 x 64 slices or tiles.

    ``split`` counts the groups (persons, images, sections) of source, support and test
    parts; the rest goes to the test part. ``in_runs`` keeps neighbouring groups together
    and leaves one out between parts, for sections of one block.
    """

    folder: str
    split: tuple[int, int]
    group: Callable[[str], str] = str
    axis: int = 2
    tiled: bool = False
    in_runs: bool = False
    crop: int | None = None
    prefix: str = ""


@dataclass(frozen=True)
class Task:
    """Foreground against background: some labels of a data set."""

    name: str
    dataset: str
    labels: tuple[int, ...]
    family: str
    sibling: str = ""  # the close source of its ladder; without one it is only a source


def _middle(name: str) -> str:
    return name.split("_")[1]


DATASETS = {
    "acdc": Dataset("Heart_ACDC", (20, 15)),
    "sunnybrook": Dataset("LeftVentricle_2D", (20, 8), in_runs=True),
    "atrium": Dataset("LeftAtrium", (20, 15)),
    "spine_t1": Dataset("Spine_T1", (18, 12)),
    "spine_t2": Dataset("Spine_T2", (5, 5), prefix="vb2_"),
    "headneck": Dataset("HeadNeck_CT", (25, 10)),
    "larynx": Dataset("HeadNeck_Larynx", (20, 10), crop=40),
    "drive": Dataset("Fundus_DRIVE_2D", (15, 10), group=_middle, tiled=True),
    "chase": Dataset("Fundus_CHASE_2D", (5, 5), group=lambda name: _middle(name)[:2], tiled=True),
    "vnc": Dataset("EM_VNC_2D", (8, 4), group=_middle, tiled=True, in_runs=True),
    "isbi": Dataset("EM_ISBI_2D", (12, 4), group=_middle, tiled=True, in_runs=True),
    "hippocampus": Dataset("Task04_Hippocampus", (80, 20), axis=0),
}

TASKS = {
    task.name: task
    for task in (
        Task("acdc_lv", "acdc", (3,), "heart", "sunnybrook_lv"),
        Task("sunnybrook_lv", "sunnybrook", (1,), "heart", "acdc_lv"),
        Task("drive", "drive", (1,), "fundus", "chase"),
        Task("chase", "chase", (1,), "fundus", "drive"),
        Task("spine_t1", "spine_t1", (1, 2, 3, 4, 5), "spine", "spine_t2"),
        Task("spine_t2", "spine_t2", (1,), "spine", "spine_t1"),
        Task("vnc", "vnc", (1,), "membrane", "isbi"),
        Task("isbi", "isbi", (1,), "membrane", "vnc"),
        Task("mandible", "headneck", (5,), "head-neck", "parotids"),
        Task("hippo_anterior", "hippocampus", (1,), "hippocampus", "hippo_posterior"),
        Task("parotids", "headneck", (3, 4), "head-neck", "mandible"),
        Task("atrium", "atrium", (1,), "heart", "acdc_lv"),
        Task("hippo_posterior", "hippocampus", (2,), "hippocampus", "hippo_anterior"),
        Task("acdc_rv", "acdc", (1,), "heart", "acdc_lv"),
        Task("larynx", "larynx", (1,), "head-neck", "parotids"),
    )
}
#: Two mixtures, so that no target meets its own task in the one it gets.
MIXTURES = {
    "mixture_a": (
        "sunnybrook_lv", "atrium", "spine_t1", "chase", "isbi", "parotids", "larynx",
        "hippo_posterior",
    ),
    "mixture_b": (
        "acdc_lv", "acdc_rv", "spine_t2", "drive", "vnc", "mandible", "hippo_anterior",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Model:
    """How one network of the bank was pre-trained; the name of its file follows."""

    source: str  # a task, a mixture, "restoration" or "untrained"
    steps: int = FULL
    seed: int = 0
    kind: str = ""  # "ten cases", "two cases", "noise" (half of the labels), "shuffled"

    @property
    def name(self) -> str:
        """Name in files and tables, such as ``drive-240`` or ``drive-240-noise``."""
        parts = [self.source, str(self.steps), self.kind.replace(" ", "_")]
        seed = f"s{self.seed}" if self.seed else ""
        return "-".join(part for part in (*parts, seed) if part)


def targets() -> tuple[str, ...]:
    """Tasks that are targets, most wanted first."""
    return tuple(task.name for task in TASKS.values() if task.sibling)


def models_of(target: str) -> list[tuple[Model, bool]]:
    """The bank of a target, each with whether it is a rung of the ladder."""
    sibling = TASKS[target].sibling
    ladder = [Model(sibling, steps) for steps in LADDER]
    ladder += [
        Model(sibling, seed=1),
        Model(sibling, kind="ten cases"),
        Model(sibling, kind="noise"),
    ]
    others = [Model(sibling, FULL // 2, kind=kind) for kind in ("two cases", "shuffled")]
    sources = [*_other_sources(target), _mixture(target), "restoration"]
    others += [Model(source, steps) for source in sources for steps in (FULL, TENTH)]
    others += [Model("untrained", 0, seed) for seed in (0, 1)]
    return [(model, True) for model in ladder] + [(model, False) for model in others]


def recipe(target: str) -> tuple[Model, ...]:
    """All models of a target, without the marks of the ladder."""
    return tuple(model for model, _ in models_of(target))


def _mixture(target: str) -> str:
    return next(name for name, parts in MIXTURES.items() if target not in parts)


def _other_sources(target: str, n: int = 6) -> list[str]:
    """Relatives first, then one task of each other family in turn."""
    own = TASKS[target].family
    free = [name for name in TASKS if name not in (target, TASKS[target].sibling)]
    chosen = [name for name in free if TASKS[name].family == own]
    start = list(TASKS).index(target)  # other families show another task to every second target
    turned = [name for name in free[start % 2 :: 2] + free if name not in chosen]
    turned = list(dict.fromkeys(turned))
    while len(chosen) < n:
        seen = {TASKS[name].family for name in chosen if TASKS[name].family != own}
        fresh = [name for name in turned if TASKS[name].family not in seen | {own}]
        pick = next(iter(fresh or turned))
        chosen.append(pick)
        turned.remove(pick)
    return chosen[:n]
