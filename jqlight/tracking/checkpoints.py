"""The two checkpoints of a run: the best by validation, and the last."""

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from jqlight.errors import ConfigError
from jqlight.names import majority
from jqlight.tracking.run_folder import BEST, LAST


class RunCheckpoint(ModelCheckpoint):
    """Saves ``best.ckpt``, by ``val/maj_at_<samples>``, and ``last.ckpt`` after each validation.

    Lightning's ``save_last`` writes the last checkpoint only when the best one has changed (2.6.6), which would resume
    a run from its best step; here ``last.ckpt`` is always the newest. Files are replaced in one step (by fsspec's
    transactions), so a killed run leaves the previous ones.

    Args:
        folder: where they are saved.
        module: its ``samples`` names the metric.
        validates: whether the run validates; without, ``last.ckpt`` alone is saved, at the end of epochs and training.
    """

    def __init__(self, folder: Path, module: LightningModule, *, validates: bool) -> None:
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
        self._validates = validates
        self._step_of_last = -1

    @property
    def last_path(self) -> Path:
        """Path of the last checkpoint."""
        return Path(str(self.dirpath)) / LAST

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the best, if it is, then the last, which holds what is known of the best."""
        super().on_validation_end(trainer, pl_module)
        self._save_last(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the last where no validation does."""
        super().on_train_epoch_end(trainer, pl_module)
        if not self._validates:
            self._save_last(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the last, if steps were taken since."""
        self._save_last(trainer)

    def _save_last(self, trainer: Trainer) -> None:
        training = trainer.state.fn == "fit" and not trainer.sanity_checking and not trainer.fast_dev_run  # type: ignore[attr-defined]
        if training and self._step_of_last != trainer.global_step:
            self._step_of_last = trainer.global_step
            self.last_model_path = str(self.last_path)
            trainer.save_checkpoint(self.last_path)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up what was the best, also when the run's folder has moved since; another run's best is none of ours."""
        best = Path(str(self.dirpath)) / BEST
        if state_dict.get("dirpath") != self.dirpath:
            if not best.exists():
                return
            scores = dict.fromkeys([str(best)], state_dict["best_model_score"])
            moved = {"dirpath": self.dirpath, "best_k_models": scores}
            state_dict = {**state_dict, **moved, "best_model_path": str(best), "kth_best_model_path": str(best)}
        super().load_state_dict(state_dict)


def best_metric(module: LightningModule) -> str:
    """Name of the metric that the best checkpoint has the most of."""
    return f"val/{majority(getattr(module, 'samples', None) or module.hparams.get('samples', 16))}"


def checkpoint_step(path: str | Path) -> int:
    """Optimizer steps taken when a checkpoint was saved; its tensors are not read.

    Raises:
        ConfigError: the file is damaged, or is no checkpoint of a run.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        return int({"state_dict": content["state_dict"], **content}["global_step"])
    except OSError:
        raise
    except Exception as error:  # torch raises whatever the bytes lead it to; its advice for pickles would run them
        raise ConfigError(
            f"ckpt_path: {path} is no checkpoint of a run ({type(error).__name__}): it is cut off, damaged or from "
            "another program; give another one, such as best.ckpt beside it"
        ) from error
