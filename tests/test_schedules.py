"""Schedules against their values at hand, and as commitments."""

import pytest
import torch

from jqlight.errors import ConfigError
from jqlight.objective import Splice, Tsallis, garl
from jqlight.schedules import Cosine, Linear, Schedule, Step


def q_values(schedule: Schedule, steps: range) -> list[float]:
    return [schedule.at(step).q for step in steps]


def test_step_is_sft_then_rl() -> None:
    assert q_values(Step(3), range(6)) == [1.0, 1.0, 1.0, 0.0, 0.0, 0.0]
    assert q_values(Step(1, start=0.75, end=0.25), range(3)) == [0.75, 0.25, 0.25]


def test_linear() -> None:
    assert q_values(Linear(4), range(7)) == [1.0, 0.75, 0.5, 0.25, 0.0, 0.0, 0.0]
    assert q_values(Linear(2, start=0.2, end=0.6), range(4)) == pytest.approx([0.2, 0.4, 0.6, 0.6])


def test_cosine() -> None:
    assert q_values(Cosine(4), range(6)) == pytest.approx([1.0, 0.853553390593, 0.5, 0.146446609407, 0.0, 0.0])
    assert q_values(Cosine(2, start=0.2, end=0.6), range(4)) == pytest.approx([0.2, 0.4, 0.6, 0.6])


@pytest.mark.parametrize("kind", [Step, Linear, Cosine])
def test_ends_are_exact(kind: type[Schedule]) -> None:
    schedule = kind(7, start=0.9, end=0.1)
    assert schedule.at(0).q == 0.9 and schedule.at(7).q == schedule.at(10**9).q == 0.1


@pytest.mark.parametrize("commitment", [Tsallis(0.3), Splice(0.1)], ids=repr)
def test_a_constant_does_not_move(commitment: Tsallis | Splice) -> None:
    assert commitment.at(0) is commitment.at(1000) is commitment


def test_a_step_of_a_schedule_is_a_fixed_q() -> None:
    log_w = torch.tensor([[-3.0, -5.0, -4.0]], dtype=torch.float64)
    assert torch.equal(garl(log_w, Linear(4).at(3)).score, garl(log_w, 0.25).score)


def test_a_schedule_is_no_commitment_until_it_is_asked_for_a_step() -> None:
    log_w = torch.tensor([[-1.0, -3.0]])
    with pytest.raises(ConfigError, match=r"q: given linear\(0\.75->0@4\), .* q\.at\(step\)"):
        garl(log_w, Linear(4, start=0.75))  # type: ignore[arg-type]
    assert torch.equal(garl(log_w, torch.tensor(0.5)).score, garl(log_w, 0.5).score)  # type: ignore[arg-type]


def test_names() -> None:
    assert repr(Step(20)) == "step(1->0@20)" and repr(Cosine(5, 0.5, 0.25)) == "cosine(0.5->0.25@5)"


@pytest.mark.parametrize("kind", [Step, Linear, Cosine])
@pytest.mark.parametrize(
    ("steps", "start", "key"), [(0, 1.0, "model.q.steps"), (-2, 1.0, "model.q.steps"), (5, 1.5, "model.q")]
)
def test_out_of_range(kind: type[Schedule], steps: int, start: float, key: str) -> None:
    with pytest.raises(ConfigError, match=rf"^{key}: given"):
        kind(steps, start=start)
