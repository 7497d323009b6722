"""Coefficients of rollouts drawn by another policy: the formulas with v = rho w, and nothing new at rho = 1."""

import math

import pytest
import torch

from jqlight.objective import Coefficients, Splice, garl, grpo, paft, reweighted, rloo, truncated

W = [0.3, 0.02, 0.11]
RHO = [0.5, 1.7, 1.2]
LOG_W = torch.tensor([W, W[::-1]], dtype=torch.float64).log()
LOG_RATIO = torch.tensor([RHO, RHO[::-1]], dtype=torch.float64).log()
HARD = torch.tensor([[-600.0, -50.0, -52.0], [-math.inf] * 3, [-math.inf, -3.0, 0.0]], dtype=torch.float64)


@pytest.mark.parametrize("baseline", [True, False])
@pytest.mark.parametrize("q", [0.0, 0.75, 1.0, Splice(0.05)], ids=repr)
def test_a_ratio_of_one_changes_no_bit(q: float | Splice, baseline: bool) -> None:
    for log_w in (LOG_W, HARD):
        one = torch.zeros_like(log_w)
        for plain, ratio in zip(garl(log_w, q, baseline=baseline), garl(log_w, q, baseline=baseline, log_ratio=one)):
            assert torch.equal(plain, ratio)
        draws = [
            paft(log_w, q, generator=torch.Generator().manual_seed(0), log_ratio=ratio).score for ratio in (None, one)
        ]
        assert torch.equal(*draws)
    rewards = torch.tensor([[1.0, 0.0, 1.0]])
    for plain, ratio in zip(grpo(rewards), reweighted(grpo(rewards), torch.zeros(1, 3, dtype=torch.float64))):
        assert torch.equal(plain, ratio)


@pytest.mark.parametrize("q", [0.0, 0.25, 1.0])
def test_garl_has_v_for_w_and_pays_the_baseline_with_its_own_ratio(q: float) -> None:
    v = [r * w for r, w in zip(RHO, W)]
    pathwise = [x / (sum(v) / 3) ** q / 3 for x in v]
    others = [(sum(v) - x) / 2 for x in v]
    score = [p - r * o ** (1 - q) / 3 for p, r, o in zip(pathwise, RHO, others)]
    got = garl(LOG_W, q, normalize=False, log_ratio=LOG_RATIO)
    assert got.pathwise[0].tolist() == pytest.approx(pathwise, rel=1e-12)
    assert got.score[0].tolist() == pytest.approx(score, rel=1e-12)
    assert got.score[1].tolist() == pytest.approx(score[::-1], rel=1e-12)
    plain = garl(LOG_W, q, baseline=False, normalize=False, log_ratio=LOG_RATIO)
    assert plain.score[0].tolist() == pytest.approx(pathwise, rel=1e-12)


def test_paft_draws_in_proportion_to_v(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def draw(probabilities: torch.Tensor, *_: object, **__: object) -> torch.Tensor:
        asked.append(probabilities)
        return torch.tensor([[1, 1, 0]])

    monkeypatch.setattr(torch, "multinomial", draw)
    got = paft(LOG_W[:1], 0.5, normalize=False, log_ratio=LOG_RATIO[:1])
    v = [r * w for r, w in zip(RHO, W)]
    assert asked[0][0].tolist() == pytest.approx([x / sum(v) for x in v], rel=1e-12)
    weight = (sum(v) / 3) ** 0.5
    assert got.score[0].tolist() == pytest.approx([weight / 3, 2 * weight / 3, 0.0], rel=1e-12)


def test_rewards_coefficients_are_multiplied() -> None:
    plain = rloo(torch.tensor([[1.0, 0.0, 0.0]]))
    got = reweighted(plain, LOG_RATIO[:1])
    for values, weighted in zip(plain, got):
        assert weighted[0].tolist() == pytest.approx([c * r for c, r in zip(values[0].tolist(), RHO)], rel=1e-12)
    assert reweighted(plain, None) is plain


def test_truncation_is_of_the_ratio_and_leaves_small_ones() -> None:
    assert truncated(LOG_RATIO[0], 1.5).exp().tolist() == pytest.approx([0.5, 1.5, 1.2])
    assert torch.equal(truncated(LOG_RATIO, math.inf), LOG_RATIO)


def test_a_rollout_that_the_policy_cannot_make_any_more_counts_for_nothing() -> None:
    gone = torch.tensor([[0.0, -math.inf, 0.0]], dtype=torch.float64)
    got = garl(LOG_W[:1], 0.75, log_ratio=gone)
    assert got.pathwise[0, 1] == 0 and got.score[0, 1] == 0
    assert got.score.isfinite().all() and (got.pathwise[0, [0, 2]] > 0).all()
    weights = reweighted(Coefficients(LOG_W[:1], LOG_W[:1]), gone)
    assert weights.score[0, 1] == 0
