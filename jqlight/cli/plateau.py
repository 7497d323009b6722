"""Steps a ReduceLROnPlateau, which needs a score and not a step's end."""

from lightning.pytorch import Callback, LightningModule, Trainer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from jqlight.errors import ConfigError
from jqlight.tracking.checkpoints import best_metric


class StepPlateau(Callback):
    """Gives the score of each validation within training to a ReduceLROnPlateau, where the run has one.

    Lightning runs it before its checkpoints, so that they hold the schedule's state after the validation.
    """

    @staticmethod
    def monitor(scheduler: ReduceLROnPlateau, module: LightningModule) -> str:
        """The metric that a schedule watches: its ``monitor`` setting, else what the best checkpoint is chosen by."""
        return str(getattr(scheduler, "monitor", None) or best_metric(module))

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
