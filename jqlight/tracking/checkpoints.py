"""The two checkpoints of a run: the best by validation, and the last."""

import time
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from jqlight.errors import NonFiniteError
from jqlight.names import majority
from jqlight.tracking.checkpoint_files import checkpoint_step, not_finite
from jqlight.tracking.interrupts import Stopped
from jqlight.tracking.run_folder import BEST, LAST

__all__ = ["EVERY_MINUTES", "RunCheckpoint", "best_metric", "checkpoint_step"]

EVERY_MINUTES = 1.0
"""Minutes of training between two checkpoints, where nothing else is given: the most that a killed run loses."""

_VALIDATION = "epoch_loop.val_loop.batch_progress"


class RunCheckpoint(ModelCheckpoint):
    """Saves ``best.ckpt``, by ``val/maj_at_<samples>``, and ``last.ckpt`` before the first step and then regularly.

    ``last.ckpt`` is the newest state: of every ``every_minutes`` and ``every_n_steps``, of each validation, of the
    end, and of the step in which a signal ended the run. Lightning's ``save_last`` writes it only when the best one has
    changed (2.6.6), and its intervals of time do not count for manual optimization.

    A step's checkpoint is written when the step has ended and takes its name once the step's metrics are logged, so
    that a resumed run misses none of them.

    Args:
        folder: where they are saved.
        module: its ``samples`` names the metric.
        validates: whether the run validates; without, ``last.ckpt`` alone is saved.
        every_n_steps: optimizer steps between two checkpoints; None for no such rule.
        every_minutes: minutes between two checkpoints.

    Attributes:
        count: checkpoints written.
        seconds: time they took.
        began: ``time.monotonic()`` when training began.
    """

    def __init__(
        self,
        folder: Path,
        module: LightningModule,
        *,
        validates: bool,
        every_n_steps: int | None = None,
        every_minutes: float = EVERY_MINUTES,
    ) -> None:
        super().__init__(
            dirpath=folder,
            filename=Path(BEST).stem,
            monitor=best_metric(module) if validates else None,
            mode="max",
            save_top_k=1 if validates else 0,
            save_last=False,
            auto_insert_metric_name=False,
            enable_version_counter=False,
            save_on_train_epoch_end=False,
        )
        self.every_n_steps, self.every_seconds = every_n_steps, 60 * every_minutes
        self.count, self.seconds, self.began = 0, 0.0, time.monotonic()
        self._step_of_last = -1
        self._saved_at = time.monotonic()
        self._pending = False
        self._validation_due: int | None = None
        self._lengthened = False

    @property
    def last_path(self) -> Path:
        """Path of the last checkpoint."""
        return Path(str(self.dirpath)) / LAST

    @property
    def _pending_path(self) -> Path:
        return self.last_path.with_name(f"{LAST}.pending")

    def cost(self) -> str:
        """What the checkpoints of this process have taken so far, in words."""
        share = self.seconds / max(self._saved_at - self.began, 1e-9)
        return f"{self.count} written in {self.seconds:.1f} s, {share:.1%} of the training"

    # -- when ----------------------------------------------------------------------------------------------------------

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let a run go on that ended in the validation behind its last step."""
        if self._validation_due is not None and self._validation_due == trainer.max_steps:
            trainer.fit_loop.epoch_loop.max_steps = trainer.max_steps + 1
            self._lengthened = True

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save what training starts from: a disk that cannot hold checkpoints is told before the first step."""
        super().on_train_start(trainer, pl_module)
        self.began = self._saved_at = time.monotonic()
        if trainer.is_global_zero:
            for ending in ("partial", "pending"):  # what a killed process was writing
                for left in self.last_path.parent.glob(f"*.ckpt.{ending}"):
                    left.unlink(missing_ok=True)
        if trainer.ckpt_path is None:
            self._save_last(trainer)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Write a checkpoint of this step, if it is time; :meth:`_commit` gives it its name."""
        last_of_epoch = trainer.fit_loop.epoch_loop.batch_progress.is_last_batch  # saved when the epoch has ended
        # Trainer.fast_dev_run is set by a connector, which type checkers do not see; so below.
        if not last_of_epoch and self._is_due(trainer) and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            self._save(trainer, self._pending_path)
            self._pending = True

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        """The last step's metrics are logged by now."""
        self._commit(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the state in front of a validation, if it is time; resumed from there, a run begins with it."""
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        if name := not_finite({"state_dict": pl_module.state_dict()}):
            raise NonFiniteError(
                f"step {trainer.global_step}: {name} is not finite, so there is nothing to validate and the checkpoint "
                "before is kept; lower optimizer.lr"
            )
        if self._validation_due is not None:  # this one; Lightning's count of it has served its purpose
            trainer.fit_loop.epoch_loop.val_loop.batch_progress.total.reset_on_restart()
            return
        waits = self._pending or (self._is_due(trainer) and self._step_of_last != trainer.global_step)
        if waits and trainer.global_step != trainer.max_steps:
            self._save_before_validation(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the best, if it is, then the last, which holds what is known of the best."""
        if self._lengthened:  # a run's own last step may be the next one, too
            trainer.fit_loop.epoch_loop.max_steps = trainer.max_steps - 1
        self._lengthened, self._validation_due, self._pending = False, None, False
        best, begin = self._last_global_step_saved, time.monotonic()
        super().on_validation_end(trainer, pl_module)
        if self._last_global_step_saved != best:
            self.count, self.seconds = self.count + 1, self.seconds + time.monotonic() - begin
        self._save_last(trainer, again=True)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the last where the epoch's last step was due, or no validation does."""
        super().on_train_epoch_end(trainer, pl_module)
        self._commit(trainer)
        if self.monitor is None or self._is_due(trainer):
            self._save_last(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the last, if steps were taken since."""
        self._commit(trainer)
        self._save_last(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Keep the very step in which a signal ended the run."""
        super().on_exception(trainer, pl_module, exception)
        if Stopped.by is not None and trainer.state.fn == "fit" and not trainer.sanity_checking:
            if trainer.validating:
                self._save_before_validation(trainer)
            self._commit(trainer)

    def _is_due(self, trainer: Trainer) -> bool:
        late = time.monotonic() - self._saved_at >= self.every_seconds
        counted = bool(self.every_n_steps) and trainer.global_step % (self.every_n_steps or 1) == 0
        stopping = Stopped.by is not None
        # All processes of a run save together, or none.
        return bool(trainer.strategy.reduce_boolean_decision(late or counted or stopping, all=False))

    # -- how -----------------------------------------------------------------------------------------------------------

    def _save_before_validation(self, trainer: Trainer) -> None:
        if self._step_of_last == trainer.global_step and not self._pending:  # saved when this validation began
            return
        self._step_of_last = -1
        self._validation_due = trainer.global_step
        self._save_last(trainer)
        self._validation_due, self._pending = None, False

    def _save_last(self, trainer: Trainer, *, again: bool = False) -> None:
        training = trainer.state.fn == "fit" and not trainer.sanity_checking and not trainer.fast_dev_run  # type: ignore[attr-defined]
        if training and (again or self._step_of_last != trainer.global_step):
            self._save(trainer, self.last_path)

    def _save(self, trainer: Trainer, path: Path) -> None:
        begin = time.monotonic()
        self._step_of_last = trainer.global_step
        self.last_model_path = str(self.last_path)
        trainer.save_checkpoint(path)
        self._saved_at = time.monotonic()
        self.count, self.seconds = self.count + 1, self.seconds + self._saved_at - begin

    def _commit(self, trainer: Trainer) -> None:
        if self._pending and trainer.is_global_zero:
            self._pending_path.replace(self.last_path)
        self._pending = False

    # -- its own state -------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """What Lightning keeps of the best, and whether the step's validation is still due."""
        return {**super().state_dict(), "validation_due": self._validation_due}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up what was the best, also when the run's folder has moved since; another run's best is none of ours."""
        self._validation_due = state_dict.get("validation_due")
        best = Path(str(self.dirpath)) / BEST
        if state_dict.get("dirpath") != self.dirpath:
            if not best.exists():
                return
            scores = dict.fromkeys([str(best)], state_dict["best_model_score"])
            moved = {"dirpath": self.dirpath, "best_k_models": scores}
            state_dict = {**state_dict, **moved, "best_model_path": str(best), "kth_best_model_path": str(best)}
        super().load_state_dict(state_dict)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Have Lightning run a validation that is still due, as it goes on with one that was cut off."""
        state = checkpoint.get("callbacks", {}).get(self.state_key, {})
        progress = checkpoint.get("loops", {}).get("fit_loop", {}).get(_VALIDATION)
        if state.get("validation_due") is not None and progress:
            done = progress["total"]["completed"]
            progress["total"].update(ready=done + 1, started=done + 1, processed=done)
            progress["current"].update(dict.fromkeys(progress["current"], 0))


def best_metric(module: LightningModule) -> str:
    """Name of the metric that the best checkpoint has the most of."""
    return f"val/{majority(getattr(module, 'samples', None) or module.hparams.get('samples', 16))}"
