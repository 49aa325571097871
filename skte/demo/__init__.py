"""A small U-Net, its training, and the demo that shows the whole way of a ranking."""

from skte.demo._demo import DemoResult, run_demo, write_msd
from skte.demo._train import (
    SmallUNet,
    TrainingCase,
    load_body,
    mean_foreground_dice,
    prepare_cases,
    small_unet,
    train_network,
)

__all__ = [
    "DemoResult",
    "SmallUNet",
    "TrainingCase",
    "load_body",
    "mean_foreground_dice",
    "prepare_cases",
    "run_demo",
    "small_unet",
    "train_network",
    "write_msd",
]
