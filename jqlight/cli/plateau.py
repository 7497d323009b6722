"""What follows the scores of validations: ReduceLROnPlateau is stepped, and watching one upside down is told."""

import logging

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping
from torch.optim.lr_scheduler import ReduceLROnPlateau

from jqlight.errors import ConfigError
from jqlight.names import SCORE
from jqlight.tracking.checkpoints import best_metric

log = logging.getLogger(__name__)


class StepPlateau(Callback):
    """Gives the score of each validation within training to a ReduceLROnPlateau, where the run has one.

    Lightning runs it before its checkpoints, so that they hold the schedule's state after the validation.
    """

    @staticmethod
    def monitor(scheduler: ReduceLROnPlateau, module: LightningModule) -> str:
        """The metric that a schedule watches: its ``monitor`` setting, else what the best checkpoint is chosen by."""
        return str(getattr(scheduler, "monitor", None) or best_metric(module))

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Warn where a rising score counts as none: both classes take lower for better unless told otherwise."""
        schedules = [config.scheduler for config in trainer.lr_scheduler_configs]
        watched = [
            ("lr_scheduler.mode", self.monitor(schedule, pl_module), schedule.mode)
            for schedule in schedules
            if isinstance(schedule, ReduceLROnPlateau)
        ]
        # Trainer.callbacks is set by a connector, which type checkers do not see.
        stops = [callback for callback in trainer.callbacks if isinstance(callback, EarlyStopping)]  # type: ignore[attr-defined]
        watched += [("trainer.callbacks, EarlyStopping.mode", stop.monitor, stop.mode) for stop in stops]
        for key, name, mode in watched:
            if mode == "min" and SCORE.fullmatch(name):
                log.warning("%s: min takes a lower %s for better; give max.", key, name)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Step the schedule; the validation before training is its start, not a step.

        Raises:
            ConfigError: nothing of that name was logged.
        """
        if trainer.state.fn != "fit":
            return
        for scheduler in (config.scheduler for config in trainer.lr_scheduler_configs):
            if not isinstance(scheduler, ReduceLROnPlateau):
                continue
            name, scores = self.monitor(scheduler, pl_module), trainer.callback_metrics
            if name not in scores:
                raise ConfigError(
                    f"lr_scheduler.monitor: given {name}, logged are {', '.join(sorted(scores)) or 'no scores'}"
                )
            if not trainer.sanity_checking:
                scheduler.step(float(scores[name]))
