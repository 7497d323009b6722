"""What a run shows while it runs: Lightning's progress bar over all its steps; plain lines without a terminal."""

import math
import shutil
import sys
import textwrap
import time
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.callbacks.progress.tqdm_progress import Tqdm

from jqlight.names import SCORE, pass_at
from jqlight.startup import phases
from jqlight.tracking.config import data_summary

_BETWEEN_LINES_S = 15.0
# Shown while training, where logged: metric, label, format.
_SHOWN = (
    ("train/success", "success", ".3g"),
    ("train/log_success", "log w", ".1f"),
    ("train/logprob_gap", "gap", ".1g"),
)
_BAR = "{bar:20} "
_SPARE = ("gap ", "s/step", "log w ")  # what a line that is too long for the terminal goes without, in this order


class ProgressLine(TQDMProgressBar):
    """One line over the whole run: step, success, last maj@k, log-probability gap, seconds a step, time left.

    Lightning's own bar restarts with every epoch, and its time left leaves the validations out.

    Args:
        title: first line, printed once the data have been read, before model and engine start.
    """

    def __init__(self, title: str = "") -> None:
        super().__init__(refresh_rate=int(sys.stdout.isatty()))  # 0: no bars, `is_enabled` is False
        self._title = title
        self._began = self._printed = self._step_began = self._training_s = 0.0
        self._first_step = 0

    def print(self, *args: Any, **kwargs: Any) -> None:
        """Print above the bars; on a terminal broken between words."""
        shown = [folded(str(arg)) for arg in args] if self.is_enabled else args
        with Tqdm.external_write_mode(file=sys.stdout):
            print(*shown, **{"flush": True, **kwargs})

    def init_train_tqdm(self) -> Tqdm:
        """A bar over all optimizer steps of the run, where there is room, then the line."""
        return self._bar(total=total_steps(self.trainer), bar_format=_BAR + "{desc}")

    def init_validation_tqdm(self) -> Tqdm:
        """A bar that replaces the line while a validation within training runs."""
        description = self.validation_description
        return self._bar(desc=description, leave=self.trainer.state.fn == "validate", bar_format=self.BAR_FORMAT)

    def _bar(self, **options: Any) -> Tqdm:
        return Tqdm(disable=self.is_disabled, position=0, dynamic_ncols=True, file=sys.stdout, **options)

    def get_metrics(
        self, trainer: Trainer, pl_module: LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        """Label -> text of what the line shows between the step and the pace."""
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        shown = {label: f"{metrics[name]:{form}}" for name, label, form in _SHOWN if name in metrics}
        shown |= {name.removeprefix("val/"): f"{value:.3g}" for name, value in list(headline(trainer).items())[:1]}
        return {label: text for label, text in shown.items() if text != "nan"}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """End the start-up phase in which the data were read."""
        super().setup(trainer, pl_module, stage)
        phases.mark("data")
        self._say(self._title)
        self._say(data_summary(trainer))

    def on_sanity_check_start(self, *args: Any) -> None:
        """End the start-up phase in which engine and policy were loaded; what follows is an evaluation."""
        phases.mark(_loading_phase())
        super().on_sanity_check_start(*args)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say how long the start took."""
        validated = trainer.num_sanity_val_batches and not trainer.ckpt_path
        phases.mark("first validation" if validated else _loading_phase())
        self._say(phases.line())
        self._first_step = trainer.global_step
        self._began = time.monotonic()
        super().on_train_start(trainer, pl_module)

    def on_train_epoch_start(self, *_: Any) -> None:
        """Go on: the bar is over all epochs."""

    def on_train_batch_start(self, *_: Any) -> None:
        """Start the clock of a step."""
        self._step_began = time.monotonic()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Redraw the line, or print one every 15 seconds."""
        now = time.monotonic()
        self._training_s += now - self._step_began
        due = now - self._printed > _BETWEEN_LINES_S or trainer.global_step == self._first_step + 1
        if self.is_enabled or due:
            self._show(trainer, self._line(trainer, pl_module))

    def on_train_epoch_end(self, *_: Any) -> None:
        """Go on: see ``on_train_epoch_start``."""

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the scores of a validation within training."""
        super().on_validation_end(trainer, pl_module)
        if trainer.state.fn == "fit":
            scores = [f"{name} {value:.3g}" for name, value in headline(trainer).items()]
            self._say(f"validation at step {trainer.global_step}: " + ", ".join(scores))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the last state of the line standing, with the time that training took."""
        took = f"{Tqdm.format_interval(time.monotonic() - self._began)} in all"
        line = [part for part in self._line(trainer, pl_module) if not part.endswith(" left")]  # where it ends early
        self._show(trainer, [*line, took])
        super().on_train_end(trainer, pl_module)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave the line before an error is printed."""
        for bar in (self._val_progress_bar, self._train_progress_bar):
            if bar is not None:
                bar.close()

    def _line(self, trainer: Trainer, pl_module: LightningModule) -> list[str]:
        step, total = trainer.global_step, total_steps(trainer)
        parts = [f"step {step}" + (f"/{total}" if total else "")]
        parts += [f"{label} {text}" for label, text in self.get_metrics(trainer, pl_module).items()]
        if done := step - self._first_step:
            pace = self._training_s / done
            parts.append(f"{pace:.2g} s/step" if pace < 10 else f"{pace:.0f} s/step")
            if total and total > step:  # validations are in this figure, not in the pace
                left = (time.monotonic() - self._began) / done * (total - step)
                parts.append(f"{Tqdm.format_interval(left)} left")
        return parts

    def _show(self, trainer: Trainer, parts: list[str]) -> None:
        if self.is_enabled:
            columns = shutil.get_terminal_size().columns
            line, bar = fitting(parts, columns), self.train_progress_bar
            bar.bar_format = (_BAR if len(line) + 21 < columns else "") + "{desc}"
            bar.n = trainer.global_step
            bar.set_description_str(line)
        else:
            self._printed = time.monotonic()
            self._say("  ".join(parts))

    def _say(self, line: str) -> None:
        if line and self._enabled:
            self.print(line)


def fitting(parts: list[str], columns: int) -> str:
    """The line of these parts, without those that one misses least where it is too long."""
    for spare in _SPARE:
        if len("  ".join(parts)) < columns:
            break
        parts = [part for part in parts if spare not in part]
    return "  ".join(parts)


def folded(text: str) -> str:
    """``text`` with lines that are wider than the terminal broken between words."""
    columns = shutil.get_terminal_size().columns
    fold = textwrap.TextWrapper(columns, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False).fill
    return "\n".join(fold(line) if len(line) > columns else line for line in text.split("\n"))


def _loading_phase() -> str:
    """What is left of loading once an estimator has marked its engine and its model: giving one the other's weights."""
    return "sync" if "engine" in phases.seconds else "model and engine"


def headline(trainer: Trainer) -> dict[str, float]:
    """The validation scores one looks at first: maj@k, its exact-match twin, pass@1."""
    scores = {name: found for name in trainer.callback_metrics if (found := SCORE.fullmatch(name))}
    names = [name for name, found in scores.items() if found["stage"] == "val" and found["kind"] == "maj"]
    names = [*sorted(names, key=len), *(name for name in scores if name == f"val/{pass_at(1)}")]
    return {name: float(trainer.callback_metrics[name]) for name in names}


def total_steps(trainer: Trainer) -> int | None:
    """Optimizer steps that the run will have taken at its end; None when nothing bounds it."""
    total = trainer.estimated_stepping_batches
    return int(total) if 0 < total < math.inf else None
