"""Loggers in addition to the run's own: the folder keeps what it has always, the others get metrics and the config."""

import csv
import importlib.util
import json
import re
import shlex
from pathlib import Path

import pytest
import torch
import yaml
from cli_standins import Climber, InMemory, Numbers
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger

from jqlight.errors import ConfigError
from jqlight.tracking.logger import RunLogger, with_run_logger

CSV = {"class_path": "lightning.pytorch.loggers.CSVLogger", "init_args": {"save_dir": "others", "name": "csv"}}
TENSORBOARD = {
    "class_path": "lightning.pytorch.loggers.TensorBoardLogger",
    "init_args": {"save_dir": "others", "name": "tb"},
}
OWN = {"class_path": "cli_standins.InMemory", "init_args": {"project": "mine"}}
with_tensorboard = pytest.mark.skipif(
    not any(importlib.util.find_spec(name) for name in ("tensorboard", "tensorboardX")), reason="needs tensorboard"
)


@pytest.fixture
def fit(shell, climber, workplace):
    def run(logger, *options):
        path = workplace / "logged.yaml"
        content = yaml.safe_load(climber.read_text())
        content["trainer"]["logger"] = logger
        path.write_text(yaml.safe_dump(content))
        assert shell("fit", "--config", path, "--run_dir", "runs/a", *options) == 0, shell.err
        return workplace / "runs" / "a"

    return run


def rows(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    "logger", [CSV, [CSV, OWN], OWN, pytest.param(TENSORBOARD, marks=with_tensorboard)], ids=["csv", "two", "own", "tb"]
)
def test_the_runs_folder_has_everything_and_is_continued(fit, logger):
    folder = fit(logger, "--trainer.max_steps", "4")
    record = json.loads((folder / "run.json").read_text())
    assert {"estimator": "Climber", "q": "0.25", "benchmark": "Numbers"}.items() <= record["tags"].items()
    assert record["params"]["optimizer.lr"] == "0.5"
    assert record["uploaded"]["status"] == "FINISHED"
    assert yaml.safe_load((folder / "config.yaml").read_text())["model"]["init_args"]["q"] == 0.25
    assert sorted(path.name for path in (folder / "samples").iterdir()) == ["step_000002.jsonl", "step_000004.jsonl"]
    fit(logger, "--ckpt_path", "last")
    assert json.loads((folder / "run.json").read_text())["run_id"] == record["run_id"]
    assert [row["step"] for row in rows(folder) if "train/success" in row] == [1, 2, 3, 4, 5, 6]


def test_a_csv_file_has_the_metrics_and_the_config(fit, workplace):
    fit(CSV)
    (folder,) = (workplace / "others" / "csv").iterdir()
    with (folder / "metrics.csv").open() as file:
        logged = list(csv.DictReader(file))
    assert [float(row["train/success"]) for row in logged if row["train/success"]] == [0.5, 1.0, 1.5, 2.0, 2.5, 3.0]
    assert [float(row["val/maj_at_2"]) for row in logged if row["val/maj_at_2"]] == [0.75, 1.0, 0.75]
    config = yaml.safe_load((folder / "hparams.yaml").read_text())
    assert config["model"]["init_args"]["q"] == 0.25
    assert config["seed_everything"] == 0


@with_tensorboard
def test_tensorboard_has_the_metrics_and_the_config(fit, workplace):
    fit(TENSORBOARD)
    (folder,) = (workplace / "others" / "tb").iterdir()
    if not importlib.util.find_spec("tensorboard"):  # tensorboardX alone cannot read what it writes
        assert list(folder.glob("events.out.tfevents.*"))
        return
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    shown = [(event.step, event.value) for event in events.Scalars("train/success")]
    assert [value for _, value in shown] == [0.5, 1.0, 1.5, 2.0, 2.5, 3.0]
    assert [event.value for event in events.Scalars("val/maj_at_2")] == [0.75, 1.0, 0.75]
    assert yaml.safe_load((folder / "hparams.yaml").read_text())["model"]["init_args"]["q"] == 0.25


def options_of(logger):
    page = (Path(__file__).parents[2] / "docs" / "howto" / "loggers.md").read_text()
    return shlex.split(re.search(rf"--config conf/quickstart.yaml (--trainer.logger {logger} .*)", page).group(1))


@pytest.mark.parametrize("logger", ["CSVLogger", pytest.param("TensorBoardLogger", marks=with_tensorboard)])
def test_the_documented_command_adds_a_logger(shell, climber, workplace, logger):
    assert shell("fit", "--config", climber, *options_of(logger)) == 0, shell.err
    assert len([row for row in rows(workplace / "runs" / "climber") if "train/success" in row]) == 6
    (folder,) = (workplace / options_of(logger)[-1] / "lightning_logs").iterdir()
    assert yaml.safe_load((folder / "hparams.yaml").read_text())["trainer"]["max_steps"] == 6


def test_the_documented_trainer_logs_to_both(workplace):
    page = (Path(__file__).parents[2] / "docs" / "howto" / "loggers.md").read_text()
    names = {}
    exec(re.search(r"```python\n(.*?)```", page, re.DOTALL).group(1), names)

    class Script(Climber):
        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.5)

    names["trainer"].fit(Script(), Numbers())
    assert [row["train/success"] for row in rows(workplace / "runs" / "mine") if "train/success" in row] == [0.5, 1.0]
    assert list(Path("csv").rglob("metrics.csv"))


def test_a_logger_of_ones_own_gets_metrics_and_the_config(fit):
    fit([OWN, CSV])
    logger = InMemory.made[-1]
    assert [metrics["train/success"] for _, metrics in logger.metrics if "train/success" in metrics][-1] == 3.0
    assert logger.config["optimizer"]["init_args"]["lr"] == 0.5
    assert logger.status == "success"


def test_the_configs_own_run_logger_is_the_runs_logger(fit):
    own = {"class_path": "jqlight.tracking.logger.RunLogger", "init_args": {"run_dir": "runs/a", "run_name": "mine"}}
    folder = fit([CSV, own])
    assert json.loads((folder / "run.json").read_text())["run_name"] == "mine"
    assert len([row for row in rows(folder) if "train/success" in row]) == 6


def test_with_run_logger_puts_the_folders_first(workplace):
    own, other = RunLogger("runs/a"), CSVLogger("others")
    assert with_run_logger(None, lambda: own) == with_run_logger(True, lambda: own) == [own]
    assert with_run_logger(other, lambda: own) == with_run_logger([other], lambda: own) == [own, other]
    assert with_run_logger([other, own], lambda: RunLogger("runs/b")) == [own, other]


def test_a_run_logger_of_the_config_takes_the_runs_folder_and_keeps_what_it_was_given(workplace):
    given = RunLogger(timeout=600.0, experiment_name="mine")
    assert with_run_logger(given, lambda: RunLogger("runs/b", "usual", "named")) == [given]
    assert (given.run_dir, given.experiment_name, given.run_name) == (Path("runs/b"), "mine", "named")
    given.log_metrics({"a": 1.0}, 1)
    given.finalize("success")
    assert '"a": 1.0' in Path("runs/b/metrics.jsonl").read_text()
    with pytest.raises(ConfigError, match="RunLogger: run_dir: not given"):
        RunLogger().log_metrics({"a": 1.0}, 1)


@pytest.mark.parametrize("logger", [False, CSVLogger, RunLogger])
def test_a_script_may_use_any_logger(workplace, logger):
    from torch.optim import SGD

    class Script(Climber):
        def configure_optimizers(self):
            return SGD(self.parameters(), lr=0.5)

    trainer = Trainer(
        logger=logger and logger("others"), max_steps=2, accelerator="cpu", enable_progress_bar=False,
        enable_model_summary=False, val_check_interval=2,
    )  # fmt: skip
    trainer.fit(Script(), Numbers())
    assert trainer.global_step == 2
    assert bool(list(Path("others").rglob("metrics.*"))) == bool(logger)
