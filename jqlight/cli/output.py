"""What a command says before and after a run: where it runs, what came out, and where it is."""

import json
import re
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, Timer

from jqlight.tracking.checkpoints import best_metric
from jqlight.tracking.journal import Journal
from jqlight.tracking.run_folder import LAST, RunFolder

# Every verifier's majority vote; pass@k for the paper's rule and exact match alone.
_SHOWN = re.compile(r"val/(\w*maj_at_\d+|(exact_)?pass_at_\d+|tie_rate|unanswered_rate)")


def start_line(verb: str, folder: RunFolder, module: LightningModule, data: object) -> str:
    """One line on what begins here and where its files will be."""
    q = module.hparams.get("q")
    name = type(module).__name__ + (f" (q = {q})" if q is not None else "")
    start = f", from {shown_path(folder.checkpoint)}" if folder.checkpoint else ""
    return f"jqlight {verb}: {name} on {type(data).__name__}{start}; files in {shown_path(folder.path)}"


def early_end(trainer: Trainer, start: int | None) -> str | None:
    """Which limit ended a training, where that is not plain from its last step; None where it is.

    Args:
        trainer: after fit.
        start: optimizer steps of the checkpoint that it went on from; None without.
    """
    timer = next((callback for callback in trainer.callbacks if isinstance(callback, Timer)), None)  # type: ignore[attr-defined]
    left = timer.time_remaining() if timer else None
    step = trainer.global_step
    idle = f"nothing was left to train: {step} steps are done" if step == start else f"stopped at step {step}"
    if timer and left is not None and left <= 0:
        allowed = _duration(timer.time_elapsed() + left)
        return f"{idle} and trainer.max_time, {allowed} over all sessions of the run, is used up; raise it to go on"
    return f"{idle}; raise trainer.max_steps to go on" if step == start else None


def fit_report(trainer: Trainer, module: LightningModule, folder: RunFolder, model: Path | None) -> str:
    """Validation scores at the start, at the best step and at the end, and where everything is."""
    journal = Journal(folder.path)
    monitor = best_metric(module)
    history = journal.series(monitor)
    lines = [""]
    if history:
        # The base model's scores, at step 0, have no checkpoint.
        trained = [point for point in history if point[0]] or history
        best_step, best_score = max(trained, key=lambda point: point[1])
        lines += _table(journal, history[0][0], best_step, history[-1][0])
        lines.append("")
    best = best_checkpoint(trainer)
    if best is not None:
        score = f"  ({monitor} {best_score:.3f} at step {best_step})" if history else ""
        lines.append(f"{'best' if history else 'last'} checkpoint  {shown_path(best)}{score}")
    if best is not None and history and history[0][1] > best_score:
        lines.append(f"but the starting model scored higher: {monitor} {history[0][1]:.3f} at step {history[0][0]}")
    if model is not None:
        lines.append(f"model            {shown_path(model)}  (a Hugging Face folder)")
    lines.append(f"metrics          {shown_path(journal.metrics_path)}")
    lines.append(f"MLflow           jqlight ui {shown_path(folder.path)}")
    return "\n".join(lines)


def _table(journal: Journal, first: int, best: int, last: int) -> list[str]:
    rows, _ = journal.metrics_from(0)
    names = {name for row in rows for name in row if _SHOWN.fullmatch(name)}
    columns = {"first": first, "best": best, "last": last}
    lines = [" " * 26 + "".join(f"{f'{name} ({step})':>16}" for name, step in columns.items())]
    for name in sorted(names):
        values = dict(journal.series(name))
        cells = [f"{values[step]:>16.3f}" if step in values else f"{'-':>16}" for step in columns.values()]
        lines.append(f"{name:<26}" + "".join(cells))
    return lines


def interrupted(folder: RunFolder) -> str:
    """What to say when the user has stopped a run: what is left of it and how to go on."""
    last = folder.checkpoints / LAST
    if last.exists():
        return f"\ninterrupted; go on with: jqlight fit --ckpt_path {shown_path(last)}"
    return f"\ninterrupted before the first checkpoint; what was logged is in {shown_path(folder.path)}"


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
        if isinstance(callback, ModelCheckpoint):
            for path in (callback.best_model_path, callback.last_model_path):
                if path and Path(path).is_file():
                    return Path(path)
    return None


def export_best(trainer: Trainer, module: LightningModule, folder: RunFolder) -> Path | None:
    """Write the best checkpoint's weights as a Hugging Face folder; its path, None without a checkpoint."""
    best, policy = best_checkpoint(trainer), getattr(module, "policy", None)
    if best is None or policy is None or not trainer.is_global_zero:
        return None
    # Only tensors and primitives are in our checkpoints; the optimizer's part is not read into memory.
    state = torch.load(best, map_location="cpu", weights_only=True, mmap=True)["state_dict"]
    module.load_state_dict(state)
    target = folder.path / "model"
    policy.export(target)
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
