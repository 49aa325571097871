"""Networks that do what they should not. Named in banks: other processes import them."""

import os
import time
from pathlib import Path

import torch
from torch import nn

from skte.demo import small_unet


class Faulty(nn.Module):
    """A small network with a fault, from the `after`-th forward pass on."""

    def __init__(self, after=0, seed=0):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network = small_unet(widths=(4, 8))
        self.after = after
        self.n_passes = 0

    def forward(self, x):
        self.n_passes += 1
        if self.n_passes > self.after:
            self.fail(x)
        return self.network(x)

    def fail(self, x):
        """Do nothing: a sound one."""


class Hanging(Faulty):
    """Hangs, and says so in a file where one is named."""

    def __init__(self, after=0, seed=0, marker=None):
        super().__init__(after, seed)
        self.marker = marker

    def fail(self, x):
        if self.marker is not None:
            Path(self.marker).touch()
        time.sleep(1_000_000)


class Dying(Faulty):
    def fail(self, x):
        os._exit(7)


class Killed(Faulty):
    """As by the system's out-of-memory killer."""

    def fail(self, x):
        os.kill(os.getpid(), 9)


class Greedy(Faulty):
    """Runs out of memory with more than `most` windows at a time."""

    def __init__(self, most=1, words="out of memory", kind=RuntimeError, log=None, after=0):
        super().__init__(after)
        self.most, self.words, self.kind, self.log = most, words, kind, log

    def fail(self, x):
        if self.log is not None:
            with Path(self.log).open("a") as file:
                file.write(f"{len(x)} ")
        if len(x) > self.most:
            raise self.kind(self.words)


class Meddling(Faulty):
    """Puts one file in the place of another during a forward pass, once."""

    def __init__(self, new, old, after=0):
        super().__init__(after)
        self.new, self.old = new, old

    def fail(self, x):
        if os.path.exists(self.new):
            os.replace(self.new, self.old)
