"""What a command says before and after a run: where it runs, what came out, and where it is."""

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, Timer

from jqlight.cli.card import write_card
from jqlight.errors import ConfigError, DataError
from jqlight.files import must_exist, written_beside
from jqlight.report import samples_page
from jqlight.tracking.checkpoint_files import checkpoint_step
from jqlight.tracking.checkpoints import RunCheckpoint, best_metric
from jqlight.tracking.logger import RunLogger
from jqlight.tracking.run_folder import LAST, RunFolder
from jqlight.tracking.scores import ValidationScores

log = logging.getLogger(__name__)


def start_line(verb: str, folder: RunFolder, module: LightningModule, data: object) -> str:
    """One line on what begins here and where its files will be."""
    q = module.hparams.get("q")
    name = type(module).__name__ + (f" (q = {q})" if q is not None else "")
    start = f", from {shown_path(folder.checkpoint)}" if folder.checkpoint else ""
    return f"jqlight {verb}: {name} on {type(data).__name__}{start}; files in {shown_path(folder.path)}"


def early_end(trainer: Trainer, start: int | None) -> str | None:
    """What ended a training, where that is not plain from its last step; None where it is.

    Args:
        trainer: after fit.
        start: optimizer steps of the checkpoint that it went on from; None without.
    """
    # Trainer.callbacks is set by a connector, which type checkers do not see; so below.
    timer = next((callback for callback in trainer.callbacks if isinstance(callback, Timer)), None)  # type: ignore[attr-defined]
    left = timer.time_remaining() if timer else None
    step = trainer.global_step
    idle = f"nothing was left to train: {step} steps are done" if step == start else f"stopped at step {step}"
    if timer and left is not None and left <= 0:
        allowed = _duration(timer.time_elapsed() + left)
        return f"{idle} and trainer.max_time, {allowed} over all sessions of the run, is used up; raise it to go on"
    stops = [callback for callback in trainer.callbacks if isinstance(callback, EarlyStopping)]  # type: ignore[attr-defined]
    if trainer.should_stop and (
        why := next((stop.stopping_reason_message for stop in stops if stop.stopping_reason_message), None)
    ):
        return f"stopped at step {step} by EarlyStopping: {why.removesuffix(' Signaling Trainer to stop.')}"
    return f"{idle}; raise trainer.max_steps to go on" if step == start else None


def fit_report(trainer: Trainer, module: LightningModule, folder: RunFolder, model: Path | None) -> str:
    """Validation scores at the start, at the best step and at the end, and where everything is."""
    monitor, best = best_metric(module), best_checkpoint(trainer)
    kept = [callback.by_step for callback in trainer.callbacks if isinstance(callback, ValidationScores)]  # type: ignore[attr-defined]
    scores = {step: found for step, found in (kept[0] if kept else {}).items() if monitor in found}
    lines, told = [""], ""
    if scores:
        steps = {"first": min(scores), "last": max(scores)}
        if best is not None and (step := checkpoint_step(best)) in scores:
            steps["best"], told = step, f"  ({monitor} {scores[step][monitor]:.3f} at step {step})"
        lines += [_table(scores, steps), ""]
    if best is not None:
        lines.append(f"{'best' if scores else 'last'} checkpoint  {shown_path(best)}{told}")
    if told and scores[steps["first"]][monitor] > scores[steps["best"]][monitor]:
        start, score = steps["first"], scores[steps["first"]][monitor]
        lines.append(f"but the starting model scored higher: {monitor} {score:.3f} at step {start}")
    if saving := next((c for c in trainer.checkpoint_callbacks if isinstance(c, RunCheckpoint) and c.count), None):
        lines.append(f"checkpoints      {saving.cost()}")
    if model is not None:
        lines.append(f"model            {shown_path(model)}  (a Hugging Face folder)")
    if (page := folder.path / "artifacts" / samples_page.FILE).is_file():
        lines.append(f"samples          {shown_path(page)}")
    if trainer.loggers:
        lines.append(f"metrics          {shown_path(folder.path / 'metrics.jsonl')}")
        lines.append(f"MLflow           jqlight ui {shown_path(folder.path)}")
    return "\n".join(lines)


def _table(scores: dict[int, dict[str, float]], steps: dict[str, int]) -> str:
    columns = {f"{name} ({steps[name]})": scores[steps[name]] for name in ("first", "best", "last") if name in steps}
    return pd.DataFrame(columns).sort_index().to_string(float_format="%.3f", na_rep="-", col_space=16)


def interrupted(folder: RunFolder) -> str:
    """What to say when the user has stopped a run: what is left of it and how to go on."""
    if told := way_on(folder):
        return f"\ninterrupted; {told}"
    return f"\ninterrupted before the first checkpoint; what was logged is in {shown_path(folder.path)}"


def way_on(folder: RunFolder) -> str:
    """How to continue the run; empty where it has no checkpoint."""
    last = folder.checkpoints / LAST
    try:
        return f"go on with: jqlight fit --ckpt_path {shown_path(last)}  (step {checkpoint_step(last)})"
    except (ConfigError, OSError):
        return ""


def leave_samples_page(trainer: Trainer, folder: RunFolder) -> None:
    """Leave a page of the run's samples among its artifacts, in MLflow too; what a page cannot be made of is told."""
    loggers = [logger for logger in trainer.loggers if isinstance(logger, RunLogger)]
    if not loggers or not (folder.path / "samples").is_dir():
        return
    try:
        page = samples_page.page_of_run(folder.path)
        for logger in loggers:
            logger.log_text_artifact(samples_page.FILE, page)
    except (ConfigError, DataError, OSError) as error:  # the model has still to be exported
        log.warning("no page of samples was written: %s", error)


def scores_report(trainer: Trainer, folder: RunFolder) -> str:
    """The scores of ``validate`` or ``test``, one a line, and where they are."""
    scores = {name: float(value) for name, value in sorted(trainer.callback_metrics.items())}
    lines = [f"{name:<26}{value:>10.3f}" for name, value in scores.items()]
    return "\n".join(["", *lines, "", f"samples and metrics in {shown_path(folder.path)}"])


def write_predictions(predictions: list[Any] | None, folder: RunFolder) -> str:
    """Write the rows of ``predict`` as one JSON object a line; the sentence that says where they are."""
    rows = [row for batch in predictions or [] for row in batch]
    path = folder.path / "predictions.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return f"{len(rows)} predictions in {shown_path(path)}"


def best_checkpoint(trainer: Trainer) -> Path | None:
    """The best checkpoint of a finished fit, the last where nothing was validated; None when none was saved."""
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, RunCheckpoint):  # a user's own may stand beside it
            for path in (callback.best_model_path, callback.last_model_path):
                if path and Path(path).is_file():
                    return Path(path)
    return None


def export_best(trainer: Trainer, module: LightningModule, folder: RunFolder) -> Path | None:
    """Write the best checkpoint's weights as a Hugging Face folder; its path, None without a checkpoint."""
    must_exist(folder.path)
    best, policy = best_checkpoint(trainer), getattr(module, "policy", None)
    if best is None or policy is None or not trainer.is_global_zero:
        return None
    # Only tensors and primitives are in our checkpoints; the optimizer's part is not read into memory.
    content = torch.load(best, map_location="cpu", weights_only=True, mmap=True)
    module.load_state_dict(content["state_dict"])
    target = folder.path / "model"
    with written_beside(target) as partial:
        shutil.rmtree(partial, ignore_errors=True)
        policy.export(partial)
        write_card(partial, content.get("hyper_parameters", {}), folder.path, content.get("global_step"))
        shutil.rmtree(target, ignore_errors=True)
    return target


def shown_path(path: Path | None) -> str:
    """A path relative to the working directory where it is below it."""
    if path is None:
        return ""
    absolute = path.absolute()
    return str(absolute.relative_to(Path.cwd())) if absolute.is_relative_to(Path.cwd()) else str(absolute)


def _duration(seconds: float) -> str:
    """For example ``41 s``, ``2 min 41 s``, ``3 h 05 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
