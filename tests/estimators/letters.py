"""A benchmark of six prompts for the three-token model, and fits on it that can be stopped and resumed."""

import math
import warnings
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

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
from jqlight.token_format import Thinking

STEPS, STOP = 7, 4  # the stop falls inside the second pass


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
        self.steps[trainer.global_step - 1] = {k: v for k, v in values.items() if not math.isnan(v)}


def make(kind: type[Estimator], path: str, **sampler: object) -> Estimator:
    """An estimator with the transformers engine; q of GARL and PAFT falls with the step."""
    schedule = {GARL: {"q": Linear(6), "scale": "running"}, PAFT: {"q": Step(5)}}.get(kind, {})
    policy = PolicyConfig(path, thinking=Thinking(start="", separator=""))
    estimator = kind(policy, SamplerConfig("transformers", 2, 2, **sampler), rollouts=4, **schedule)
    estimator.run_seed = 3
    estimator.step_log.escape = EscapeMonitor(threshold=1e-4, window=3)
    return estimator


def train(
    estimator: Estimator,
    steps: int,
    folder: Path,
    resume: Path | None = None,
    callbacks: Sequence[Callback] = (),
    **trainer: object,
) -> Course:
    """Two prompts a step, six in an epoch; a checkpoint every STOP steps; ``trainer`` are further settings."""
    course = Course()
    checkpoint = ModelCheckpoint(folder, filename="{step}", every_n_train_steps=STOP, save_top_k=-1)
    estimator.optimizer = partial(torch.optim.AdamW, lr=0.03)
    settings = {"max_epochs": -1, "max_steps": steps, "enable_checkpointing": True, "log_every_n_steps": 1}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        runner = quiet_trainer(
            callbacks=[course, checkpoint, *callbacks], default_root_dir=folder, **{**settings, **trainer}
        )
        runner.fit(estimator, datamodule=Letters(prompts_per_step=2, max_prompt_tokens=6), ckpt_path=resume)
    return course
