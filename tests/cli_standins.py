"""A model and data that train in milliseconds, for tests of the command line: a policy of one weight."""

import time
from pathlib import Path
from typing import ClassVar

import torch
from lightning.pytorch import LightningDataModule, LightningModule
from lightning.pytorch.loggers.logger import Logger
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.utils.data import DataLoader

from jqlight.errors import ConfigError, DataError
from jqlight.sampling import SamplerConfig


class OneWeight(torch.nn.Module):
    def load(self):
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def export(self, folder):
        Path(folder).mkdir(parents=True, exist_ok=True)
        (Path(folder) / "weight.txt").write_text(str(self.weight.item()))


class Climber(LightningModule):
    """Its weight goes up by the learning rate a step; validation scores are best at a weight of 2."""

    def __init__(
        self,
        q: float = 0.75,
        sampler: SamplerConfig | None = None,
        samples: int = 2,
        fail_at: int = 0,
        label: str = "",
        pause: float = 0.0,
    ):
        super().__init__()
        if not 0 <= q <= 1:
            raise ConfigError(f"model.q: given {q}, allowed is a number from 0 to 1")
        self.automatic_optimization = False
        self.policy = OneWeight()
        self.samples, self.fail_at, self.pause = samples, fail_at, pause
        self.save_hyperparameters({"estimator": "Climber", "q": q, "samples": samples, "label": label})

    def configure_optimizers(self):
        optimizer = self.optimizer([self.policy.weight])
        scheduler = getattr(self, "lr_scheduler", None)
        if scheduler is None:
            return optimizer
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler(optimizer), "interval": "step"}}

    def configure_model(self):
        if not hasattr(self.policy, "weight"):
            self.policy.load()

    def training_step(self, batch, batch_idx):
        time.sleep(self.pause)
        optimizer = self.optimizers()
        self.policy.weight.grad = -torch.ones(1)
        rate = optimizer.param_groups[0]["lr"]
        optimizer.step()
        scheduler = self.lr_schedulers()
        if scheduler is not None and not isinstance(scheduler, ReduceLROnPlateau):
            scheduler.step()
        if self.fail_at < 0 and self.global_step == -self.fail_at:
            raise KeyboardInterrupt
        if self.fail_at and self.global_step == self.fail_at:
            raise DataError("record 7 of train.json: no answer")
        self.log("train/success", self.policy.weight.item(), prog_bar=True)
        self.log("train/lr", rate)

    def _score(self, stage):
        weight = self.policy.weight.item()
        self.log(f"{stage}/maj_at_{self.samples}", 1 - abs(weight - 2) / 4)
        self.log(f"{stage}/weight", weight)
        for logger in (logger for logger in self.trainer.loggers if hasattr(logger, "log_samples")):
            logger.log_samples(stage, self.global_step, [{"id": "a", "answer": f"{weight:g}"}])

    def validation_step(self, batch, batch_idx):
        pass

    def on_validation_epoch_end(self):
        self._score("val")

    def test_step(self, batch, batch_idx):
        pass

    def on_test_epoch_end(self):
        self._score("test")

    def predict_step(self, batch, batch_idx):
        return [{"id": str(i), "weight": self.policy.weight.item()} for i in batch.tolist()]


class Numbers(LightningDataModule):
    def __init__(self, path: str | None = None, scenario: str = "cold", size: int = 8):
        super().__init__()
        self.path, self.size = path, size

    def setup(self, stage):
        if self.path and not Path(self.path).exists():
            raise DataError(f"data.path: given {self.path!r}, allowed is an existing file")

    def train_dataloader(self):
        return DataLoader(range(self.size))

    val_dataloader = test_dataloader = predict_dataloader = train_dataloader


class InMemory(Logger):
    """A logger with no more than Lightning asks for, as one for a tracking service has it."""

    made: ClassVar[list["InMemory"]] = []

    def __init__(self, project: str):
        super().__init__()
        self.project, self.metrics, self.config, self.status = project, [], {}, None
        self.made.append(self)

    @property
    def name(self):
        return self.project

    @property
    def version(self):
        return "1"

    def log_metrics(self, metrics, step=None):
        self.metrics.append((step, dict(metrics)))

    def log_hyperparams(self, params):
        self.config |= dict(params)

    def finalize(self, status):
        self.status = status
