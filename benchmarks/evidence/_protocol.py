"""What the study consists of: tasks, models, recipes. Everything here was fixed beforehand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

__all__ = ["FULL", "SMOKE", "Model", "Study", "Task"]


@dataclass(frozen=True)
class Task:
    """A segmentation task, in a form that two cores can learn.

    ``merge`` maps label ids of the files to those of the study; ``coarsen`` multiplies
    the spacing of each axis.
    """

    name: str
    n_classes: int
    merge: Mapping[int, int] = field(default_factory=dict)
    coarsen: tuple[float, float, float] = (1, 1, 1)


@dataclass(frozen=True)
class Model:
    """A member of a bank, and how it was pre-trained.

    ``source`` is the task it was pre-trained on, None for random weights. ``objective``
    is "supervised", "restoration" (self-supervised, of masked and noisy images) or
    "collapse" (taught that all is background).
    """

    name: str
    architecture: str
    source: str | None = None
    n_steps: int = 0
    objective: str = "supervised"
    seed: int = 0


@dataclass(frozen=True)
class Study:
    """All sizes of the study.

    Attributes
    ----------
    patch : tuple of int
        Edges, in voxels, of training patches and of the sliding window.
    n_pretrain_cases, n_tune_cases, n_test_cases, n_rank_cases : int
        Cases of a source task; of a target for fine-tuning, testing, ranking. Fine-tuning
        uses the first of those that rank. Test cases are never among either.
    tune_steps, head_rate, body_rate, seeds
        The one recipe of fine-tuning; the new head learns faster than what was loaded.
        A seed sets the new head and the patches, and every model sees the same patches.
    long, short : int
        Steps of pre-training.
    """

    tasks: tuple[Task, ...]
    patch: tuple[int, int, int] = (32, 32, 16)
    n_pretrain_cases: int = 40
    n_tune_cases: int = 5
    n_rank_cases: int = 20
    n_test_cases: int = 12
    batch_size: int = 4
    tune_steps: int = 400
    head_rate: float = 5e-3
    body_rate: float = 5e-4
    seeds: tuple[int, ...] = (0, 1, 2)
    long: int = 1000
    short: int = 100

    def task(self, name: str) -> Task:
        """Look a task up."""
        return next(task for task in self.tasks if task.name == name)

    def pretrained(self, source: str) -> list[Model]:
        """Models that one source task gives."""
        long = Model("", "unet_w8", source, self.long)
        variants = {
            "unet_w8": long,
            "unet_w8_restoration": replace(long, objective="restoration"),
            "unet_w4": replace(long, architecture="unet_w4"),
            "unet_w4_short": replace(long, architecture="unet_w4", n_steps=self.short),
            "unetr": replace(long, architecture="unetr"),
        }
        return [replace(model, name=f"{source}__{key}") for key, model in variants.items()]

    def untrained(self) -> list[Model]:
        """Models with random weights, and one that forgot even those."""
        return [
            Model("none__unet_w4", "unet_w4"),
            Model("none__unet_w8", "unet_w8"),
            Model("none__unetr", "unetr"),
            Model("none__unet_w8_collapsed", "unet_w8", None, self.short, "collapse"),
        ]

    def models(self) -> list[Model]:
        """Every model of the study."""
        trained = [model for task in self.tasks for model in self.pretrained(task.name)]
        return trained + self.untrained()

    def bank(self, target: str) -> list[Model]:
        """Models that a target task may choose among: none has seen it."""
        return [model for model in self.models() if model.source != target]


FULL = Study(
    tasks=(
        # The myocardium is two voxels thick here: it goes with the cavity it surrounds.
        Task("Heart_ACDC", 3, {3: 2}, (2, 2, 1)),
        Task("Task04_Hippocampus", 3, coarsen=(1.5, 1.5, 1.5)),
        Task("LeftAtrium", 2, coarsen=(2, 2, 2)),
        # Mirrored organs look alike in a patch, and so do brainstem and spinal cord.
        Task("HeadNeck_CT", 4, {2: 1, 3: 2, 4: 2, 5: 3}, (1.5, 1.5, 1.5)),
        # Vertebrae differ by their number only, which a patch does not show.
        Task("Spine_T1", 2, {2: 1, 3: 1, 4: 1, 5: 1}, (2, 2, 2)),
    )
)
SMOKE = Study(
    tasks=(Task("ellipsoids", 2), Task("shells", 2)),
    patch=(16, 16, 16),
    n_pretrain_cases=2,
    n_tune_cases=2,
    n_rank_cases=3,
    n_test_cases=2,
    tune_steps=2,
    long=2,
    short=1,
)
