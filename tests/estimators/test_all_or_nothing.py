"""A step that meets a number which is not finite leaves weights and optimizer bit by bit as they were."""

import copy
import math
import re
from functools import partial

import pytest
import torch
from enumeration import World, fit
from lightning import Callback

from jqlight.errors import ConfigError, NonFiniteError
from jqlight.estimators import GARL
from jqlight.estimators.all_or_nothing import MOST_SKIPPED
from jqlight.objective import Coefficients
from jqlight.sampling import Rollout

ADAMW = partial(torch.optim.AdamW, lr=0.05)
PARTS = {
    "log-probability": r"example \w+: a log-probability is nan",
    "gradient": r"the gradient's norm is nan, first in model\.transformer\S+",
    "update": r"model\.transformer.* was not finite after the update",
    "weight": r"example \w+: a log-probability is nan, since policy\.model\.\S+ is not finite",
    "optimizer's state": r"model\.transformer.* was not finite after the update",
}


def everything(estimator):
    return copy.deepcopy([list(estimator.policy.parameters()), estimator.optimizers().optimizer.state_dict()])


def same(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    return len(a) == len(b) and all(map(same, a, b)) if isinstance(a, list) else a == b


class Poison(Callback):
    """Spoils one part once or more, around the step ``at``; keeps what each good step led to."""

    def __init__(self, part, at=1, steps=1):
        self.part, self.steps = part, range(at, at + steps)
        self.states, self.metrics = [], []

    def on_train_batch_start(self, trainer, module, *_):
        self.spoilt = trainer.global_step in self.steps
        signal, coefficients = type(module).signal, type(module).coefficients
        factor = math.nan if self.spoilt and self.part == "log-probability" else 1
        module.signal = lambda *given: signal(module, *given) * factor
        times = math.inf if self.spoilt and self.part == "gradient" else 1
        module.coefficients = lambda *given: Coefficients(*(c * times for c in coefficients(module, *given)))

    def on_before_optimizer_step(self, trainer, module, optimizer):
        if self.spoilt and self.part == "update":
            module.policy.model.transformer.h[0].mlp.c_fc.weight.grad[0, 0] = math.inf

    def on_train_batch_end(self, trainer, module, *_):
        self.states.append(everything(module))
        self.metrics.append({name: float(value) for name, value in trainer.callback_metrics.items()})
        if trainer.global_step in self.steps and self.part == "weight":
            module.policy.model.transformer.h[0].mlp.c_fc.weight.data[0, 0] = math.nan
        if trainer.global_step in self.steps and self.part == "optimizer's state":
            state = module.optimizers().optimizer.state
            state[module.policy.model.transformer.h[0].mlp.c_fc.weight]["exp_avg"][0, 0] = math.nan


def train(world: World, steps, on_nonfinite="stop", callbacks=(), **settings):
    """Steps on different groups of rationales, of which ``steps`` says which: the estimator and what it raised."""
    estimator = GARL(**world.settings(), q=0.75, rollouts=3, on_nonfinite=on_nonfinite, **settings)
    drawn = [Rollout(z.rationale_ids, [], z.forced_ids) for z in world.rationales]  # of no engine that could disagree
    script = [[[drawn[(step + m) % 5] for m in range(3)]] for step in steps]
    batches = [[world.example]] * len(script)
    try:
        fit(estimator, batches, script, optimizer=ADAMW, callbacks=list(callbacks), dtype=torch.float32)
    except NonFiniteError as error:
        return estimator, str(error)
    return estimator, None


@pytest.mark.parametrize("part", PARTS)
def test_a_run_that_stops_says_what_it_was_and_stands_where_it_stood(world, part):
    poison = Poison(part)
    estimator, said = train(world, range(3), callbacks=[poison])
    assert re.match(f"step 1: {PARTS[part]}; weights and optimizer are those before the step", said)
    assert len(poison.states) == 1 and same(everything(estimator), poison.states[0])


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("scale", ["raw", "running"])
def test_a_skipped_step_is_as_if_its_batch_had_never_been_drawn(world, part, scale, capsys):
    poison, unharmed = Poison(part), Poison("nothing")
    skipping, _ = train(world, (0, 1, 2, 3), "skip", [poison], scale=scale)
    train(world, (0, 2, 3), "skip", [unharmed], scale=scale)
    assert skipping.trainer.global_step == 4, "it counts"
    assert same(poison.states[1], poison.states[0]) and same(poison.states[2:], unharmed.states[1:])
    assert [m.get("train/skipped_steps", math.nan) for m in poison.metrics] == pytest.approx(
        [math.nan, 1, math.nan, math.nan], nan_ok=True
    )
    assert math.isnan(poison.metrics[1]["train/success"]) and poison.metrics[2]["train/success"] > 0
    assert "the step is skipped, 1 in a row and 1 in all." in capsys.readouterr().out


def test_the_first_step_can_be_skipped_too(world):
    poison = Poison("update", at=0)
    estimator, _ = train(world, (0, 1), "skip", [poison])
    assert poison.states[0][1]["state"] == {} and estimator.optimizers().optimizer.state_dict()["state"]


def test_too_many_in_a_row_stop_the_run(world):
    poison = Poison("gradient", at=1, steps=99)
    _, said = train(world, range(20), "skip", [poison])
    assert f"{MOST_SKIPPED} steps before it were skipped already, all in a row" in said
    assert len(poison.states) == 1 + MOST_SKIPPED and all(same(state, poison.states[0]) for state in poison.states)


def test_the_count_is_that_of_the_whole_run(world):
    estimator, _ = train(world, range(4), "skip", [Poison("gradient", at=1, steps=2)])
    estimator.on_save_checkpoint(checkpoint := {})
    resumed = GARL(**world.settings(), rollouts=3, on_nonfinite="skip")
    resumed.on_load_checkpoint(checkpoint)
    assert (resumed.all_or_nothing.skipped, resumed.all_or_nothing.in_a_row) == (2, 0)


def test_another_way_is_refused(world):
    with pytest.raises(ConfigError, match=r"model\.on_nonfinite: given 'warn', allowed are stop and skip"):
        GARL(**world.settings(), on_nonfinite="warn")
