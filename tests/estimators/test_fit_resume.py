"""A run that is stopped and resumed goes on as if nothing had happened: q, rollouts, weights, escape step."""

import warnings
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
from enumeration import quiet_trainer
from lightning import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from jqlight.benchmarks import Benchmark, Item
from jqlight.diagnostics import EscapeMonitor
from jqlight.estimators import GARL, PAFT, Estimator
from jqlight.policy import PolicyConfig
from jqlight.sampling import SamplerConfig
from jqlight.schedules import Linear, Step
from jqlight.thinking import Thinking

STEPS, STOP = 7, 4  # six questions, two a step: the stop falls inside the second pass


class Letters(Benchmark):
    """Questions "a", "aa", ... with the gold answer "a"."""

    def read(self, split: str) -> Iterable[dict]:
        return [{"id": str(n), "text": "a" * n} for n in range(1, 7)]

    def item(self, record: dict) -> Item:
        return Item(record["text"], "a")


class Course(Callback):
    """What each step logged."""

    def __init__(self) -> None:
        self.steps: dict[int, dict[str, float]] = {}

    def on_train_batch_end(self, trainer: Trainer, *_: object) -> None:
        values = {k: float(v) for k, v in trainer.callback_metrics.items() if not k.startswith("time/")}
        self.steps[trainer.global_step - 1] = values


def train(estimator: Estimator, steps: int, folder: Path, resume: Path | None = None) -> Course:
    course = Course()
    checkpoint = ModelCheckpoint(folder, filename="{step}", every_n_train_steps=STOP, save_top_k=-1)
    estimator.configure_optimizers = lambda: torch.optim.AdamW(estimator.policy.parameters(), lr=0.03)
    settings = {"max_epochs": -1, "max_steps": steps, "enable_checkpointing": True, "log_every_n_steps": 1}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = quiet_trainer(callbacks=[course, checkpoint], default_root_dir=folder, **settings)
        trainer.fit(estimator, datamodule=Letters(prompts_per_step=2, max_prompt_tokens=6), ckpt_path=resume)
    return course


def make(kind: type[Estimator], path: str) -> Estimator:
    thinking = Thinking(start="", separator="")
    schedule = Linear(6) if kind is GARL else Step(5)
    estimator = kind(
        PolicyConfig(path, thinking=thinking),
        SamplerConfig("transformers", max_thinking_tokens=2, max_answer_tokens=2),
        q=schedule,
        rollouts=4,
        seed=3,
    )
    estimator.monitor = EscapeMonitor(threshold=1e-4, window=3)
    return estimator


@pytest.mark.parametrize("kind", [GARL, PAFT])
def test_resumed_equals_uninterrupted(kind: type[Estimator], three_token_gpt2: str, tmp_path: Path) -> None:
    whole = make(kind, three_token_gpt2)
    course = train(whole, STEPS, tmp_path / "whole")
    train(make(kind, three_token_gpt2), STOP, tmp_path / "first")
    (stopped,) = (tmp_path / "first").glob("*.ckpt")
    second = make(kind, three_token_gpt2)
    rest = train(second, STEPS, tmp_path / "second", resume=stopped)

    assert sorted(course.steps) == list(range(STEPS)) and sorted(rest.steps) == list(range(STOP, STEPS))
    for step, metrics in rest.steps.items():
        assert metrics == course.steps[step]
    assert [course.steps[k]["train/q"] for k in range(STEPS)] == pytest.approx([whole.q.at(k).q for k in range(STEPS)])
    assert len({m["train/log_success"] for m in course.steps.values()}) == STEPS, "the model moves"
    assert "train/escape_step" in course.steps[STEPS - 1]
    for ours, theirs in zip(whole.policy.parameters(), second.policy.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_engine_holds_the_trainers_weights_after_fit(three_token_gpt2: str, tmp_path: Path) -> None:
    estimator = make(GARL, three_token_gpt2)
    course = train(estimator, 3, tmp_path)
    engine = dict(estimator.sampler.engine.model.named_parameters())
    for name, parameter in estimator.policy.model.named_parameters():
        assert torch.equal(engine[name], parameter)
    assert all(metrics["train/logprob_gap"] < 1e-5 for metrics in course.steps.values())


def test_seed_decides_the_course(three_token_gpt2: str, tmp_path: Path) -> None:
    courses = []
    for seed in (3, 3, 4):
        estimator = make(GARL, three_token_gpt2)
        estimator.seed = seed
        courses.append(train(estimator, 2, tmp_path / str(len(courses))).steps)
    assert courses[0] == courses[1] != courses[2]
