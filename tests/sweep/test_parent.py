import json
import logging
from pathlib import Path

import mlflow
import pytest

from jqlight.errors import JQLightError
from jqlight.sweep.file import read_sweep
from jqlight.sweep.folder import PointFolder, SweepFolder
from jqlight.sweep.parent import ParentRun
from jqlight.sweep.runner import Run, Status


@pytest.fixture
def sweep(write_sweep):
    return read_sweep(write_sweep("experiment: exp\ngrid: {estimator: [GARL], q: [0, 1]}\n"))


@pytest.fixture
def client(fake_fit):
    return mlflow.MlflowClient(f"sqlite:///{fake_fit}/mlflow.db")


def ended(sweep, status, number=0, run_id=None):
    """A run of the sweep's point that ended so, with the MLflow run that its process noted."""
    folder = PointFolder(Path("runs") / sweep.points[number].name)
    folder.path.mkdir(parents=True, exist_ok=True)
    if run_id:
        (folder.path / "run.json").write_text(json.dumps({"run_id": run_id}))
    return Run(sweep.points[number], folder, status, resumes=False, stages=[])


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [
        ([Status.FINISHED, Status.KEPT], "FINISHED"),
        ([Status.FINISHED, Status.FAILED], "FAILED"),
        ([Status.FAILED, Status.STOPPED], "KILLED"),
        ([Status.FINISHED, Status.WAITING], "KILLED"),
    ],
)
def test_parent_ends_as_its_worst_point(sweep, client, statuses, expected):
    parent = ParentRun(sweep, SweepFolder(Path("runs/s")))
    parent.close([ended(sweep, status, number) for number, status in enumerate(statuses)])
    assert client.get_run(parent.run_id).info.status == expected


def test_runs_that_their_process_left_open_are_closed_and_others_are_not_touched(sweep, client):
    parent = ParentRun(sweep, SweepFolder(Path("runs/s")))
    experiment = client.get_experiment_by_name("exp").experiment_id
    crashed, closed = (client.create_run(experiment).info.run_id for _ in range(2))
    client.set_terminated(closed, "FINISHED")
    parent.close([ended(sweep, Status.FAILED, 0, crashed), ended(sweep, Status.STOPPED, 1, closed)])
    assert client.get_run(crashed).info.status == "FAILED"
    assert client.get_run(closed).info.status == "FINISHED"


def test_a_later_invocation_takes_the_same_parent_up_again(sweep, client):
    first = ParentRun(sweep, SweepFolder(Path("runs/s")))
    first.close([ended(sweep, Status.FAILED)])
    second = ParentRun(sweep, SweepFolder(Path("runs/s")))
    assert second.run_id == first.run_id
    assert client.get_run(first.run_id).info.status == "RUNNING"
    assert second.environment()["JQLIGHT_PARENT_RUN_ID"] == first.run_id


def test_artifacts_are_next_to_the_store(sweep, client, fake_fit):
    parent = ParentRun(sweep, SweepFolder(Path("runs/s")))
    assert client.get_run(parent.run_id).info.artifact_uri.startswith((fake_fit / "mlartifacts").as_uri())
    text = Path(client.download_artifacts(parent.run_id, "sweep.yaml", str(fake_fit))).read_text()
    assert text == sweep.path.read_text()


def test_experiment_that_was_deleted_is_restored(sweep, client):
    ParentRun(sweep, SweepFolder(Path("runs/a")))
    client.delete_experiment(client.get_experiment_by_name("exp").experiment_id)
    ParentRun(sweep, SweepFolder(Path("runs/b")))
    assert client.get_experiment_by_name("exp").lifecycle_stage == "active"


def test_store_that_cannot_be_used_is_one_sentence_at_the_start(sweep, fake_fit, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(JQLightError, match=r"MLflow at http://127\.0\.0\.1:9 cannot be used .*start its server"):
        ParentRun(sweep, SweepFolder(Path("runs/s")))


def test_store_that_dies_during_the_sweep_is_only_a_warning(sweep, client, monkeypatch, caplog):
    parent = ParentRun(sweep, SweepFolder(Path("runs/s")))

    def gone(*args, **kwargs):
        raise mlflow.exceptions.MlflowException("connection refused")

    monkeypatch.setattr(parent._client, "set_terminated", gone)
    with caplog.at_level(logging.WARNING, logger="jqlight"):
        parent.close([ended(sweep, Status.FINISHED)])
    assert "cannot be used (connection refused); the sweep's run stays open there" in caplog.text
