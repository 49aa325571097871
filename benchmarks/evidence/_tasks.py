"""What the study holds: data sets and their splits, tasks, the models of each target."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

__all__ = [
    "BANKS",
    "DATASETS",
    "MIXTURES",
    "OTHER_SUPPORTS",
    "PHANTOMS",
    "SEED",
    "SUPPORT",
    "TASKS",
    "Bank",
    "Dataset",
    "Domain",
    "Model",
    "Task",
    "few_models",
]

#: Labelled cases that a target gives, and the seed of everything that is drawn.
SUPPORT = 5
OTHER_SUPPORTS = (3, 10, 20)
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


@dataclass(frozen=True)
class Domain:
    """How the phantoms of a task look: the foreground's shape, and the images' quality."""

    shape: str  # of the foreground; objects of the other shapes are background
    contrast: float
    noise: float
    blur: float  # standard deviation, in pixels


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

_REAL = {
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
#: Ellipses, rings and crosses; one image holds one of each, and the task says which is meant.
PHANTOMS = {
    f"{shape}_{domain}": Domain(shape, *quality)
    for shape in ("ellipse", "ring", "cross")
    for domain, quality in {
        "clear": (1.5, 0.5, 0.0),
        "noisy": (1.5, 1.5, 0.0),
        "blurred": (1.0, 0.5, 2.0),
        "inverted": (-1.5, 0.5, 0.0),
    }.items()
}
_SIBLINGS = {"clear": "noisy", "noisy": "clear", "blurred": "clear", "inverted": ""}
_PHANTOM_TASKS = {
    name: Task(
        name,
        "phantoms",
        (1,),
        domain.shape,
        f"{domain.shape}_{sibling}" if (sibling := _SIBLINGS[name.split("_")[1]]) else "",
    )
    for name, domain in PHANTOMS.items()
}
TASKS = _REAL | _PHANTOM_TASKS

#: Two mixtures of each kind, so that no target meets its own task in the one it gets.
MIXTURES = {
    "mixture_a": (
        "sunnybrook_lv", "atrium", "spine_t1", "chase", "isbi", "parotids", "larynx",
        "hippo_posterior",
    ),
    "mixture_b": (
        "acdc_lv", "acdc_rv", "spine_t2", "drive", "vnc", "mandible", "hippo_anterior",
    ),
    "mixture_c": tuple(name for name in PHANTOMS if name.endswith(("clear", "inverted"))),
    "mixture_d": tuple(name for name in PHANTOMS if name.endswith(("noisy", "blurred"))),
}  # fmt: skip


@dataclass(frozen=True)
class Model:
    """How one network of the bank was pre-trained; the name of its file follows."""

    source: str  # a task, a mixture, "restoration" or "untrained"
    steps: int = FULL
    seed: int = 0
    kind: str = ""  # "ten cases", "two cases", "noise" (half of the labels), "shuffled"
    network: str = "unet-8"  # architecture and width

    @property
    def name(self) -> str:
        """Name in files and tables, such as ``drive-240`` or ``drive-240-noise``."""
        network = "" if self.network == "unet-8" else self.network.replace("-", "")
        parts = [self.source, str(self.steps), self.kind.replace(" ", "_"), network]
        seed = f"s{self.seed}" if self.seed else ""
        return "-".join(part for part in (*parts, seed) if part)

    @property
    def n_dims(self) -> int:
        """Axes of the images that the network reads."""
        return 3 if self.network.startswith("volume") else 2


#: A model, and whether it is a rung of the ladder.
Recipe = list[tuple[Model, bool]]


@dataclass(frozen=True)
class Bank:
    """Targets, and the models that are ranked for each."""

    targets: tuple[str, ...]
    models_of: Callable[[str], Recipe]
    n_runs: int = 3
    fine_tuning_steps: int = 60
    phantoms: bool = False  # needs no images
    with_other_supports: tuple[str, ...] = ()  # targets scored on fewer and more cases as well

    def recipe(self, target: str) -> tuple[Model, ...]:
        """All models of a target, without the marks of the ladder."""
        return tuple(model for model, _ in self.models_of(target))


def _ladder_models(target: str) -> Recipe:
    """Eight versions of the sibling, spoilt ones, other sources, untrained networks."""
    sibling = TASKS[target].sibling
    ladder = [Model(sibling, steps) for steps in LADDER]
    ladder += [
        Model(sibling, seed=1),
        Model(sibling, kind="ten cases"),
        Model(sibling, kind="noise"),
    ]
    others = [Model(sibling, FULL // 2, kind=kind) for kind in ("two cases", "shuffled")]
    restoration = "restoration" if target in _REAL else "phantom_restoration"
    sources = [*_other_sources(target, 6), _mixture(target), restoration]
    others += [Model(source, steps) for source in sources for steps in (FULL, TENTH)]
    others += [Model("untrained", 0, seed) for seed in (0, 1)]
    return [(model, True) for model in ladder] + [(model, False) for model in others]


def few_models(target: str) -> Recipe:
    """A third of the ladder bank, to see that the study works."""
    return _ladder_models(target)[::3]


def _architecture_models(target: str) -> Recipe:
    """Sources that all architectures share; the wider U-Nets have fewer of them."""
    task = TASKS[target]
    unrelated = next(s for s in _other_sources(target, 6) if TASKS[s].family != task.family)
    core = [(task.sibling, FULL), (unrelated, FULL), ("untrained", 0)]
    more = [*core, (task.sibling, TENTH), (_mixture(target), FULL)]
    networks = dict.fromkeys(("unet-8", "residual-8", "noskip-8", "attention-8"), more)
    networks |= dict.fromkeys(("unet-16", "unet-32"), core)
    return [
        (Model(source, steps, network=network), False)
        for network, sources in networks.items()
        for source, steps in sources
    ]


def _volume_models(target: str) -> Recipe:
    """The ladder bank, smaller and in three dimensions."""
    full, tenth = VOLUME_STEPS, VOLUME_STEPS // 10
    sibling = _VOLUME_SIBLINGS[target]

    def model(source: str, steps: int = full, **more: Any) -> Model:
        return Model(source, steps, network="volume-8", **more)

    ladder = [model(sibling, steps) for steps in (tenth, full // 3, full)]
    ladder += [model(sibling, seed=1), model(sibling, kind="noise")]
    others = [model(sibling, full // 2, kind="shuffled")]
    sources = [s for s in _VOLUME_SIBLINGS if s not in (target, sibling)]
    own = [s for s in sources if TASKS[s].family == TASKS[target].family]
    picked = [*own, *(s for s in sources if s not in own)][:4]
    others += [model(s, steps) for s in (*picked, "restoration") for steps in (full, tenth)]
    others += [model("volume_mixture"), model("volume_mixture", tenth)]
    others += [model("untrained", 0, seed=seed) for seed in (0, 1)]
    return [(m, True) for m in ladder] + [(m, False) for m in others]


VOLUME_STEPS = 100
#: Tasks in three dimensions and their siblings; the first five are targets.
_VOLUME_SIBLINGS = {
    "acdc_lv": "acdc_rv",
    "hippo_anterior": "hippo_posterior",
    "mandible": "parotids",
    "spine_t1": "spine_t2",
    "atrium": "acdc_lv",
    "hippo_posterior": "hippo_anterior",
    "acdc_rv": "acdc_lv",
    "parotids": "mandible",
    "spine_t2": "spine_t1",
}
MIXTURES["volume_mixture"] = ("acdc_rv", "hippo_posterior", "parotids", "spine_t2")

_ONE_PER_FAMILY = ("acdc_lv", "drive", "spine_t1", "vnc", "mandible", "hippo_anterior")

BANKS = {
    "ladder": Bank(
        tuple(task.name for task in _REAL.values() if task.sibling),
        _ladder_models,
        with_other_supports=_ONE_PER_FAMILY,
    ),
    "architectures": Bank(_ONE_PER_FAMILY[:4], _architecture_models, n_runs=2),
    "volumes": Bank(tuple(_VOLUME_SIBLINGS)[:5], _volume_models, n_runs=2, fine_tuning_steps=40),
    "phantoms": Bank(
        ("ellipse_noisy", "ring_clear", "cross_blurred"),
        _ladder_models,
        phantoms=True,
    ),
}


def _mixture(target: str) -> str:
    known = _REAL if target in _REAL else _PHANTOM_TASKS
    return next(n for n, parts in MIXTURES.items() if target not in parts and parts[0] in known)


def _other_sources(target: str, n: int) -> list[str]:
    """Relatives first, then one task of each other family in turn."""
    tasks = list(_REAL if target in _REAL else _PHANTOM_TASKS)
    own = TASKS[target].family
    free = [name for name in tasks if name not in (target, TASKS[target].sibling)]
    chosen = [name for name in free if TASKS[name].family == own]
    start = tasks.index(target)  # other families show another task to every second target
    turned = [name for name in free[start % 2 :: 2] + free if name not in chosen]
    turned = list(dict.fromkeys(turned))
    while len(chosen) < n:
        seen = {TASKS[name].family for name in chosen if TASKS[name].family != own}
        fresh = [name for name in turned if TASKS[name].family not in seen | {own}]
        pick = next(iter(fresh or turned))
        chosen.append(pick)
        turned.remove(pick)
    return chosen[:n]
