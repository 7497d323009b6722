"""The unit of a step: the same sum in any order, split over ranks, and a reference that falls slowly."""

import itertools
import math

import pytest
import torch
from torch import nn

from jqlight.errors import ConfigError
from jqlight.estimators.scale import DECAY, StepScale

CPU = torch.device("cpu")


def gathered(scale: StepScale, groups: list[tuple[float, float]], dtype: torch.dtype = torch.float64) -> float:
    """Sum of ``value * e^(log_size)`` over groups, in the step's own unit, as a parameter's gradient gathers it."""
    parameter = nn.Parameter(torch.zeros(1, dtype=dtype))
    scale.begin([parameter])
    for log_size, value in groups:
        log_unit = scale.admit(log_size)
        if log_unit is not None:
            grad = torch.full_like(parameter, value * math.exp(log_size - log_unit))
            parameter.grad = grad if parameter.grad is None else parameter.grad + grad
    scale.finish(CPU)
    return 0.0 if parameter.grad is None else parameter.grad.item()


GROUPS = [(-3.0, 1.0), (-1.0, -0.5), (-2.5, 2.0)]


@pytest.mark.parametrize("shift", [0.0, -50.0, -5000.0])
def test_every_order_and_every_common_factor_give_the_largest_groups_unit(shift):
    wanted = sum(value * math.exp(size + 1.0) for size, value in GROUPS)
    for order in itertools.permutations(GROUPS):
        scale = StepScale("batch")
        assert gathered(scale, [(size + shift, value) for size, value in order]) == pytest.approx(wanted, rel=1e-12)
        assert scale.log_reference == -1.0 + shift


@pytest.mark.parametrize("shifts", [(0.0, 0.0, 0.0), (-50.0, -50.0, -50.0), (0.0, -50.0, -60.0), (-38.0, -38.0, -38.0)])
def test_raw_counts_in_ones_at_the_steps_end(shifts):
    groups = [(size + shift, value) for (size, value), shift in zip(GROUPS, shifts, strict=True)]
    for order in itertools.permutations(groups):
        scale = StepScale("raw")
        assert gathered(scale, list(order)) == pytest.approx(sum(v * math.exp(s) for s, v in groups), rel=1e-12)
        assert scale.log_reference == -math.inf


def test_a_raw_step_does_not_multiply_with_coefficients_that_are_next_to_nothing():
    scale = StepScale("raw")
    scale.begin([nn.Parameter(torch.zeros(1))])
    assert [scale.admit(size) for size in (-90.0, -80.0, -85.0)] == [-90.0, -80.0, -80.0]
    assert [scale.admit(size) for size in (-39.0, -41.0, -90.0)] == [0.0, 0.0, None]


@pytest.mark.parametrize(("dtype", "resolution"), [(torch.float32, 2.0**-23), (torch.float64, 2.0**-52)])
def test_a_group_under_the_gradients_resolution_is_skipped_and_counted(dtype, resolution):
    scale = StepScale("batch")
    seen = math.log(resolution) - 2.0
    assert gathered(scale, [(0.0, 1.0), (seen, 1.0), (seen - 4.0, 1.0)], dtype) == pytest.approx(1.0)
    assert scale.skipped == 1


def test_dead_groups_have_no_part():
    scale = StepScale("batch")
    assert gathered(scale, [(-math.inf, 1.0), (-7.0, 3.0), (-math.inf, 1.0)]) == 3.0
    assert gathered(scale, [(-math.inf, 1.0)]) == 0.0
    assert scale.log_reference == -math.inf


def test_the_running_reference_rises_at_once_and_falls_slowly():
    scale = StepScale("running")
    assert gathered(scale, [(-50.0, 1.0)]) == 1.0
    assert gathered(scale, [(-1.0, 1.0)]) == 1.0
    assert gathered(scale, [(-9.0, 1.0)]) == pytest.approx(math.exp(-8.0 + DECAY))
    assert scale.log_reference == -1.0 - DECAY
    assert gathered(scale, [(-math.inf, 1.0)]) == 0.0
    assert scale.log_reference == -1.0 - 2 * DECAY


def test_an_unknown_scale_is_refused():
    with pytest.raises(ConfigError, match=r"model\.scale: given 'adam', allowed are raw, batch, running"):
        StepScale("adam")
