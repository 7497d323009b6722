"""Settings of the estimators: what is refused, what is remembered, and what each option does to a step."""

import json
import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from enumeration import Batches, Enumeration, World, groups, quiet_trainer
from torch import Tensor

from jqlight.benchmarks import Example
from jqlight.errors import ConfigError
from jqlight.estimators import GARL, GRPO, PAFT, RLOO, Estimator, MaxRL
from jqlight.objective import Splice, Tsallis
from jqlight.schedules import Cosine, Step

ALL = [GARL, PAFT, GRPO, RLOO, MaxRL]


@pytest.mark.parametrize(
    ("make", "key"),
    [
        *[(partial(kind, rollouts=0), "model.rollouts: given 0") for kind in ALL],
        *[(partial(kind, rollouts=10**9), "model.rollouts: given 1000000000") for kind in ALL],
        (partial(GARL, samples=10**9), "model.samples: given 1000000000"),
        (partial(GRPO, kl=math.nan), "model.kl: given nan"),
        (partial(GRPO, eps=-1.0), "model.eps: given -1.0"),
        *[(partial(kind, rollouts=1), "model.rollouts: given 1") for kind in (GARL, GRPO, RLOO, MaxRL)],
        *[(partial(kind, samples=0), "model.samples: given 0") for kind in ALL],
        *[(partial(kind, max_grad_norm=-1.0), "model.max_grad_norm: given -1") for kind in ALL],
        *[(partial(kind, q=1.5), "model.q: given 1.5") for kind in (GARL, PAFT)],
        (partial(PAFT, num_resamples=0), "model.num_resamples: given 0"),
        (partial(GRPO, kl=-0.1), "model.kl: given -0.1"),
    ],
)
def test_refused(make: Callable[..., Estimator], key: str, world: World) -> None:
    settings = {k: v for k, v in world.settings().items() if k not in make.keywords}
    with pytest.raises(ConfigError, match=f"^{key}.*(allowed|needs)"):
        make(**settings)


@pytest.mark.parametrize("make", [partial(GARL, rollouts=1, baseline=False), partial(PAFT, rollouts=1)])
def test_one_rollout_is_enough_without_a_baseline(make: Callable[..., Estimator], world: World) -> None:
    step = groups(world, [world.rationales[:1]], make(**world.settings(), q=0.0))[0]
    log_joint = world.log_prior(world.rationales[0]) + world.log_weight(world.rationales[0])
    target = world.gradient(-math.exp(world.log_weights[0]) * log_joint)
    torch.testing.assert_close(step, target, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", ALL)
def test_hyperparameters_are_primitives(kind: type[Estimator], world: World) -> None:
    estimator = kind(**world.settings(), rollouts=4)
    remembered = json.loads(json.dumps(dict(estimator.hparams)))
    assert remembered["estimator"] == kind.__name__ and remembered["rollouts"] == 4
    assert remembered["policy"]["name_or_path"] == world.path


def test_hyperparameters_name_schedules(world: World) -> None:
    assert GARL(**world.settings(), q=Cosine(10)).hparams["q"] == "cosine(1->0@10)"
    assert PAFT(**world.settings(), q=Splice(0.1)).hparams["q"] == "splice(0.1)"
    assert GARL(**world.settings(), q=0.5).hparams["q"] == 0.5
    assert GARL(**world.settings(), q=Tsallis(0.5)).hparams["q"] == 0.5


def test_hyperparameters_hold_the_numbers_that_make_a_commitment(world: World) -> None:
    def of(q: object) -> dict[str, object]:
        hparams = GARL(**world.settings(), q=q).hparams
        return {key.removeprefix("commitment."): value for key, value in hparams.items() if key.startswith("commit")}

    assert of(0.5) == {"commitment": "tsallis"}
    assert of(Splice(0.1)) == {"commitment": "splice", "tau": 0.1}
    assert of(Step(70, end=0.25)) == {"commitment": "step", "steps": 70, "start": 1.0, "end": 0.25}


# -- GRPO's options ----------------------------------------------------------------------------------------------------


def log_p(world: World, rollout: object) -> Tensor:
    return world.log_prior(rollout) + world.log_output(rollout)


def right_and_wrong(world: World) -> list:
    right = next(o for o in world.outputs if tuple(o.answer_ids) == world.example.target_ids and o.forced_ids)
    wrong = next(o for o in world.outputs if o.answer_ids == [0] and len(o.rationale_ids) == 1)
    return [right, wrong]


def test_unscaled_rewards(bare_world: World) -> None:
    pair = right_and_wrong(bare_world)
    step = groups(bare_world, [pair], GRPO(**bare_world.settings(), rollouts=2, scale_rewards=False))[0]
    target = bare_world.gradient(-(0.5 * log_p(bare_world, pair[0]) - 0.5 * log_p(bare_world, pair[1])) / 2)
    torch.testing.assert_close(step, target, rtol=1e-9, atol=1e-12)


def test_length_normalisation_divides_by_sampled_tokens(bare_world: World) -> None:
    pair = right_and_wrong(bare_world)
    settings = {**bare_world.settings(), "rollouts": 2, "scale_rewards": False, "length_normalize": True}
    step = groups(bare_world, [pair], GRPO(**settings))[0]
    lengths = [len(o.rationale_ids) + len(o.answer_ids) for o in pair]
    assert lengths[0] != lengths[1]
    terms = [a * log_p(bare_world, o) / n for a, o, n in zip((0.5, -0.5), pair, lengths, strict=True)]
    torch.testing.assert_close(step, bare_world.gradient(-(terms[0] + terms[1]) / 2), rtol=1e-9, atol=1e-12)


def test_kl_weights_are_log_ratios_less_those_of_the_others(three_token_gpt2: str) -> None:
    """The policy is moved away from the starting model, which stays as it was."""
    start, moved = World(three_token_gpt2, separator=""), World(three_token_gpt2, separator="")
    estimator = GRPO(**start.settings(), rollouts=2, kl=0.5, scale_rewards=False)
    estimator.policy.load()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for ours, theirs in zip(estimator.policy.parameters(), moved.model.parameters(), strict=True):
            ours.add_(torch.randn(ours.shape, generator=generator) * 0.1)
            theirs.copy_(ours)
    pair = right_and_wrong(moved)
    step = groups(moved, [pair], estimator)[0]
    ratios = [log_p(moved, o).item() - log_p(start, o).item() for o in pair]
    weights = [a - 0.5 * (r - other) for a, r, other in zip((0.5, -0.5), ratios, ratios[::-1], strict=True)]
    target = moved.gradient(-(weights[0] * log_p(moved, pair[0]) + weights[1] * log_p(moved, pair[1])) / 2)
    assert abs(ratios[0] - ratios[1]) > 0.01
    torch.testing.assert_close(step, target, rtol=1e-5, atol=1e-7)


# -- evaluation --------------------------------------------------------------------------------------------------------


class Questions(Batches):
    """The same batches for every stage."""

    val_dataloader = test_dataloader = predict_dataloader = Batches.train_dataloader


def questions(world: World, count: int) -> list[Example]:
    """A right answer is "a"."""
    return [Example(f"q{i}", "", world.prompt_ids, "a", world.example.target_ids, ("a",)) for i in range(count)]


def evaluating(world: World) -> tuple[Estimator, list]:
    """Two questions, three samples each: two of three right for the first, one for the second."""
    right = next(o for o in world.outputs if o.answer_ids == [2, 0])
    wrong = next(o for o in world.outputs if o.answer_ids == [1, 0])
    estimator = GARL(**world.settings(), samples=3)
    return estimator, [[right, wrong, right], [wrong, wrong, right]]


@pytest.mark.parametrize(("verb", "stage"), [("validate", "val"), ("test", "test")])
def test_scores(verb: str, stage: str, bare_world: World) -> None:
    estimator, drawn = evaluating(bare_world)
    estimator.sampler = Enumeration([drawn])
    data = Questions([questions(bare_world, 2)])
    (scores,) = getattr(quiet_trainer(limit_val_batches=1), verb)(estimator, data, verbose=False)
    assert scores[f"{stage}/pass_at_1"] == pytest.approx(0.5) and scores[f"{stage}/pass_at_3"] == 1.0
    assert scores[f"{stage}/maj_at_3"] == scores[f"{stage}/exact_maj_at_3"] == pytest.approx(0.5)
    assert estimator.sampler.syncs == 1, "the engine gets the checkpoint's weights"
    assert estimator.sampler.answers == [True]


@pytest.mark.parametrize("precision", ["bf16-true", "64-true"])
def test_a_precision_that_the_step_does_not_honour_is_refused(precision: str, bare_world: World) -> None:
    estimator, drawn = evaluating(bare_world)
    estimator.sampler = Enumeration([drawn])
    with pytest.raises(ConfigError, match=f"trainer.precision: given {precision}, allowed are 32-true and bf16-mixed"):
        quiet_trainer(precision=precision).validate(estimator, Questions([questions(bare_world, 2)]), verbose=False)


def test_predictions_are_readable(bare_world: World) -> None:
    estimator, drawn = evaluating(bare_world)
    estimator.sampler = Enumeration([drawn])
    (rows,) = quiet_trainer().predict(estimator, Questions([questions(bare_world, 2)]))
    assert [row["id"] for row in rows] == ["q0", "q1"]
    assert rows[0]["references"] == ["a"]
    assert rows[0]["answers"] == ["a", "</think>", "a"] and len(rows[1]["rationales"]) == 3


def test_every_rollout_has_its_own_seed(bare_world: World) -> None:
    """A function of run seed, stage, step, id and m: not of the batch or the order."""
    asked: list[list[list[int]]] = []

    class Listening(Enumeration):
        def sample(self, prompts, seeds, **options):
            asked.append(seeds)
            return [[bare_world.rationales[0]] * len(row) for row in seeds]

    estimator = GARL(**bare_world.settings(), rollouts=3)
    estimator.sampler = Listening([])
    examples = questions(bare_world, 2)
    for stage, step, batch in [("train", 0, examples), ("train", 0, examples[::-1]), ("train", 1, examples)]:
        estimator.sample(batch, stage, 3, step=step, answers=False)
    estimator.sample(examples, "val", 3)
    assert asked[0] == asked[1][::-1]
    flat = [seed for i in (0, 2, 3) for row in asked[i] for seed in row]
    assert len(set(flat)) == len(flat) == 18
