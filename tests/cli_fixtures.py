"""Fixtures for tests that run the command line or the tracker; imported by the conftest files of the rooms."""

import os
import shutil
from pathlib import Path

import pytest
import yaml

from jqlight.cli.main import main


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database without runs; creating its tables takes seconds, copying it does not."""
    from mlflow import MlflowClient

    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def workplace(tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory whose runs/ holds an empty MLflow store."""
    monkeypatch.chdir(tmp_path)
    for name in ("MLFLOW_TRACKING_URI", "JQLIGHT_PARENT_RUN_ID", "JQLIGHT_RUN_DIR", "JQLIGHT_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "runs").mkdir()
    shutil.copy(empty_store, tmp_path / "runs" / "mlflow.db")
    return tmp_path


CLIMBER = {
    "model": {"class_path": "cli_standins.Climber", "init_args": {"q": 0.25}},
    "data": {"class_path": "cli_standins.Numbers"},
    "optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.5}},
    "trainer": {"accelerator": "cpu", "max_steps": 6, "val_check_interval": 2, "num_sanity_val_steps": 0},
}
"""Weights 0.5, 1.0, ... 3.0 in six steps; validated at 1, 2 (the best) and 3."""


@pytest.fixture
def climber(workplace: Path) -> Path:
    """Config of a run of milliseconds."""
    path = workplace / "climber.yaml"
    path.write_text(yaml.safe_dump(CLIMBER))
    return path


class Shell:
    """Runs commands in this process and keeps what they print."""

    def __init__(self, capsys: pytest.CaptureFixture) -> None:
        self.capsys = capsys

    def __call__(self, *arguments: object) -> int:
        self.capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        self.out, self.err = self.capsys.readouterr()
        return code


@pytest.fixture
def shell(capsys: pytest.CaptureFixture) -> Shell:
    """The command: ``shell("fit", "--config", path)`` returns the exit code, ``.out`` and ``.err`` hold the text."""
    os.environ.pop("JQLIGHT_RUN_DIR", None)
    return Shell(capsys)
