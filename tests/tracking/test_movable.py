"""Runs and stores that are opened elsewhere than they were made: another machine, or the host of a container."""

import shutil
from pathlib import Path

import pytest
import yaml
from mlflow import MlflowClient
from mlflow.store.artifact.artifact_repository_registry import _artifact_repository_registry as registry
from mlflow.tracking._tracking_service.utils import _artifact_repos_cache

from jqlight.cli import ui
from jqlight.tracking.artifacts import MovableArtifacts, found
from jqlight.tracking.journal import read_record
from jqlight.tracking.mlflow import moved_store, recorded_store, sqlite_uri


@pytest.fixture(autouse=True)
def installed(monkeypatch):
    """MLflow as it is where this version of jqlight is installed."""
    monkeypatch.setitem(registry._registry, "file", MovableArtifacts)


@pytest.fixture
def moved(shell, climber, monkeypatch, tmp_path_factory):
    """The run folder of a finished run whose whole working directory has moved."""
    assert shell("fit", "--config", climber) == 0
    there = tmp_path_factory.mktemp("elsewhere") / "work"
    climber.parent.rename(there)
    climber.parent.mkdir()
    monkeypatch.chdir(there)
    _artifact_repos_cache.clear()  # what another process would not know
    return there / "runs" / "climber"


def artifacts(client, run_id, folder=""):
    for entry in client.list_artifacts(run_id, folder):
        yield from artifacts(client, run_id, entry.path) if entry.is_dir else [entry.path]


def test_a_moved_store_is_found_with_all_its_artifacts(moved):
    store = f"sqlite:///{moved.parent}/mlflow.db"
    assert recorded_store(moved) == ui.find_store(moved, None) == store
    client, run_id = MlflowClient(store), read_record(moved)["run_id"]
    names = set(artifacts(client, run_id))
    assert "config.yaml" in names and any(name.startswith("samples/") for name in names)
    text = (moved / "config.yaml").read_text()
    assert Path(client.download_artifacts(run_id, "config.yaml")).read_text() == text


def test_a_moved_run_goes_on_as_the_same_run_and_writes_beside_its_store(moved, shell, tmp_path):
    before = read_record(moved)["run_id"]
    words = ["--config", "climber.yaml", "--run_dir", "runs/climber", "--ckpt_path", "last"]
    assert shell("fit", *words, "--trainer.max_steps", "8") == 0, shell.err
    assert read_record(moved)["run_id"] == before
    client = MlflowClient(f"sqlite:///{moved.parent}/mlflow.db")
    assert [run.info.run_id for run in client.search_runs([client.get_run(before).info.experiment_id])] == [before]
    assert {metric.step for metric in client.get_metric_history(before, "val/maj_at_2")} >= {8}
    assert "samples/step_000008.json" in set(artifacts(client, before))
    assert list(tmp_path.iterdir()) == []  # nothing is made where the store was


def test_a_copied_project_leaves_the_one_it_was_copied_from_alone(shell, climber, monkeypatch, tmp_path_factory):
    assert shell("fit", "--config", climber) == 0
    copy = tmp_path_factory.mktemp("copies") / "work"
    shutil.copytree(climber.parent, copy)
    before = {path: path.read_bytes() for path in climber.parent.rglob("*") if path.is_file()}
    monkeypatch.chdir(copy)
    _artifact_repos_cache.clear()
    assert shell("fit", "--config", "climber.yaml", "--ckpt_path", "last", "--trainer.max_steps", "8") == 0, shell.err
    assert {path: path.read_bytes() for path in climber.parent.rglob("*") if path.is_file()} == before
    client, run_id = MlflowClient(f"sqlite:///{copy}/runs/mlflow.db"), read_record(copy / "runs/climber")["run_id"]
    assert client.get_run(run_id).data.metrics["val/maj_at_2"] is not None
    assert {metric.step for metric in client.get_metric_history(run_id, "val/maj_at_2")} >= {8}
    assert "samples/step_000008.json" in set(artifacts(client, run_id))


def test_a_store_that_is_no_neighbour_stays_the_store_of_a_moved_run(tmp_path, monkeypatch):
    folder, central = tmp_path / "new/runs/a", tmp_path / "central/mlflow.db"
    for path in (folder, tmp_path / "new/runs/mlflow.db", central):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch() if path.suffix else path.mkdir()
    assert moved_store(sqlite_uri(central), folder, str(tmp_path / "old/runs/a")) == sqlite_uri(central)
    point = tmp_path / "old/runs/sweep/a"
    assert moved_store(sqlite_uri(point.parents[1] / "mlflow.db"), tmp_path / "new/runs/sweep/a", str(point)) == (
        sqlite_uri(tmp_path / "new/runs/mlflow.db")
    )


def test_a_run_killed_before_its_store_was_made_does_not_take_another_ones(tmp_path):
    folder, above = tmp_path / "project/runs/a", tmp_path / "mlflow.db"
    folder.mkdir(parents=True)
    above.touch()
    own = sqlite_uri(folder.parent / "mlflow.db")
    assert moved_store(own, folder, str(folder)) == own


def test_a_new_run_in_a_moved_store_is_written_beside_it(moved, shell, tmp_path):
    assert shell("fit", "--config", "climber.yaml") == 0
    run_id = read_record(moved.with_name("climber-2"))["run_id"]
    client = MlflowClient(f"sqlite:///{moved.parent}/mlflow.db")
    assert "config.yaml" in set(artifacts(client, run_id))
    assert list(tmp_path.iterdir()) == []


def test_a_run_folder_moved_alone_is_uploaded_where_it_is_opened(moved, shell, tmp_path):
    alone = tmp_path / "alone"
    shutil.copytree(moved, alone)
    shutil.rmtree(moved.parent)
    assert shell("ui", alone, "--print") == 0
    assert "is complete in MLflow" in shell.out and f"sqlite:///{tmp_path}/mlflow.db" in shell.out
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    run_id = read_record(alone)["run_id"]
    assert "config.yaml" in set(artifacts(client, run_id))
    assert yaml.safe_load((alone / "config.yaml").read_text())["trainer"]["max_steps"] == 6
    assert client.get_run(run_id).info.status == "FINISHED"


def test_a_sweeps_point_finds_the_store_above_the_sweep(moved):
    point = moved.parent / "sweep" / "point"
    point.mkdir(parents=True)
    shutil.copy(moved / "run.json", point)
    assert recorded_store(point) == f"sqlite:///{moved.parent}/mlflow.db"


def test_artifacts_stay_where_they_are_found(tmp_path):
    (tmp_path / "mlartifacts").mkdir()
    here, store = (tmp_path / "mlartifacts/1/a").as_uri(), f"sqlite:///{tmp_path}/other/mlflow.db"
    assert found(here, store) == here
    assert found("file:///gone/mlartifacts/1/a%20b", store) == (tmp_path / "other/mlartifacts/1/a b").as_uri()
    assert found("file:///gone/elsewhere/1/a", store) == "file:///gone/elsewhere/1/a"
    assert found("file:///gone/mlartifacts/1/a", "http://server") == "file:///gone/mlartifacts/1/a"


@pytest.mark.parametrize("variable", ["_MLFLOW_SERVER_FILE_STORE", "MLFLOW_BACKEND_STORE_URI"])
def test_a_server_finds_them_by_its_own_store(tmp_path, monkeypatch, variable):
    monkeypatch.setenv(variable, f"sqlite:///{tmp_path}/mlflow.db")
    repository = MovableArtifacts("file:///gone/mlartifacts/1/a")
    assert repository.artifact_dir == str(tmp_path / "mlartifacts/1/a")
