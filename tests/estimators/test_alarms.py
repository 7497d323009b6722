"""A run that learns nothing, or does not think, says so once, and its record does too."""

import pytest
import torch
from enumeration import END, World, fit
from lightning.pytorch.loggers import Logger

from jqlight.estimators import GARL, GRPO, SFT
from jqlight.estimators.alarms import Alarms
from jqlight.estimators.base import Estimator
from jqlight.sampling import Rollout


class Tags(Logger):
    """Keeps the tags that it is given."""

    name = version = "tags"

    def __init__(self):
        self.tags = {}

    def log_tags(self, tags):
        self.tags |= tags

    def log_metrics(self, *_, **__):
        pass

    log_hyperparams = log_metrics


EMPTY, CUT = Rollout([END], [-1.0]), Rollout([2], [-1.0], [END])


@pytest.fixture(autouse=True)
def invented_log_probabilities(monkeypatch):
    monkeypatch.setattr("jqlight.estimators.step_metrics.StepRecord.check_engine", lambda *_: None)


def watched(world: World, estimator: Estimator, rollouts, optimizer=None, steps=13, **trainer):
    estimator.print = lambda *words: said.append(" ".join(map(str, words)))
    said, tags = [], Tags()
    fit(
        estimator, [[world.example]] * steps, [[rollouts]] * steps,
        optimizer=optimizer or (lambda p: torch.optim.SGD(p, lr=0.1)), logger=tags, **trainer,
    )  # fmt: skip
    assert sorted(tags.tags.values()) == sorted(line for line in said if line.startswith("step 10: "))
    return tags.tags, said


def thinking(world):
    return [Rollout(z.rationale_ids, [], z.forced_ids) for z in world.rationales if len(z.rationale_ids) > 1][:3]


def test_rewards_that_are_all_alike(world, monkeypatch):
    monkeypatch.setattr(GRPO, "signal", lambda self, example, rollouts, group: torch.ones(len(rollouts)).double())
    rollouts = [Rollout(z.rationale_ids, [], z.forced_ids, [2, 2], []) for z in thinking(world)]
    adamw = torch.optim.AdamW  # whose update dies down a few steps behind the signal: nothing new to say
    tags, said = watched(world, GRPO(**world.settings(), rollouts=3), rollouts, adamw, steps=60)
    assert tags.keys() == {"alarm.signal"} and said == [*tags.values()]
    assert said[0].startswith("step 10: nothing is being learnt. For 10 steps no group had a signal")


def test_gold_answers_of_a_probability_that_underflows(world, monkeypatch):
    monkeypatch.setattr(GARL, "signal", lambda self, *given: torch.full((3,), -1e4).double())
    tags, _ = watched(world, GARL(**world.settings(), q=0.0, rollouts=3), thinking(world))
    assert tags.keys() == {"alarm.signal"}


def test_a_gradient_that_is_exactly_zero(world, monkeypatch):
    monkeypatch.setattr(GARL, "_backward", lambda self, signal, sample, coefficients, scale: coefficients)
    tags, _ = watched(world, GARL(**world.settings(), rollouts=3), thinking(world))
    assert tags.keys() == {"alarm.gradient"} and "exactly zero (train/grad_norm)" in tags["alarm.gradient"]


@pytest.mark.parametrize(("rollout", "name"), [(EMPTY, "empty"), (CUT, "truncated")])
def test_rationales_that_are_none(world, rollout, name):
    tags, _ = watched(world, GARL(**world.settings(), rollouts=3), [rollout] * 3)
    assert tags.keys() == {f"alarm.{name}"} and "step 10: for 10 steps every rationale" in tags[f"alarm.{name}"]


def test_a_run_that_learns_or_was_told_not_to_think_says_nothing(world):
    assert watched(world, GARL(**world.settings(), rollouts=3), [*thinking(world)[:1], EMPTY, CUT])[1] == []
    written = SFT(**world.settings())
    assert watched(world, written, [EMPTY])[1] == []


def test_nine_steps_before_a_checkpoint_and_one_behind_it_are_ten():
    state = Alarms().monitor
    state.steps = {"empty": 9}
    resumed = Alarms().monitor
    resumed.load_state_dict(state.state_dict())
    assert resumed.update({"empty": True}) == ["empty"] and resumed.update({"empty": True}) == []
