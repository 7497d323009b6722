"""GRPO, RLOO and MaxRL on hand-computed groups of rewards."""

import pytest
import torch

from jqlight.objective import grpo, maxrl, rloo


def test_grpo_hand_values() -> None:
    result = grpo(torch.tensor([[1.0, 0.0, 0.0, 0.0]]), eps=0.0)
    # mean 1/4, sample deviation 1/2: advantages 3/2 and -1/2, over M = 4.
    assert result.score[0].tolist() == pytest.approx([0.375, -0.125, -0.125, -0.125])
    assert torch.equal(result.score, result.pathwise)
    with_eps = grpo(torch.tensor([[1.0, 0.0, 0.0, 0.0]]), eps=0.5)
    assert with_eps.score[0].tolist() == pytest.approx([0.1875, -0.0625, -0.0625, -0.0625])
    unscaled = grpo(torch.tensor([[1.0, 0.0, 0.0, 0.0]]), scale=False)
    assert unscaled.score[0].tolist() == pytest.approx([0.1875, -0.0625, -0.0625, -0.0625])


def test_rloo_hand_values() -> None:
    result = rloo(torch.tensor([[1.0, 1.0, 0.0]]))
    assert result.score[0].tolist() == pytest.approx([1 / 6, 1 / 6, -1 / 3])
    assert torch.equal(result.score, result.pathwise)


def test_maxrl_hand_values() -> None:
    result = maxrl(torch.tensor([[1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0]]))
    assert result.score[0].tolist() == pytest.approx([0.75, -0.25, -0.25, -0.25])
    assert (result.score[1] == 0).all()
    assert result.score[2].tolist() == pytest.approx([0.25, 0.25, -0.25, -0.25])
    assert torch.equal(result.score, result.pathwise)


@pytest.mark.parametrize("value", [0.0, 1.0])
@pytest.mark.parametrize("estimate", [grpo, rloo, maxrl])
def test_equal_rewards_teach_nothing(estimate, value: float) -> None:
    assert (estimate(torch.full((2, 5), value)).score == 0).all()
