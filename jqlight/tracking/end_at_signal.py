"""Ends a training whose process got a signal, with a checkpoint of the very step."""

import signal
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from jqlight.tracking.interrupts import SIGNALS, Stopped, received


class EndAtSignal(Callback):
    """Ends a training whose process got a signal, in front of the next step or within a validation."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """From here on the step in hand is finished first; Lightning's own handler knows SIGTERM alone."""
        # Any of them: a job in the background ignores SIGINT, one under nohup SIGHUP.
        if any(signal.getsignal(number) is received for number in SIGNALS):
            signal.signal(signal.SIGTERM, received)
            Stopped.waits = True

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        """Behind a step, whose metrics are logged by now."""
        self._end(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Instead of a validation."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._end(trainer)

    def on_validation_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Within a validation; several processes, which may have different numbers of batches, wait for its end."""
        if trainer.state.fn == "fit" and trainer.world_size == 1 and Stopped.by is not None:
            self._end(trainer)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Training has ended and is saved; from here on nothing is waited for."""
        Stopped.waits = False

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """As at the end."""
        Stopped.waits = False

    @staticmethod
    def _end(trainer: Trainer) -> None:
        # The largest number is that of the process which got a signal; the others have none.
        number = Stopped.by or 0
        if trainer.world_size > 1:
            sent = torch.tensor(float(number), device=trainer.strategy.root_device)
            number = int(trainer.strategy.reduce(sent, reduce_op="max"))
        if number:
            Stopped.by = number
            raise Stopped(128 + number)
