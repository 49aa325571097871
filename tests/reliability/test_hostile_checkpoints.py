"""Files of weights that were made to do harm: plain data or a named error, in child processes."""

import pytest

from tests.reliability.checkpoints import ATTACKS

N_INPUTS = 25


@pytest.mark.parametrize("attack", ATTACKS)
def test_hostile_checkpoints_end_in_data_or_a_named_error(attack):
    fuzzing = pytest.importorskip("benchmarks.reliability._fuzz")
    found = fuzzing.fuzz(attack, N_INPUTS, 0, 1)
    assert found["problems"] == []
    assert sum(found["outcomes"].values()) == N_INPUTS
