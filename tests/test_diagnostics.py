"""Every diagnostic against its closed form."""

import math

import pytest
import torch
from torch import Tensor

from jqlight.diagnostics import (
    EscapeMonitor,
    distinct_rationales,
    effective_sample_size,
    leave_one_out_spread,
    logprob_gap,
    max_amplified_advantage,
    relative_bias,
    relative_variance,
    weight_diagnostics,
)
from jqlight.objective import Coefficients, Splice, Tsallis, garl, leave_one_out, paft
from jqlight.schedules import Linear

INF = math.inf


def log(*rows: list[float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64).log()


W = [0.1, 0.2, 0.6]  # mean 0.3, sample variance 0.07


def test_relative_variance() -> None:
    assert relative_variance(log(W)).item() == pytest.approx(0.07 / 0.09)
    assert relative_variance(log([0.4])).item() == 0.0
    assert relative_variance(log(W) - 900).item() == pytest.approx(0.07 / 0.09), "scale-free, also under double range"


def test_effective_sample_size() -> None:
    assert effective_sample_size(log(W)).item() == pytest.approx(0.81 / 0.41)
    assert effective_sample_size(torch.full((1, 6), -800.0, dtype=torch.float64)).item() == pytest.approx(6)
    assert effective_sample_size(log([1e-12, 0.5, 1e-11])).item() == pytest.approx(1)


def test_leave_one_out_spread_is_the_jackknife() -> None:
    means = leave_one_out(log(W)).exp()[0]
    jackknife = math.sqrt(2 / 3 * (means - means.mean()).square().sum().item())
    assert leave_one_out_spread(log(W)).item() == pytest.approx(jackknife / 0.3)
    assert leave_one_out_spread(log(W)).item() == pytest.approx(math.sqrt(0.07 / 3) / 0.3)


def test_relative_bias() -> None:
    for q in (0.0, 0.5, 1.0):
        assert relative_bias(log(W), q).item() == pytest.approx(q * (q + 1) / 2 * 0.07 / 3 / 0.09)


def test_weight_diagnostics_of_living_groups() -> None:
    values = weight_diagnostics(log(W, [0.02, 0.02, 0.02]), Tsallis(0.5))
    assert values == pytest.approx(
        {
            "dead_groups": 0.0,
            "success": 0.16,
            "q": 0.5,
            "log_success": (math.log(0.3) + math.log(0.02)) / 2,
            "success_spread": math.sqrt(0.07 / 3) / 0.3 / 2,
            "effective_sample_size": (0.81 / 0.41 + 3) / 2,
            "relative_bias": 0.375 * 0.07 / 3 / 0.09 / 2,
        }
    )


def test_dead_groups_are_counted() -> None:
    values = weight_diagnostics(torch.tensor([[-INF, -INF], [-1.0, -1.0]], dtype=torch.float64), Tsallis(1.0))
    assert values["dead_groups"] == 1 and values["log_success"] == -1.0
    assert values["success"] == pytest.approx(math.exp(-1) / 2)
    dead = weight_diagnostics(torch.full((2, 3), -INF, dtype=torch.float64), Tsallis(0.25))
    assert dead == {"dead_groups": 2.0, "success": 0.0, "q": 0.25}


def test_splice_diagnostics() -> None:
    log_w = torch.cat([log(W, [0.01, 0.01, 0.01], [0.5, 0.5, 0.5]), torch.full((1, 3), -INF, dtype=torch.float64)])
    values = weight_diagnostics(log_w, Splice(0.05))
    assert values["below_tau"] == 0.5 and values["q"] == 0.5
    assert values["relative_bias"] == 0.0, "only groups below tau are biased, and this one has no variance"
    assert "below_tau" not in weight_diagnostics(log_w, Tsallis(0.5))


def test_q_of_a_schedule() -> None:
    assert weight_diagnostics(log(W), Linear(4).at(1))["q"] == 0.75


def test_max_amplified_advantage() -> None:
    """Figure 3's max over samples of c_m / M^q: M times the largest score coefficient."""
    log_w = log([1.0, 0.0, 0.0, 0.0], [0.5, 0.5, 0.5, 0.5])
    assert max_amplified_advantage(garl(log_w, 0.5, baseline=False)) == pytest.approx(1.0)
    assert max_amplified_advantage(garl(log_w[1:], 1.0)) == 0.0
    assert max_amplified_advantage(Coefficients(torch.tensor([[0.1, -0.9]]), torch.zeros(1, 2))) == pytest.approx(0.2)


def test_distinct_rationales() -> None:
    log_w = log([1.0, 0.0, 0.0], [0.3, 0.3, 0.3])
    result = paft(log_w, 0.5, num_resamples=200, generator=torch.Generator().manual_seed(0))
    assert distinct_rationales(result) == 2.0


def test_escape_step_is_the_first_running_mean_over_the_threshold() -> None:
    monitor = EscapeMonitor(threshold=0.1, window=3)
    for step, success in enumerate([0.0, 0.25, 0.0, 0.04, 0.28, 0.01, 0.0]):
        monitor.update(step, success)
        assert monitor.escape_step == (None if step < 4 else 4)


def test_no_escape_before_the_window_is_full() -> None:
    monitor = EscapeMonitor(threshold=0.1, window=3)
    monitor.update(0, 1.0)
    monitor.update(1, 1.0)
    assert monitor.escape_step is None
    monitor.update(2, 1.0)
    assert monitor.escape_step == 2


def test_collapse_needs_an_escape_and_can_end() -> None:
    monitor = EscapeMonitor(threshold=0.1, window=2, collapse=0.1)
    seen = []
    for step, success in enumerate([1e-9, 1e-9, 0.0, 0.8, 0.8, 0.0, 0.0, 0.3]):
        monitor.update(step, success)
        seen.append(monitor.collapsed)
    assert seen == [False, False, False, False, False, False, True, False]
    assert monitor.escape_step == 3 and monitor.best == 0.8


def test_a_cold_start_that_gets_colder_is_no_collapse() -> None:
    monitor = EscapeMonitor(threshold=0.1, window=2)
    for step, success in enumerate([0.05, 0.05, 1e-6, 1e-6]):
        monitor.update(step, success)
    assert monitor.best == 0.05 and monitor.escape_step is None and not monitor.collapsed


def test_monitor_continues_from_its_state() -> None:
    history = [0.0, 0.05, 0.3, 0.5, 0.0, 0.0, 0.0]
    whole = EscapeMonitor(window=2)
    for step, success in enumerate(history):
        whole.update(step, success)
    for cut in range(len(history)):
        first, second = EscapeMonitor(window=2), EscapeMonitor(window=2)
        for step in range(cut):
            first.update(step, history[step])
        second.load_state_dict(first.state_dict())
        for step in range(cut, len(history)):
            second.update(step, history[step])
        assert (second.escape_step, second.best, second.collapsed) == (whole.escape_step, whole.best, True)
        assert second.state_dict() == whole.state_dict()


def test_logprob_gap() -> None:
    engine = [[-1.0, -2.0], [], [-0.5]]
    trainer = [torch.tensor([-1.0, -2.25]), torch.empty(0), torch.tensor([-0.4], dtype=torch.float64)]
    assert logprob_gap(engine, trainer) == pytest.approx(0.25)
    assert logprob_gap([[]], [torch.empty(0)]) == 0.0 and logprob_gap([], []) == 0.0
