"""Coefficients in units of a group's own size: the same direction, and blind to a common factor of all weights."""

import pytest
import torch
from test_objective import GROUPS, INF, Q

from jqlight.objective import Splice, garl, garl_log_size, paft, paft_log_size


@pytest.mark.parametrize("name", GROUPS)
@pytest.mark.parametrize("q", [*Q, Splice(0.05)])
def test_in_units_of_its_size_a_group_has_the_same_direction_and_a_largest_weight_of_one(name: str, q) -> None:
    log_w = torch.tensor([GROUPS[name]], dtype=torch.float64)
    size = garl_log_size(log_w, q)
    scaled, plain = garl(log_w, q, log_unit=size.unsqueeze(-1)), garl(log_w, q)
    rollouts = log_w.shape[1]
    assert scaled.pathwise.max().item() == pytest.approx(1 / rollouts, rel=1e-12)
    assert scaled.score.abs().max() <= scaled.pathwise.max() * (1 + 1e-12)
    factor = size.exp().item()
    if factor > 1e-290:
        for one, other in zip(scaled, plain, strict=True):
            torch.testing.assert_close(one * factor, other, rtol=1e-12, atol=1e-12 * factor)
    drawn = [
        paft(log_w, q, generator=torch.Generator().manual_seed(1), log_unit=unit)
        for unit in (0.0, paft_log_size(log_w, q))
    ]
    assert drawn[1].score.sum().item() == pytest.approx(1.0, rel=1e-12)
    torch.testing.assert_close(drawn[1].score * paft_log_size(log_w, q).exp(), drawn[0].score, rtol=1e-12, atol=0)


@pytest.mark.parametrize("q", Q)
@pytest.mark.parametrize("shift", [-50.0, -5000.0])
def test_scaled_coefficients_do_not_see_a_common_factor_of_all_weights(q: float, shift: float) -> None:
    log_w = torch.tensor([[-1.0, -3.5, -2.0]], dtype=torch.float64)
    plain, low = (garl(x, q, log_unit=garl_log_size(x, q).unsqueeze(-1)) for x in (log_w, log_w + shift))
    for one, other in zip(low, plain, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-12)


def test_a_dead_group_has_no_size() -> None:
    log_w = torch.tensor([[-INF, -INF], [-1.0, -INF]], dtype=torch.float64)
    for size in (garl_log_size(log_w, 0.5), paft_log_size(log_w, 0.5)):
        assert size[0] == -INF and size[1] > -INF
