"""Files of weights that were made to do harm: plain data or a named error, in child processes."""

import numpy as np
import pytest
import torch

from skte import ModelBank
from skte.cli import main
from skte.exceptions import BankError
from tests.reliability.checkpoints import ATTACKS, touch

N_INPUTS = 25


@pytest.mark.slow
@pytest.mark.parametrize("attack", ATTACKS)
def test_hostile_checkpoints_end_in_data_or_a_named_error(attack):
    fuzzing = pytest.importorskip("benchmarks.reliability._fuzz")
    found = fuzzing.fuzz(attack, N_INPUTS, 0, 1)
    assert found["problems"] == []
    assert sum(found["outcomes"].values()) == N_INPUTS


def test_what_is_not_plain_data_is_seen():
    twice = [[]]
    for _ in range(40):
        twice = [twice, twice]
    others = torch.Size([1]), torch.eye(2).to_sparse(), [object()], {"a": torch.float32}
    for wrong in (*others, twice):
        with pytest.raises(Exception, match=r"a <class|a tensor that|does not end"):
            touch(wrong, most_steps=10_000)


@pytest.mark.slow
@pytest.mark.parametrize("command", [["bank", "list"], ["bank", "check"], ["inspect", "--bank"]])
def test_commands_on_a_folder_of_hostile_checkpoints_name_each(command, tmp_path, capsys):
    names = []
    for number, attack in enumerate(ATTACKS.values()):
        data, ending = attack(np.random.default_rng(number))
        names.append(f"m{number}{ending}")
        (tmp_path / names[-1]).write_bytes(data)
    with pytest.raises(BankError) as caught:
        ModelBank.from_folder(tmp_path)
    assert all(name in str(caught.value) for name in names)
    assert main([*command, str(tmp_path)]) != 0
    said = capsys.readouterr()
    assert names[0] in said.out + said.err
