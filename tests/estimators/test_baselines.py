"""SFT, RFT, likelihood rewards and GARL without its pathwise part: against enumeration, by ``Trainer.fit``."""

from dataclasses import replace
from functools import partial
from itertools import product
from typing import Any

import exact
import pytest
import torch
from enumeration import END, A, Batches, Enumeration, World, fit, groups, quiet_trainer
from torch import Tensor

from jqlight.benchmarks import TwoHop
from jqlight.errors import ConfigError
from jqlight.estimators import GARL, GRPO, RFT, RLOO, SFT, Estimator, MaxRL
from jqlight.estimators.base import GroupSample
from jqlight.policy import PolicyConfig
from jqlight.sampling import Rollout, SamplerConfig
from jqlight.token_format import Thinking

EXACT = 1e-10  # relative to the gradient's norm


def relative(computed: Tensor, target: Tensor) -> float:
    return ((computed - target).norm() / target.norm()).item()


def expected(world: World, estimator: Estimator) -> Tensor:
    """Mean step over all pairs of rationales."""
    p = torch.tensor(world.priors, dtype=torch.float64)
    return torch.outer(p, p).flatten() @ groups(world, product(world.rationales, repeat=2), estimator)


# -- SFT ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rationale", "written"), [("empty", [END]), ("gold", [A, A, END])])
def test_sft_is_the_gradient_of_the_written_outputs_log_likelihood(
    world: World, rationale: str, written: list[int]
) -> None:
    estimator = SFT(**world.settings(), rationale=rationale)
    step = fit(estimator, [[replace(world.example, rationale="aa")]], [])[0]
    target = world.gradient(-world.token_log_p([], [*written, *world.example.target_ids]).sum())
    assert relative(step, target) < EXACT
    assert estimator.sampler.answers == [], "nothing is sampled"


def test_sft_takes_the_mean_over_prompts(world: World) -> None:
    written = [replace(world.example, id=text, rationale=text) for text in ("a", "aa")]
    together = fit(SFT(**world.settings(), rationale="gold"), [written], [])[0]
    alone = [fit(SFT(**world.settings(), rationale="gold"), [[example]], [])[0] for example in written]
    assert relative(together, (alone[0] + alone[1]) / 2) < EXACT


def test_gold_rationales_are_refused_where_the_data_have_none(world: World) -> None:
    given = "model.rationale: given gold, but Batches has no rationale for only; allowed is empty"
    with pytest.raises(ConfigError, match=given):
        fit(SFT(**world.settings(), rationale="gold"), [[world.example]], [])
    with pytest.raises(ConfigError, match="given 'none', allowed are empty and gold"):
        SFT(**world.settings(), rationale="none")


# -- RFT ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rollouts", [1, 2, 3])
def test_rft_expects_maxrls_sum_with_one_term_more(bare_world: World, rollouts: int) -> None:
    """(1 - (1-P)^M) / P · grad P, since the kept outputs are samples of p(z, y | right); over all tuples of outputs."""
    outputs, p = bare_world.outputs, bare_world.success().item()
    log_p = torch.stack([bare_world.log_prior(o) + bare_world.log_output(o) for o in outputs])
    right = torch.tensor([o.answer_ids == list(bare_world.example.target_ids) for o in outputs]).double()
    drawn = torch.cartesian_prod(*[torch.arange(len(outputs))] * rollouts).view(-1, rollouts)
    estimator = RFT(**bare_world.settings(), rollouts=rollouts)
    weights = estimator.coefficients(right[drawn], GroupSample(bare_world.example, [], None)).score
    chance = log_p.detach()[drawn].sum(-1).exp()
    mean = bare_world.gradient(-(chance[:, None] * weights * log_p[drawn]).sum())
    assert relative(mean, (1 - (1 - p) ** rollouts) / p * bare_world.loss_gradient(0.0)) < EXACT


def test_rft_takes_the_mean_over_the_kept_and_nothing_without_any(bare_world: World) -> None:
    right = [o for o in bare_world.outputs if o.answer_ids == list(bare_world.example.target_ids)][:2]
    wrong = next(o for o in bare_world.outputs if o.answer_ids == [0])
    steps = groups(bare_world, [[*right, wrong], [wrong] * 3], RFT(**bare_world.settings(), rollouts=3))
    target = bare_world.gradient(-sum(bare_world.log_prior(o) + bare_world.log_output(o) for o in right) / 2)
    assert relative(steps[0], target) < EXACT and not steps[1].any()


def test_rft_counts_groups_without_a_hit(bare_world: World) -> None:
    right = next(o for o in bare_world.outputs if o.answer_ids == list(bare_world.example.target_ids))
    wrong = next(o for o in bare_world.outputs if o.answer_ids == [0])
    estimator = RFT(**bare_world.settings(), rollouts=2)
    estimator.policy.load()
    estimator.sampler = Enumeration([[[wrong, wrong], [right, wrong], [wrong, wrong]]])
    batch = [replace(bare_world.example, id=name) for name in "abc"]
    trainer = quiet_trainer()
    trainer.fit(estimator, datamodule=Batches([batch]))
    assert trainer.callback_metrics["train/dead_groups"] == 2
    assert trainer.callback_metrics["train/success"].item() == pytest.approx(1 / 6)


# -- rewards -----------------------------------------------------------------------------------------------------------


def reward_of(world: World, name: str, z: Rollout) -> Tensor:
    log_p = world.token_log_p(z.rationale_ids + z.forced_ids, list(world.example.target_ids)).detach()
    return log_p.sum() if name == "log_probability" else log_p.exp().mean()


@pytest.mark.parametrize("reward", ["log_probability", "mean_probability"])
def test_a_likelihood_reward_is_a_policy_gradient_on_rationales(world: World, reward: str) -> None:
    """RLOO expects -sum_z r(z) grad p(z): the gold answer's tokens gave the reward and are not trained on it."""
    estimator = RLOO(**world.settings(), rollouts=2, reward=reward)
    mean = expected(world, estimator)
    value = sum(world.log_prior(z).exp() * reward_of(world, reward, z) for z in world.rationales)
    assert relative(mean, world.gradient(-value)) < EXACT
    assert set(estimator.sampler.answers) == {False}, "no answer is sampled"


def test_maxrl_on_mean_probability(world: World) -> None:
    pair = world.rationales[:2]
    step = groups(world, [pair], MaxRL(**world.settings(), rollouts=2, reward="mean_probability"))[0]
    rewards = [reward_of(world, "mean_probability", z) for z in pair]
    mean = sum(rewards) / 2
    target = world.gradient(
        -sum((r - mean) / mean * world.log_prior(z) for r, z in zip(rewards, pair, strict=True)) / 2
    )
    assert relative(step, target) < EXACT


def test_kl_of_a_likelihood_reward_is_that_of_the_rationale(three_token_gpt2: str) -> None:
    start, moved = World(three_token_gpt2), World(three_token_gpt2)
    options: dict[str, Any] = {"rollouts": 2, "kl": 0.5, "scale_rewards": False, "reward": "log_probability"}
    estimator = GRPO(**start.settings(), **options)
    estimator.policy.load()
    with torch.no_grad():
        for ours, theirs in zip(estimator.policy.parameters(), moved.model.parameters(), strict=True):
            ours.mul_(1.1)
            theirs.copy_(ours)
    pair = moved.rationales[:2]
    step = groups(moved, [pair], estimator)[0]
    gap = [reward_of(moved, "log_probability", z) for z in pair]
    ratio = [(moved.log_prior(z) - start.log_prior(z)).item() for z in pair]
    advantage = (gap[0] - gap[1]) / 2 - 0.5 * (ratio[0] - ratio[1])
    target = moved.gradient(-advantage * (moved.log_prior(pair[0]) - moved.log_prior(pair[1])) / 2)
    assert abs(ratio[0] - ratio[1]) > 0.01
    assert relative(step, target) < 1e-5  # the frozen model computes in float32


@pytest.mark.parametrize(("reward", "advantages"), [("", (1, -1)), ("exact_", (0, 0)), (None, (0, 0))])
def test_a_verifier_of_the_benchmark_as_reward(
    bare_world: World, reward: str | None, advantages: tuple[int, int]
) -> None:
    """By the paper's rule "aa" contains the gold "a"; by exact match, the benchmark's own, it is wrong."""
    pair = [next(o for o in bare_world.outputs if o.answer_ids == y) for y in ([A, A], [END, END])]
    step = groups(bare_world, [pair], RLOO(**bare_world.settings(), rollouts=2, reward=reward))[0]
    terms = [a * (bare_world.log_prior(o) + bare_world.log_output(o)) for a, o in zip(advantages, pair, strict=True)]
    torch.testing.assert_close(step, bare_world.gradient(-(terms[0] + terms[1]) / 2), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("make", "reward", "allowed"),
    [
        (GRPO, "f2_", "'', 'exact_', 'log_probability', 'mean_probability' and null"),
        (MaxRL, "log_probability", "'', 'exact_', 'mean_probability' and null"),
        (RFT, "mean_probability", "'', 'exact_' and null"),
    ],
)
def test_another_reward_is_refused(world: World, make: type[Estimator], reward: str, allowed: str) -> None:
    given = f"^model.reward: given '{reward}', allowed with {make.__name__} on Batches are {allowed}"
    with pytest.raises(ConfigError, match=given):
        groups(world, [], make(**world.settings(), rollouts=2, reward=reward))


# -- GARL without its pathwise part ------------------------------------------------------------------------------------


@pytest.mark.parametrize("baseline", [True, False])
@pytest.mark.parametrize("q", [0.0, 0.75, 1.0])
def test_garl_without_pathwise_is_its_score_part(world: World, q: float, baseline: bool) -> None:
    settings = {"q": q, "rollouts": 2, "baseline": baseline, "normalize": False, "pathwise": False}
    steps = groups(world, product(world.rationales, repeat=2), GARL(**world.settings(), **settings))
    for indices, step in zip(product(range(5), repeat=2), steps, strict=True):
        score, _ = exact.garl([world.log_weights[i] for i in indices], q, baseline=baseline, normalize=False)
        target = -torch.tensor([float(x) for x in score], dtype=torch.float64) @ world.scores[0][list(indices)]
        assert (step - target).norm().item() < EXACT * world.scores[0].norm().item()


def test_garl_without_pathwise_at_q_zero_is_reinforce_on_w(world: World) -> None:
    mean = expected(world, GARL(**world.settings(), q=0.0, rollouts=2, pathwise=False))
    value = sum(world.log_prior(z).exp() * world.log_weight(z).exp().detach() for z in world.rationales)
    assert relative(mean, world.gradient(-value)) < EXACT


# -- two steps with the bundled model ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        SFT,
        partial(SFT, rationale="gold"),
        partial(RFT, rollouts=4),
        partial(GRPO, rollouts=4, reward="log_probability"),
        partial(MaxRL, rollouts=4, reward="mean_probability"),
        partial(GARL, rollouts=4, pathwise=False),
    ],
    ids=repr,
)
def test_trains_with_an_engine_on_twohop(make: Any) -> None:
    policy = PolicyConfig("twohop", thinking=Thinking(start="", separator=""))
    sampler = SamplerConfig(engine="transformers", max_thinking_tokens=10, max_answer_tokens=8)
    estimator = make(policy, sampler, samples=2, optimizer=partial(torch.optim.SGD, lr=0.1))
    data = TwoHop(answer_format="ans {answer}", train_size=16, prompts_per_step=2, max_prompt_tokens=32)
    estimator.policy.load()
    before = [p.detach().clone() for p in estimator.policy.parameters()]
    trainer = quiet_trainer(max_steps=2)
    trainer.fit(estimator, datamodule=data)
    moved = [not torch.equal(a, b) for a, b in zip(before, estimator.policy.parameters(), strict=True)]
    assert any(moved) and trainer.global_step == 2
    # The model knows the answer behind the right two facts, and not at once.
    gold = make.keywords.get("rationale") if isinstance(make, partial) else None
    success = trainer.callback_metrics["train/success"].item()
    assert success > 0.8 if gold else success < 0.2 if make is SFT else 0 <= success <= 1
