"""Spliced commitment: its loss, its bounded weight, and what it does to each group; derived in docs/theory.md."""

import math

import pytest
import torch

from jqlight.errors import ConfigError
from jqlight.objective import Splice, garl, log_mean_exp

INF = math.inf
WARM = [-0.25, -0.83, -0.328, -1.7]
COLD = [-150.281, -150.716, -151.37]


@pytest.mark.parametrize("tau", [1e-4, 0.05, 0.5])
def test_splice_closed_form(tau: float) -> None:
    splice = Splice(tau)
    for p in (tau, 2 * tau, 0.9):
        assert splice.loss(p).item() == pytest.approx(1 - p)
    for p in (tau / 1e6, tau / 10, tau * (1 - 1e-12)):
        assert splice.loss(p).item() == pytest.approx((1 - tau) + tau * math.log(tau / p))
        assert splice(torch.tensor(p).double().log()).exp().item() == pytest.approx(tau / p, rel=1e-6)


def test_splice_is_continuous_with_its_derivative() -> None:
    tau, h = 0.05, 1e-9
    splice = Splice(tau)
    below, above = splice.loss(tau - h).item(), splice.loss(tau + h).item()
    assert below - above == pytest.approx(2 * h, rel=1e-6)
    slopes = [(splice.loss(p + h) - splice.loss(p)).item() / h for p in (tau - 2 * h, tau + h)]
    assert slopes == pytest.approx([-1.0, -1.0], abs=1e-6)


def test_splice_at_one_is_marginal_likelihood() -> None:
    log_w = torch.tensor([WARM], dtype=torch.float64)
    spliced, plain = garl(log_w, Splice(1.0)), garl(log_w, 1.0, normalize=False)
    torch.testing.assert_close(spliced.score, plain.score, rtol=1e-12, atol=1e-15)


def test_splice_takes_each_instance_for_itself() -> None:
    """Below tau a row is treated as q = 1 (times tau), from tau on as q = 0."""
    tau = 0.05
    log_w = torch.tensor([[-30.0, -31.0, -29.0], [-0.5, -1.0, -0.2]], dtype=torch.float64)
    result = garl(log_w, Splice(tau))
    torch.testing.assert_close(result.score[0], tau * garl(log_w[:1], 1.0, normalize=False).score[0])
    torch.testing.assert_close(result.score[1], garl(log_w[1:], 0.0).score[0])
    assert Splice(tau).q_at(log_mean_exp(log_w)).tolist() == [1.0, 0.0]


@pytest.mark.parametrize("log_p", [-0.2, -8.0, -300.0, -1200.0])
def test_splice_bounds_the_weight_of_a_corrupted_label(log_p: float) -> None:
    """The whole group's weight is max(tau, w̄): at most tau where the label is implausible, for any likelihood."""
    tau, spread = 0.02, torch.tensor([[0.0, -1.5, -4.0]], dtype=torch.float64)
    result = garl(log_p + spread, Splice(tau), baseline=False)
    mean = log_mean_exp(log_p + spread).exp().item()
    assert result.pathwise.sum().item() == pytest.approx(max(tau, mean), rel=1e-12)
    marginal = garl(log_p + spread, 1.0, baseline=False, normalize=False)
    assert marginal.pathwise.sum().item() == pytest.approx(1.0), "where q = 1 takes a full step"


def test_splice_is_not_normalised() -> None:
    log_w = torch.tensor([COLD], dtype=torch.float64)
    assert torch.equal(garl(log_w, Splice(0.1)).score, garl(log_w, Splice(0.1), normalize=False).score)


def test_splice_of_a_group_with_a_hopeless_rest() -> None:
    """A leave-one-out mean of zero gives the baseline tau, not NaN."""
    result = garl(torch.tensor([[-1.0, -INF]], dtype=torch.float64), Splice(0.1))
    assert (result.pathwise - result.score)[0, 0].item() == pytest.approx(0.05)


@pytest.mark.parametrize("tau", [0.0, -1.0, 1.5, math.nan])
def test_splice_out_of_range(tau: float) -> None:
    with pytest.raises(ConfigError, match=r"model\.q\.tau: given"):
        Splice(tau)
