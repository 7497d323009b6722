"""Necessity of rationales by value: scripted readers whose answers are known, an exact gain, and the bundled model."""

import pytest
import torch
from enumeration import END, World, quiet_trainer
from letters import Letters, make

from jqlight.benchmarks import Benchmark, Example, TwoHop
from jqlight.benchmarks.loaders import EvaluationLoader
from jqlight.estimators import GARL
from jqlight.estimators.necessity import Necessity, means, partners
from jqlight.hub import BUNDLED
from jqlight.metrics.verifiers import exact_match, on_answer, substring_match
from jqlight.policy import Policy, PolicyConfig
from jqlight.sampling import Completion, Rollout, Sampler, SamplerConfig
from jqlight.token_format import Thinking

VERIFIERS = {"": on_answer(substring_match), "exact_": on_answer(exact_match)}
GOLDS = "abcdefgh"


class Scripted:
    """An engine that answers with the first letter of the rationale, or with the prompt's own whatever is thought."""

    def __init__(self, form, *, reads: bool) -> None:
        self.form, self.reads, self.requests = form, reads, 0

    def generate(self, requests, stop, decoding) -> list[Completion]:
        assert decoding.temperature == 0
        self.requests += len(requests)
        texts = [self.form.decode(request.prompt_ids) for request in requests]
        letters = [text[2] if self.reads else text[0] for text in texts]
        return [Completion([*self.form.tokenizer.encode(letter), 1], []) for letter in letters]


@pytest.fixture(scope="module")
def policy(tiny_qwen3):
    found = Policy(PolicyConfig(tiny_qwen3, thinking=Thinking(start="", separator="")))
    found.load()
    return found


def question(form, gold: str) -> tuple[Example, list[Rollout]]:
    """Three rationales: the gold letter, the gold letter with a forced end, and a blank one."""
    prompt, target = form.tokenizer.encode(f"{gold}:"), form.encode_target(gold)
    letter, blank = (form.tokenizer.encode(text) for text in (f"{gold}!", " "))
    end = list(form.end_ids)
    rollouts = [Rollout([*letter, *end], []), Rollout(letter, [], end), Rollout([*blank, *end], [])]
    return Example(gold, "", tuple(prompt), gold, tuple(target), (gold,)), rollouts


def measured(policy, golds=GOLDS, *, reads=True, batch=3):
    engine = Scripted(policy.format, reads=reads)
    necessity = Necessity(policy, Sampler(engine, policy.format, SamplerConfig()), VERIFIERS, 0)
    for golds_ in EvaluationLoader(golds, batch):
        necessity.update(*zip(*(question(policy.format, gold) for gold in golds_)))
    return necessity.questions(), engine


def test_a_reader_of_the_rationale_needs_its_own(policy):
    values = means(measured(policy)[0])
    assert values["own_accuracy"] == values["exact_own_accuracy"] == pytest.approx(2 / 3)
    assert values["necessity_swapped"] == values["exact_necessity_swapped"] == pytest.approx(2 / 3)
    assert values["necessity_empty"] == pytest.approx(2 / 3)
    assert values["empty_rationales"] == pytest.approx(1 / 3)
    assert values["thinking_tokens"] == pytest.approx((3 + 2 + 2) / 3)


def test_who_ignores_the_rationale_needs_none(policy):
    values = means(measured(policy, reads=False)[0])
    assert (values["own_accuracy"], values["necessity_swapped"], values["necessity_empty"]) == (1.0, 0.0, 0.0)


def test_a_question_with_the_same_answer_lends_a_right_rationale(policy):
    engine = Scripted(policy.format, reads=True)
    necessity = Necessity(policy, Sampler(engine, policy.format, SamplerConfig()), VERIFIERS, 0)
    (first, rollouts), (second, _) = question(policy.format, "a"), question(policy.format, "b")
    twin = Example("b", "", second.prompt_ids, "a", first.target_ids, ("a",))
    necessity.update([first, twin], [rollouts, rollouts])
    values = means(necessity.questions())
    assert (values["necessity_swapped"], values["necessity_empty"]) == (0.0, pytest.approx(2 / 3))


def test_every_batch_size_and_order_measures_the_same(policy):
    one, _ = measured(policy, batch=1)
    for golds, batch in ((GOLDS, 8), (GOLDS[::-1], 3)):
        other, _ = measured(policy, golds, batch=batch)
        assert sorted(one, key=lambda q: q["id"]) == sorted(other, key=lambda q: q["id"])
        assert means(one) == means(other)


def test_equal_contexts_are_answered_once(policy):
    """Per question: two own thoughts of three are equal in their tokens but for the end, which makes them equal."""
    _, engine = measured(policy)
    assert engine.requests == len(GOLDS) * (2 + 2 + 1)


def test_one_question_has_nobody_to_exchange_with(policy):
    values = means(measured(policy, "a")[0])
    assert "necessity_swapped" not in values and values["necessity_empty"] == pytest.approx(2 / 3)


def test_gain_is_the_exact_difference_of_log_probabilities(three_token_gpt2):
    world = World(three_token_gpt2)
    policy = Policy(PolicyConfig(three_token_gpt2, thinking=world.thinking))
    policy.load()
    policy.model.to(torch.float64)
    sampler = make(GARL, three_token_gpt2)  # only its format is asked for
    sampler.token_format.end_ids = (END,)
    necessity = Necessity(policy, sampler, VERIFIERS, 0)
    with torch.inference_mode():
        necessity.update([world.example], [world.rationales])
    empty = world.log_weight(Rollout([], [], [END])).item()
    expected = sum(world.log_weights) / len(world.log_weights) - empty
    assert necessity._values[0]["gain"] == pytest.approx(expected, abs=1e-10)
    assert abs(expected) > 0.01


@pytest.mark.parametrize("count", [2, 3, 50])
def test_partners_are_one_circle_that_depends_on_ids_and_seed_alone(count):
    ids = [f"q{i}" for i in range(count)]
    found = partners(ids, 0)
    assert partners(reversed(ids), 0) == found
    assert sorted(found.values()) == sorted(ids)
    assert all(question != partner for question, partner in found.items())
    assert count < 50 or partners(ids, 1) != found
    assert partners(ids[:1], 0) == {}


def validated(estimator: GARL, data: Benchmark) -> dict[str, float]:
    trainer = quiet_trainer(limit_val_batches=1.0)
    trainer.validate(estimator, datamodule=data, verbose=False)
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


def test_the_bundled_model_needs_its_rationale_in_its_own_format():
    policy = PolicyConfig(str(BUNDLED["twohop"]), thinking=Thinking("", "</think>", ""))
    estimator = GARL(policy, SamplerConfig("transformers", 16, 4), samples=2)
    data = TwoHop(answer_format="ans {answer}", validation_size=12, max_prompt_tokens=64, necessity=True)
    values = validated(estimator, data)
    assert values["val/exact_own_accuracy"] > 0.6
    assert values["val/exact_necessity_swapped"] > 0.5
    assert values["val/gain"] > 0
    assert values["val/empty_rationales"] == 0
    assert values["val/thinking_tokens"] > 5


def test_without_the_switch_nothing_is_measured(three_token_gpt2):
    values = validated(make(GARL, three_token_gpt2), Letters(max_prompt_tokens=6))
    assert "val/maj_at_16" in values
    assert not [name for name in values if "necessity" in name or "gain" in name]
