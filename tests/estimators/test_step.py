"""A real training step: equal to sequences scored one by one, for any batching; masks, edges and schedules."""

import math
import random
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import exact
import pytest
import torch
from enumeration import A, World, fit, groups
from lightning import Callback, Trainer
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from jqlight.benchmarks import Example
from jqlight.errors import EngineError, NonFiniteError
from jqlight.estimators import GARL, GRPO, PAFT, Estimator
from jqlight.objective import Coefficients, Splice
from jqlight.policy import Group, PolicyConfig
from jqlight.sampling import Rollout, SamplerConfig
from jqlight.schedules import Cosine, Linear, Step

END = 4  # </think> of the tiny models
TARGET = (101, 101, 15, 16, 1)  # separator, "ab", end of sequence
# Rotary positions and norms of Qwen3 and Llama are computed in float32 for weights of any format.
TOLERANCE = {"tiny_gpt2": 1e-10, "tiny_qwen3": 1e-6, "tiny_llama": 1e-6}
MODELS = list(TOLERANCE)


def relative(computed: Tensor, target: Tensor) -> float:
    return ((computed - target).norm() / target.norm()).item()


def make_batch(prompts: int, rollouts: int, *, answers: bool = False) -> tuple[list[Example], list[list[Rollout]]]:
    """Prompts and rationales of very different lengths, some cut at the budget; one rationale is drawn twice."""
    numbers = random.Random(5)

    def tokens(count: int) -> list[int]:
        return [numbers.randrange(5, 100) for _ in range(count)]

    examples, drawn = [], []
    for i in range(prompts):
        examples.append(Example(f"question-{i}", "", tuple(tokens(3 + 5 * i)), "ab", TARGET, ("ab",)))
        group = []
        for m in range(rollouts):
            cut = m % 3 == 1
            z = tokens(1 + (7 * m) % 11) + ([] if cut else [END])
            y = (list(TARGET) if m % 2 else [*tokens(1 + m), 1]) if answers else []
            group.append(Rollout(z, [], [END] if cut else [], y, []))
        group[-1] = group[0]
        drawn.append(group)
    return examples, drawn


def settings(path: str, **policy: object) -> dict:
    sampler = SamplerConfig("transformers", max_thinking_tokens=16, max_answer_tokens=16)
    common = {"sampler": sampler, "max_grad_norm": math.inf}
    return {"policy": PolicyConfig(path, **policy), **common}


def with_policy(make, path: str, *, share_prompt: bool = True, **policy: object) -> Estimator:
    estimator = make(**settings(path, **policy))
    estimator.policy.share_prompt = share_prompt
    return estimator


def one_step(estimator: Estimator, examples: list[Example], drawn: list[list[Rollout]]) -> Tensor:
    return fit(estimator, [examples], [drawn])[0]


def naive_step(
    path: str, examples: Sequence[Example], drawn: Sequence[Sequence[Rollout]], q: float, *, wrong: str = ""
) -> Tensor:
    """The mean over prompts of eq. (12): unpadded sequences one by one, coefficients in 60-digit arithmetic.

    ``wrong`` names a mistake to make: score the forced tokens, or leave out the separator or the end of sequence.
    """
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float64).eval()
    loss = torch.zeros((), dtype=torch.float64)
    for example, group in zip(examples, drawn, strict=True):
        log_z, log_y = [], []
        for rollout in group:
            z, forced = rollout.rationale_ids, rollout.forced_ids
            ids = torch.tensor([[*example.prompt_ids, *z, *forced, *example.target_ids]])
            log_p = model(input_ids=ids).logits[0, :-1].double().log_softmax(-1)
            tokens = log_p.gather(1, ids[0, 1:, None])[len(example.prompt_ids) - 1 :, 0]
            scored = len(z) + (len(forced) if wrong == "forced" else 0)
            start = len(z) + len(forced) + (1 if wrong == "separator" else 0)
            log_z.append(tokens[:scored].sum())
            log_y.append(tokens[start : len(tokens) - (1 if wrong == "eos" else 0)].sum())
        weights = exact.garl([y.item() for y in log_y], q, baseline=True, normalize=True)
        for score, pathwise, z_m, y_m in zip(*weights, log_z, log_y, strict=True):
            loss = loss - (float(score) * z_m + float(pathwise) * y_m) / len(examples)
    loss.backward()
    return torch.cat([p.grad.flatten() for p in model.parameters()])


# -- one number, however it is computed ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_step_equals_unpadded_sequences_one_by_one(name: str, request: pytest.FixtureRequest) -> None:
    path = request.getfixturevalue(name)
    batch = make_batch(3, 5)
    target = naive_step(path, *batch, 0.75)
    for policy in ({}, {"share_prompt": False}, {"micro_batch_tokens": 1}, {"gradient_checkpointing": True}):
        step = one_step(with_policy(partial(GARL, q=0.75, rollouts=5), path, **policy), *batch)
        assert relative(step, target) < TOLERANCE[name], policy


@pytest.mark.parametrize("make", [partial(GARL, q=0.5), GRPO])
@pytest.mark.parametrize("name", MODELS)
def test_eight_micro_batches_of_one_equal_one_of_eight(name: str, make, request: pytest.FixtureRequest) -> None:
    path = request.getfixturevalue(name)
    batch = make_batch(2, 8, answers=make is GRPO)
    results = [
        one_step(with_policy(partial(make, rollouts=8), path, share_prompt=share, micro_batch_tokens=tokens), *batch)
        for share in (True, False)
        for tokens in (1, 40, 100_000)
    ]
    for result in results[1:]:
        assert relative(result, results[0]) < TOLERANCE[name]


@pytest.mark.parametrize("make", [partial(GARL, q=0.75), partial(GARL, q=Splice(0.05)), GRPO])
def test_order_of_rollouts_and_prompts(make, tiny_gpt2: str) -> None:
    examples, drawn = make_batch(3, 6, answers=make is GRPO)
    given = one_step(make(**settings(tiny_gpt2), rollouts=6), examples, drawn)
    numbers = random.Random(1)
    for group in drawn:
        numbers.shuffle(group)
    turned = one_step(make(**settings(tiny_gpt2), rollouts=6), examples[::-1], drawn[::-1])
    assert relative(turned, given) < 1e-10


def test_one_batch_of_prompts_is_the_mean_of_single_ones(tiny_gpt2: str) -> None:
    examples, drawn = make_batch(4, 3)
    steps = fit(GARL(**settings(tiny_gpt2), rollouts=3), [[e] for e in examples], [[d] for d in drawn])
    together = one_step(GARL(**settings(tiny_gpt2), rollouts=3), examples, drawn)
    assert relative(together, steps.mean(0)) < 1e-10


def test_paft_leaves_undrawn_rationales_out(tiny_gpt2: str) -> None:
    """One draw: the step is that rationale's supervised gradient, weighted by w̄^(1-q)."""
    examples, drawn = make_batch(1, 4)
    step = one_step(PAFT(**settings(tiny_gpt2), q=0.5, rollouts=4, num_resamples=1, normalize=False), examples, drawn)
    candidates = []
    for rollout in drawn[0]:
        sft = one_step(
            PAFT(**settings(tiny_gpt2), q=1.0, rollouts=1, num_resamples=1, normalize=False), examples, [[rollout]]
        )
        cosine = torch.nn.functional.cosine_similarity(step, sft, dim=0).item()
        candidates.append((cosine, (step.norm() / sft.norm()).item()))
    cosine, weight = max(candidates)
    assert cosine == pytest.approx(1, abs=1e-10) and 0 < weight < 1


# -- masks: each test fails when the mask is wrong -------------------------------------------------------------------


@pytest.mark.parametrize("wrong", ["forced", "separator", "eos"])
def test_masks(wrong: str, tiny_gpt2: str) -> None:
    """Forced tokens have no score gradient; separator and end of sequence count in p(y*|x*, z)."""
    batch = make_batch(2, 4)
    step = one_step(GARL(**settings(tiny_gpt2), q=0.75, rollouts=4), *batch)
    assert relative(step, naive_step(tiny_gpt2, *batch, 0.75)) < 1e-10
    assert relative(step, naive_step(tiny_gpt2, *batch, 0.75, wrong=wrong)) > 1e-2


def test_targets_hold_separator_and_end(tiny_gpt2: str) -> None:
    estimator = GARL(**settings(tiny_gpt2))
    ids = estimator.token_format.encode_target("ab")
    assert estimator.token_format.decode(ids) == "\n\nab<eos>" and tuple(ids) == TARGET
    continuation = estimator.continuation(
        Example("a", "", (5,), "ab", tuple(ids), ("ab",)), Rollout([7], [], [END], [9, 9], [])
    )
    assert continuation == ([7], [END], ids), "the gold answer, not a sampled one"


# -- what may go wrong -----------------------------------------------------------------------------------------------


class Logged(Callback):
    """All metrics of every step."""

    def __init__(self) -> None:
        self.steps: list[dict[str, float]] = []

    def on_train_batch_end(self, trainer: Trainer, *_: object) -> None:
        self.steps.append({name: float(value) for name, value in trainer.callback_metrics.items()})


def test_nan_names_the_example_and_touches_nothing(tiny_gpt2: str) -> None:
    """A NaN in the embedding of a token that only the second prompt has."""
    examples, drawn = make_batch(2, 3)
    examples[1] = Example("broken one", "", (104, 5, 6), "ab", TARGET, ("ab",))
    estimator = GARL(**settings(tiny_gpt2), rollouts=3)
    estimator.policy.load()
    with torch.no_grad():
        estimator.policy.model.transformer.wte.weight[104] = math.nan
    # Tied weights make the token's logit NaN too; the first prompt must be scored without it.
    estimator.policy.model.lm_head.weight = torch.nn.Parameter(
        estimator.policy.model.transformer.wte.weight.detach().nan_to_num(0.0)
    )
    before = [p.detach().clone() for p in estimator.policy.parameters()]
    with pytest.raises(NonFiniteError, match=r"step 0: example broken one: .* weights and optimizer are those"):
        fit(estimator, [examples], [drawn], dtype=torch.float32)
    for old, new in zip(before, estimator.policy.parameters(), strict=True):
        assert torch.equal(old.nan_to_num(9.0), new.detach().nan_to_num(9.0))
    assert estimator.sampler.syncs == 1, "no sync after a failed step"


def test_infinite_gradient_stops_before_the_weights(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    estimator = GARL(**world.settings(), rollouts=2)
    endless = torch.full((1, 2), math.inf, dtype=torch.float64)
    monkeypatch.setattr(estimator, "coefficients", lambda *_: Coefficients(endless, endless))
    with pytest.raises(NonFiniteError, match="step 0: the gradient's norm"):
        groups(world, [world.rationales[:2]], estimator)


@pytest.mark.parametrize("make", [partial(GARL, q=0.75), partial(GARL, q=Splice(0.1)), partial(PAFT, q=1.0)])
def test_dead_groups_have_no_gradient_and_are_counted(make, world: World) -> None:
    """A model that cannot end a sequence: every log-weight is -inf where the target holds the end."""
    estimator = make(**world.settings(), rollouts=3)
    estimator.policy.load()
    with torch.no_grad():
        estimator.policy.model.transformer.ln_f.weight.zero_()
        estimator.policy.model.transformer.ln_f.bias.fill_(1.0)
        estimator.policy.model.transformer.wte.weight[0] = -3e38
    dead = world.example
    alive = Example("alive", "", dead.prompt_ids, "a", (2,), ("a",))
    # Of one length: a padded row would take the broken embedding in.
    rollouts = [Rollout(z, []) for z in ([2, 1], [1, 1], [2, 1])]
    logged = Logged()
    batches, script = [[dead, dead], [dead, alive]], [[rollouts] * 2] * 2
    steps = fit(estimator, batches, script, dtype=torch.float32, callbacks=[logged])
    assert (steps[0] == 0).all() and logged.steps[0]["train/dead_groups"] == 2
    assert steps[1].isfinite().all() and (steps[1] != 0).any() and logged.steps[1]["train/dead_groups"] == 1


def test_an_engine_with_other_weights_is_noticed(world: World) -> None:
    z = world.rationales[3]
    shifted = Rollout(z.rationale_ids, [p - 0.01 for p in z.rationale_logprobs], z.forced_ids)
    with pytest.raises(EngineError, match=r"step 0: .*logprob_gap is 0\.01 nats"):
        groups(world, [[z, shifted]], GARL(**world.settings(), rollouts=2))
    settings = world.settings()
    settings["sampler"] = replace(settings["sampler"], dtype="bfloat16")  # rounds, and may differ by more than this
    assert groups(world, [[z, shifted]], GARL(**settings, rollouts=2))[0].isfinite().all()


def test_clipping_scales_the_gradient(world: World) -> None:
    free = groups(world, [world.rationales[:2]], GARL(**world.settings(), rollouts=2))[0]
    limit = free.norm().item() / 10
    estimator = GARL(**{**world.settings(), "max_grad_norm": limit}, rollouts=2)
    logged = Logged()
    clipped = fit(estimator, [[world.example]], [[world.rationales[:2]]], callbacks=[logged])[0]
    assert relative(clipped * 10, free) < 1e-4, "up to the 1e-6 that torch adds to the norm"
    assert logged.steps[0]["train/grad_norm"] == pytest.approx(free.norm().item(), rel=1e-6)


# -- the step's scale ------------------------------------------------------------------------------------------------


class Shifted(GARL):
    """GARL on log-weights that are all lower by ``shift`` nats: a colder start of the same shape."""

    shift = 0.0

    def signal(self, example: Example, rollouts: Sequence[Rollout], group: Group) -> Tensor:
        return super().signal(example, rollouts, group) + self.shift


@pytest.mark.parametrize("scale", ["batch", "running"])
@pytest.mark.parametrize("make", [partial(Shifted, q=q) for q in (0.0, 0.75, 1.0)] + [partial(PAFT, q=0.5)], ids=repr)
def test_scaled_step_has_the_raw_steps_direction(make, scale: str, tiny_gpt2: str) -> None:
    """In any order of prompts and any micro-batches; a largest group whose coefficients are all under 1 is divided."""
    examples, drawn = make_batch(3, 5)
    raw = one_step(make(**settings(tiny_gpt2), rollouts=5), examples, drawn)
    for order in (slice(None), slice(None, None, -1)):
        for tokens in (1, 100_000):
            estimator = make(**settings(tiny_gpt2, micro_batch_tokens=tokens), rollouts=5, scale=scale)
            scaled = one_step(estimator, examples[order], drawn[order])
            assert relative(scaled / scaled.norm(), raw / raw.norm()) < 1e-12
            size = math.exp(estimator.step_scale.log_reference)
            assert relative(scaled * size, raw) < 1e-10


@pytest.mark.parametrize("shift", [-50.0, -5000.0])
@pytest.mark.parametrize("q", [0.0, 0.5, 1.0])
def test_scaled_step_does_not_see_how_cold_the_start_is(q: float, shift: float, tiny_gpt2: str) -> None:
    batch = make_batch(3, 4)
    warm = one_step(Shifted(**settings(tiny_gpt2), q=q, rollouts=4, scale="batch"), *batch)
    cold = Shifted(**settings(tiny_gpt2), q=q, rollouts=4, scale="batch")
    cold.shift = shift
    assert relative(one_step(cold, *batch), warm) < 1e-9


class OneHopeless(GARL):
    """GARL to which the answer of one question is e^-60 times as likely as it is."""

    def signal(self, example: Example, rollouts: Sequence[Rollout], group: Group) -> Tensor:
        return super().signal(example, rollouts, group) - (60.0 if example.id == "question-0" else 0.0)


def test_running_scale_gives_a_late_batch_of_hopeless_examples_no_whole_step(tiny_gpt2: str) -> None:
    examples, drawn = make_batch(2, 4)
    norms = {}
    for scale in ("batch", "running"):
        estimator = OneHopeless(**settings(tiny_gpt2), q=0.5, rollouts=4, scale=scale)
        steps = fit(estimator, [[examples[1]], [examples[0]]], [[drawn[1]], [drawn[0]]])
        norms[scale] = steps[1].norm() / steps[0].norm()
    assert norms["batch"] > 0.1 and norms["running"] < 1e-10


def test_groups_that_cannot_matter_are_not_run_backward(tiny_gpt2: str, monkeypatch: pytest.MonkeyPatch) -> None:
    examples, drawn = make_batch(2, 4)
    run = []
    backward = Group.backward
    monkeypatch.setattr(
        Group, "backward", lambda self, *args, **kwargs: run.append(1) or backward(self, *args, **kwargs)
    )
    logged = Logged()
    fit(
        OneHopeless(**settings(tiny_gpt2), q=0.0, rollouts=4, scale="batch"),
        [examples[::-1]],
        [drawn[::-1]],
        callbacks=[logged],
    )
    assert len(run) == 1 and logged.steps[0]["train/skipped_groups"] == 1
    assert "train/log_scale" in logged.steps[0]


@pytest.mark.parametrize(("q", "scale", "stalls"), [(0.0, "raw", True), (0.0, "batch", False), (1.0, "raw", False)])
def test_a_stalled_run_says_so_and_a_healthy_one_does_not(q: float, scale: str, stalls: bool, tiny_gpt2: str) -> None:
    examples, drawn = make_batch(1, 4)
    estimator = Shifted(**settings(tiny_gpt2), q=q, rollouts=4, scale=scale, normalize=False)
    estimator.shift = -50.0
    said, logged = [], Logged()
    estimator.print = lambda *words, **_: said.append(" ".join(map(str, words)))
    fit(
        estimator,
        [examples] * 12,
        [drawn] * 12,
        callbacks=[logged],
        optimizer=partial(torch.optim.AdamW, lr=1e-6),
    )
    notices = [line for line in said if "nothing is being learnt" in line]
    assert len(notices) == stalls
    assert ("step 10: " in notices[0] and "--model.scale batch" in notices[0]) if stalls else True
    assert (logged.steps[-1]["train/update_size"] < 1e-2) == stalls


# -- q over training -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", [Step(2), Linear(3), Cosine(3)], ids=repr)
def test_schedules_move_with_the_optimizer_step(schedule: Linear, world: World) -> None:
    """The gradient of step k is that of the fixed q of step k, and that q is logged."""
    sample = world.rationales[:3]
    logged = Logged()
    estimator = GARL(**world.settings(), q=schedule, rollouts=3)
    steps = fit(estimator, [[world.example]] * 5, [[sample]] * 5, callbacks=[logged])
    for k, (step, metrics) in enumerate(zip(steps, logged.steps, strict=True)):
        fixed = groups(world, [sample], GARL(**world.settings(), q=schedule.at(k).q, rollouts=3))[0]
        assert relative(step, fixed) < 1e-12
        assert metrics["train/q"] == pytest.approx(schedule.at(k).q, abs=1e-7)


def test_diagnostics_of_a_step(world: World) -> None:
    logged = Logged()
    sample = [world.rationales[i] for i in (0, 1, 4)]
    fit(GARL(**world.settings(), q=0.5, rollouts=3), [[world.example]], [[sample]], callbacks=[logged])
    metrics = logged.steps[0]
    w = [math.exp(world.log_weights[i]) for i in (0, 1, 4)]
    mean = sum(w) / 3
    expected = {
        "train/success": mean,
        "train/log_success": math.log(mean),
        "train/effective_sample_size": sum(w) ** 2 / sum(x * x for x in w),
        "train/max_amplified_advantage": 3 * max(float(c) for c in exact_score(world, (0, 1, 4))),
        "train/thinking_tokens": sum(len(z.rationale_ids) for z in sample) / 3,
        "train/truncated": sum(bool(z.forced_ids) for z in sample) / 3,
        "train/empty_rationales": sum(A not in z.rationale_ids for z in sample) / 3,
        "train/q": 0.5,
        "train/dead_groups": 0.0,
        "train/lr": 0.0,
    }
    assert {name: metrics[name] for name in expected} == pytest.approx(expected, rel=1e-6)
    assert metrics["train/logprob_gap"] < 1e-12
    assert {"time/sample", "time/score", "time/update", "time/sync"} <= set(metrics)


def exact_score(world: World, indices: Sequence[int]) -> list:
    return exact.garl([world.log_weights[i] for i in indices], 0.5, baseline=True, normalize=True)[0]
