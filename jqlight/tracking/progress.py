"""What a run shows while it runs: a line that is redrawn on a terminal, plain lines elsewhere."""

import math
import sys
import time
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar

from jqlight.startup import phases
from jqlight.tracking.config import data_summary

_SECONDS_BETWEEN_LINES = 15.0
_BAR_CELLS = 20
# Shown while training, where logged: metric, label, format.
_SHOWN = (
    ("train/success", "success", ".3g"),
    ("train/log_success", "log w", ".1f"),
    ("train/logprob_gap", "gap", ".1g"),
)


class Console(ProgressBar):
    """Progress in one line: step, success, last maj@k, log-probability gap, seconds a step, time left.

    Args:
        title: first line, printed once the data have been read, before model and engine start.
    """

    def __init__(self, title: str = "") -> None:
        super().__init__()
        self._title = title
        self._live = sys.stdout.isatty()
        self._enabled = True
        self._began = self._printed = self._batch_began = self._training_seconds = 0.0
        self._first_step = 0
        self._width = 0
        self._evaluated = 0

    # -- Lightning's switches ----------------------------------------------------------------------------------------

    def disable(self) -> None:
        """Show nothing (Lightning calls this on all processes but the first)."""
        self._enabled = False

    def enable(self) -> None:
        """Show progress again."""
        self._enabled = True

    @property
    def is_enabled(self) -> bool:
        """Whether progress is shown; ``LightningModule.print`` asks."""
        return self._enabled

    def print(self, *args: Any, **kwargs: Any) -> None:
        """Print above the progress line."""
        self._clear()
        print(*args, **{"flush": True, **kwargs})

    # -- hooks -------------------------------------------------------------------------------------------------------

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """End the start-up phase in which the data were read."""
        super().setup(trainer, pl_module, stage)
        phases.mark("data")
        if self._title:
            self._say(self._title)
        if summary := data_summary(trainer):
            self._say(summary)

    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End the start-up phase in which engine and policy were loaded; what follows is an evaluation."""
        phases.mark(_loading_phase())

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say how long the start took."""
        validated = trainer.num_sanity_val_batches and not trainer.ckpt_path
        phases.mark("first validation" if validated else _loading_phase())
        self._say(phases.line())
        self._first_step = trainer.global_step
        self._began = time.monotonic()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Start the clock of a step."""
        self._batch_began = time.monotonic()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Redraw the line, or print one every 15 seconds."""
        now = time.monotonic()
        self._training_seconds += now - self._batch_began
        if self._live:
            self._draw(self._training_line(trainer))
        elif now - self._printed > _SECONDS_BETWEEN_LINES or trainer.global_step == self._first_step + 1:
            self._printed = now
            self._say(self._training_line(trainer))

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to count the batches of an evaluation."""
        self._evaluated = 0

    on_test_start = on_validation_start
    on_predict_start = on_validation_start

    def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Show how far the evaluation is."""
        self._count(trainer)

    def on_test_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Show how far the test is."""
        self._count(trainer)

    def on_predict_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Show how far the prediction is."""
        self._count(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the scores of a validation within training."""
        if trainer.state.fn != "fit":
            return
        scores = [f"{name} {value:.3g}" for name, value in headline(trainer).items()]
        self._say(f"validation at step {trainer.global_step}: " + ", ".join(scores))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the last state of the line standing, with the time that training took."""
        self._say(f"{self._training_line(trainer)}  {duration(time.monotonic() - self._began)} in all")

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave the line before an error is printed."""
        self._clear()

    def _count(self, trainer: Trainer) -> None:
        self._evaluated += 1
        if self._live:
            self._draw(f"{trainer.state.stage.value if trainer.state.stage else ''}: batch {self._evaluated}")

    # -- text --------------------------------------------------------------------------------------------------------

    def _training_line(self, trainer: Trainer) -> str:
        step, total = trainer.global_step, total_steps(trainer)
        parts = [f"step {step}" + (f"/{total}" if total else "")]
        metrics = {name: value for name, value in trainer.callback_metrics.items() if not math.isnan(value)}
        parts += [f"{label} {float(metrics[name]):{form}}" for name, label, form in _SHOWN if name in metrics]
        parts += [f"{name.removeprefix('val/')} {value:.3g}" for name, value in list(headline(trainer).items())[:1]]
        done = step - self._first_step
        if done > 0:
            pace = self._training_seconds / done
            parts.append(f"{pace:.2g} s/step" if pace < 10 else f"{pace:.0f} s/step")
            if total and total > step:  # validations are in this figure, not in the pace
                parts.append(f"{duration((time.monotonic() - self._began) / done * (total - step))} left")
        line = "  ".join(parts)
        if self._live and total:
            filled = round(_BAR_CELLS * step / total)
            line = "█" * filled + "░" * (_BAR_CELLS - filled) + " " + line
        return line

    def _draw(self, line: str) -> None:
        if self._enabled:
            sys.stdout.write("\r" + line.ljust(self._width))
            sys.stdout.flush()
            self._width = len(line)

    def _clear(self) -> None:
        if self._live and self._width and self._enabled:
            sys.stdout.write("\r" + " " * self._width + "\r")
            self._width = 0

    def _say(self, line: str) -> None:
        if self._enabled:
            self._clear()
            print(line, flush=True)


def _loading_phase() -> str:
    """What is left of loading once an estimator has marked its engine and its model: giving one the other's weights."""
    return "sync" if "engine" in phases.seconds else "model and engine"


def headline(trainer: Trainer) -> dict[str, float]:
    """The validation scores one looks at first: maj@k, its exact-match twin, pass@1."""
    metrics = trainer.callback_metrics
    names = [name for name in metrics if name.startswith("val/") and "maj_at" in name]
    names = sorted(names, key=len) + [name for name in metrics if name == "val/pass_at_1"]
    return {name: float(metrics[name]) for name in names}


def total_steps(trainer: Trainer) -> int | None:
    """Optimizer steps that the run will have taken at its end; None when nothing bounds it."""
    bounds = [float(trainer.max_steps)] if trainer.max_steps > 0 else []
    if trainer.max_epochs and trainer.max_epochs > 0:
        bounds.append(trainer.max_epochs * float(trainer.num_training_batches))
    bound = min(bounds, default=math.inf)
    return int(bound) if math.isfinite(bound) else None


def duration(seconds: float) -> str:
    """For example ``41 s``, ``2 min 41 s``, ``3 h 05 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
