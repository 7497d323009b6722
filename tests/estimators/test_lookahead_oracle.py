"""Rollouts drawn by other weights, through the step itself: their expectation at q = 0 is the on-policy one."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import product

import pytest
import torch
from enumeration import World, fit
from torch import Tensor
from transformers import AutoTokenizer, GPT2LMHeadModel

from jqlight.estimators import GARL, RLOO, Estimator, rollouts
from jqlight.objective import garl, reweighted, rloo
from jqlight.sampling import Rollout

POOL = (0, 3, 1, 4)


@pytest.fixture(scope="module")
def moved(three_token_gpt2: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of the three-token model with other weights: what the rollouts are drawn from."""
    folder = tmp_path_factory.mktemp("moved")
    model = GPT2LMHeadModel.from_pretrained(three_token_gpt2)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(three_token_gpt2).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def behaviour(moved: str) -> World:
    return World(moved)


@pytest.fixture(autouse=True)
def untruncated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ratios as they are, whose expectations are known in closed form."""
    monkeypatch.setattr(rollouts, "MAX_IMPORTANCE_RATIO", math.inf)


def settings(world: World) -> dict:
    plain = world.settings()
    return {**plain, "sampler": replace(plain["sampler"], lookahead=1)}


def stale_steps(
    world: World, fresh: Sequence[Rollout], samples: Iterable[Sequence[Rollout]], estimator: Estimator
) -> Tensor:
    """One step's gradient per group of ``samples``, each drawn ahead, behind a first step on ``fresh``."""
    script = [[list(group)] for group in (fresh, *samples)]
    return fit(estimator, [[world.example]] * len(script), script)[1:]


def relative(computed: Tensor, target: Tensor) -> float:
    return ((computed - target).norm() / target.norm()).item()


def test_the_two_policies_differ(world: World, behaviour: World) -> None:
    ratios = [p / b for p, b in zip(world.priors, behaviour.priors)]
    assert min(ratios) < 0.9 and max(ratios) > 1.1


@pytest.mark.parametrize(("size", "baseline"), [(1, False), (2, False), (2, True)])
def test_q_zero_expects_the_on_policy_gradient(world: World, behaviour: World, size: int, baseline: bool) -> None:
    estimator = GARL(**settings(world), q=0.0, rollouts=size, baseline=baseline)
    tuples = product(behaviour.rationales, repeat=size)
    steps = stale_steps(world, world.rationales[:size], tuples, estimator)
    chances = torch.tensor([math.prod(p) for p in product(behaviour.priors, repeat=size)], dtype=torch.float64)
    assert relative(chances @ steps, world.loss_gradient(0.0)) < 1e-12
    on_policy = torch.tensor([math.prod(p) for p in product(world.priors, repeat=size)], dtype=torch.float64)
    assert relative(on_policy @ steps, world.loss_gradient(0.0)) > 0.02, "the ratios matter"


@pytest.mark.parametrize("q", [0.25, 1.0])
def test_the_baseline_leaves_the_expectation(world: World, behaviour: World, q: float) -> None:
    chances = torch.tensor([math.prod(p) for p in product(behaviour.priors, repeat=2)], dtype=torch.float64)
    means = []
    for baseline in (True, False):
        estimator = GARL(**settings(world), q=q, rollouts=2, baseline=baseline)
        pairs = product(behaviour.rationales, repeat=2)
        means.append(chances @ stale_steps(world, world.rationales[:2], pairs, estimator))
    assert relative(means[0], means[1]) < 1e-12


@pytest.mark.parametrize("q", [0.0, 0.5, 1.0])
def test_the_plug_in_is_the_gradient_of_the_loss_at_the_weighted_mean(world: World, behaviour: World, q: float) -> None:
    """-log_q of the mean of p(z, y*) / b(z), by autograd; at q = 1 IWAE's bound with b for its proposal."""
    pool = [behaviour.rationales[i] for i in POOL]
    estimator = GARL(**settings(world), q=q, rollouts=4, baseline=False, normalize=False)
    step = stale_steps(world, [world.rationales[i] for i in POOL], [pool], estimator)[0]
    v = torch.stack(
        [(world.log_prior(z) + world.log_weight(z) - behaviour.log_prior(z).item()).exp() for z in pool]
    ).mean()
    assert relative(step, world.gradient(-v.log() if q == 1 else (1 - v ** (1 - q)) / (1 - q))) < 1e-12


def test_truncation_and_what_is_logged(world: World, behaviour: World, monkeypatch: pytest.MonkeyPatch) -> None:
    logged: list[dict[str, float]] = []
    monkeypatch.setattr(rollouts, "MAX_IMPORTANCE_RATIO", 1.1)
    estimator = GARL(**settings(world), q=0.75, rollouts=4, normalize=False)
    monkeypatch.setattr(estimator, "log_dict", lambda values, **_: logged.append(dict(values)))
    step = stale_steps(
        world, [world.rationales[i] for i in POOL], [[behaviour.rationales[i] for i in POOL]], estimator
    )[0]
    ratios = [world.priors[i] / behaviour.priors[i] for i in POOL]
    log_ratio = torch.tensor([[math.log(min(r, 1.1)) for r in ratios]], dtype=torch.float64)
    log_w = torch.tensor([[world.log_weights[i] for i in POOL]], dtype=torch.float64)
    coefficients = torch.cat(garl(log_w, 0.75, normalize=False, log_ratio=log_ratio))
    target = -torch.einsum("km,kmp->p", coefficients, world.scores[:, list(POOL)])
    assert relative(step, target) < 1e-12

    first, second = logged[0], logged[2]  # every step logs once more for the progress bar
    clipped = sum(r > 1.1 for r in ratios) / 4
    assert 0 < clipped < 1
    assert second["train/importance_clipped"] == clipped
    assert second["train/importance_ratio"] == pytest.approx(sum(ratios) / 4, rel=1e-9)
    assert (first["train/staleness"], second["train/staleness"]) == (0.0, 1.0)
    assert "train/importance_ratio" not in first
    assert first["train/logprob_gap"] < 1e-12
    assert math.isnan(second["train/logprob_gap"]), "the engine's log-probs are those of other weights"


def test_rloo_on_rewards_is_unbiased_too(bare_world: World, moved: str) -> None:
    """All pairs of (z, ŷ) drawn by the other weights, from the package's coefficients."""
    drawn = World(moved, separator="").outputs
    log_b = torch.tensor([math.fsum(o.rationale_logprobs + o.answer_logprobs) for o in drawn], dtype=torch.float64)
    log_p = torch.stack([bare_world.log_prior(o) + bare_world.log_output(o) for o in drawn])
    rewards = torch.tensor([float(tuple(o.answer_ids) == bare_world.example.target_ids) for o in drawn])
    pairs = torch.cartesian_prod(torch.arange(len(drawn)), torch.arange(len(drawn)))
    weights = reweighted(rloo(rewards[pairs]), (log_p.detach() - log_b)[pairs]).score
    chances = log_b[pairs].sum(1).exp()
    expected = bare_world.gradient(-(chances[:, None] * weights * log_p[pairs]).sum())
    assert relative(expected, bare_world.loss_gradient(0.0)) < 1e-12


def test_the_ratio_of_a_sampled_answer_is_of_rationale_and_answer(bare_world: World, moved: str) -> None:
    right, wrong = (
        next(i for i, o in enumerate(bare_world.outputs) if o.answer_ids == y and o.forced_ids) for y in ([2, 0], [0])
    )
    pair = [World(moved, separator="").outputs[i] for i in (right, wrong)]
    fresh = [bare_world.outputs[i] for i in (right, wrong)]
    step = stale_steps(bare_world, fresh, [pair], RLOO(**settings(bare_world), rollouts=2))[0]
    log_p = [bare_world.log_prior(o) + bare_world.log_output(o) for o in pair]
    log_b = [math.fsum(o.rationale_logprobs + o.answer_logprobs) for o in pair]
    ratios = [math.exp(p.item() - b) for p, b in zip(log_p, log_b)]
    target = bare_world.gradient(-(ratios[0] * log_p[0] - ratios[1] * log_p[1]) / 2)
    assert relative(step, target) < 1e-12
