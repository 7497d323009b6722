"""The harness of `make bench-step` and `make bench-trl` on a tiny model: it holds on to parts of the step by name."""

import pytest

from perf import workload
from perf.common import timed
from perf.step import PHASES, RoundRobin
from perf.worker_jqlight import watch
from perf.workload import Shape, Words, Work, estimator, make_model, never_stop, quiet_trainer

SHAPE, WORK = Shape(vocab=64, hidden=64, layers=1), Work(prompt=8, tokens=12, rollouts=2, prompts=1)


@pytest.fixture
def member(tmp_path, monkeypatch):
    monkeypatch.setattr(workload, "FOLDER", tmp_path)
    model = make_model(SHAPE)
    return lambda name: estimator(name, WORK, model, {"engine": "transformers"})


class Clocks:
    """What a worker's loop offers to `watch`, without its pipe."""

    def __init__(self) -> None:
        self.seconds, self.facts = {}, {}

    def watch(self, owner, name, key):
        timed(owner, name, self.seconds, key)


def test_estimators_in_turn_train_one_policy(member):
    members = {name: member(name) for name in ("GARL", "PAFT", "GRPO")}
    trainer = quiet_trainer(4)
    trainer.fit(RoundRobin(members), datamodule=Words(WORK, 4, SHAPE.vocab))
    assert trainer.global_step == 4
    assert {f"time/{phase}" for phase in PHASES} <= set(trainer.callback_metrics)


def test_the_clocks_of_a_worker_sit_on_every_part_of_the_step(member):
    loop, module = Clocks(), member("GRPO")
    watch(loop, module)
    module.on_train_start = _after(module.on_train_start, lambda: never_stop(module.sampler))
    quiet_trainer(1).fit(module, datamodule=Words(WORK, 1, SHAPE.vocab))
    assert set(loop.seconds) == {"generate", "sync", "optimizer", "score", "forward_backward"}
    assert loop.facts == {"tokens": WORK.sampled}


def _after(hook, more):
    def both():
        hook()
        more()

    return both
