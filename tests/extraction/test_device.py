"""Settings of the device hold during the passes and are put back afterwards.

Memory stays with the process; a GPU computes in whole float32.
"""

import gc
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from skte.bank import BankEntry
from skte.datasets import make_phantoms
from skte.extraction import SegmentationFeatureExtractor
from skte.extraction import (
    _runner as device_settings,  # no public door shows torch's and malloc's switches
)

resource = pytest.importorskip("resource")

CPU = torch.device("cpu")
N_BLOCKS, MIB = 6, 40  # above the largest block that glibc keeps by itself
BLOCK = MIB * 2**20

glibc = pytest.mark.skipif(device_settings._glibc() is None, reason="the C library is not glibc")


def faults():
    """Pages that blocks of memory ask for when they are taken and given back in turn."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(N_BLOCKS):
        torch.ones(MIB * 2**18)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) * resource.getpagesize()


def resident():
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


# Outside, malloc may find a hole of this size in its heap: only the first block is then new.
@glibc
def test_blocks_are_used_again_inside_and_returned_afterwards():
    with device_settings.memory_kept(CPU):
        # Holes of the heap decide how many rounds it takes until all blocks are kept.
        assert min(faults() for _ in range(5)) < 0.1 * BLOCK
        kept = resident()
    assert resident() < kept - 0.9 * BLOCK
    assert faults() > 0.9 * BLOCK


@glibc
def test_the_last_to_leave_returns_it():
    with device_settings.memory_kept(CPU):
        with device_settings.memory_kept(CPU):
            faults()
        assert min(faults() for _ in range(5)) < 0.1 * BLOCK
    assert faults() > 0.9 * BLOCK


@glibc
def test_it_is_returned_after_an_error():
    with pytest.raises(RuntimeError), device_settings.memory_kept(CPU):
        raise RuntimeError
    assert device_settings._kept.n_users == 0
    assert faults() > 0.9 * BLOCK


@glibc
def test_threads_may_share_it():
    def work(_):
        with device_settings.memory_kept(CPU):
            torch.ones(2**20)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(64)))
    assert device_settings._kept.n_users == 0


@pytest.mark.parametrize("device", ["cuda", "meta"])
def test_other_devices_are_left_alone(device):
    with device_settings.memory_kept(torch.device(device)):
        assert device_settings._kept.n_users == 0


def test_other_c_libraries_are_left_alone(monkeypatch):
    def no_library(_):
        raise OSError

    monkeypatch.setattr(device_settings.ctypes, "CDLL", no_library)
    device_settings._glibc.cache_clear()
    try:
        with device_settings.memory_kept(CPU):
            assert device_settings._kept.n_users == 0
    finally:
        device_settings._glibc.cache_clear()


@glibc
def test_extraction_runs_inside_and_leaves():
    seen = []

    class Watching(torch.nn.Conv3d):
        def forward(self, x):
            seen.append(device_settings._kept.n_users)
            return super().forward(x)

    network = torch.nn.Sequential(Watching(1, 2, 3, padding=1), torch.nn.Conv3d(2, 2, 1))
    entry = BankEntry.from_module("watched", network)
    extractor = SegmentationFeatureExtractor(entry, layers=["0"], source_head=False, device="cpu")
    extractor.fit(make_phantoms(2, size=(16, 16, 16)))
    seen.clear()
    extractor.transform(make_phantoms(2, size=(16, 16, 16)))
    gc.collect()
    assert set(seen) == {1}
    assert device_settings._kept.n_users == 0


CUDA = torch.device("cuda")  # a name: no GPU is needed to set torch's switches


def precision():
    if hasattr(torch.backends.cudnn, "conv"):
        return (
            torch.backends.cudnn.conv.fp32_precision,
            torch.backends.cuda.matmul.fp32_precision,
        )
    return torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32


def test_whole_within_and_restored_afterwards():
    before = precision()
    with device_settings.whole_float32(CUDA):
        assert precision() in (("ieee", "ieee"), (False, False))
        with device_settings.whole_float32(CUDA):
            pass
        assert precision() != before  # others still need it
    assert precision() == before
    # Reading the older switches fails where the two kinds disagree.
    assert isinstance(torch.backends.cudnn.allow_tf32, bool)


def test_restored_after_an_error():
    before = precision()
    with pytest.raises(RuntimeError), device_settings.whole_float32(CUDA):
        raise RuntimeError
    assert precision() == before


def test_a_cpu_is_left_alone():
    before = precision()
    with device_settings.whole_float32(torch.device("cpu")):
        assert precision() == before
