import shutil
import sys
from pathlib import Path

import pytest
from cli_fixtures import empty_store

from jqlight.cli import sweep
from jqlight.sweep import command

__all__ = ["empty_store", "fake_fit", "write_sweep"]

FAKE_FIT = Path(__file__).parent / "fake_fit.py"


@pytest.fixture
def fake_fit(monkeypatch, tmp_path, empty_store):
    """Points run the stand-in, in a fresh working folder with a store of its own; returns the folder."""
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    monkeypatch.setattr(command, "PROGRAM", (sys.executable, str(FAKE_FIT)))
    monkeypatch.setattr(sweep, "check_points", lambda _: None)  # its settings are not those of the real `fit`
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    return tmp_path


@pytest.fixture
def write_sweep(tmp_path):
    """Writes a sweep file, with base.yaml next to it unless the text names a base, and returns its path."""

    def write(text: str, name: str = "s.yaml") -> Path:
        (tmp_path / "base.yaml").write_text("trainer: {max_steps: 3}\n")
        path = tmp_path / name
        path.write_text(text if "base:" in text else f"base: base.yaml\n{text}")
        return path

    return write
