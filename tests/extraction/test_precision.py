"""A GPU computes in whole float32 during the passes, and as the user set it afterwards."""

import pytest
import torch

from skte.extraction import _device

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
    with _device.whole_float32(CUDA):
        assert precision() in (("ieee", "ieee"), (False, False))
        with _device.whole_float32(CUDA):
            pass
        assert precision() != before  # others still need it
    assert precision() == before
    # Reading the older switches fails where the two kinds disagree.
    assert isinstance(torch.backends.cudnn.allow_tf32, bool)


def test_restored_after_an_error():
    before = precision()
    with pytest.raises(RuntimeError), _device.whole_float32(CUDA):
        raise RuntimeError
    assert precision() == before


def test_a_cpu_is_left_alone():
    before = precision()
    with _device.whole_float32(torch.device("cpu")):
        assert precision() == before
