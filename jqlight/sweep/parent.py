"""The parent run of a sweep in MLflow: opened before the first point, closed after the last."""

import os
from contextlib import suppress
from pathlib import Path

from mlflow.exceptions import MlflowException

from jqlight.errors import ConfigError
from jqlight.sweep.file import Sweep
from jqlight.sweep.folder import SweepFolder
from jqlight.sweep.keys import label
from jqlight.sweep.runner import Run, Status
from jqlight.tracking.runs import PARENT_TAG, SWEEP_TAG, open_store, store_uri

SWEEP_FILE_ARTIFACT = "sweep.yaml"
_MLFLOW_STATUS = {Status.STOPPED: "KILLED", Status.WAITING: "KILLED", Status.FAILED: "FAILED"}


class ParentRun:
    """The MLflow run that a sweep's points are children of.

    On a later invocation of the same sweep the same run is taken up again, so that a resumed sweep is one sweep.

    Attributes:
        store: tracking URI.
        run_id: of the parent.

    Raises:
        ConfigError: the sweep was begun in another store, or its parent run is no longer there.
    """

    def __init__(self, sweep: Sweep, folder: SweepFolder) -> None:
        noted = folder.noted()
        self.store = _store(noted)
        self._client = open_store(self.store)
        self.run_id = noted.get("parent_run_id") or self._create(sweep)
        folder.note(parent_run_id=self.run_id, store=self.store, experiment=sweep.experiment)
        try:
            self._client.update_run(self.run_id, status="RUNNING")
        except MlflowException as error:
            raise ConfigError(
                f"{folder.path} belongs to MLflow run {self.run_id}, which is not in {self.store}; "
                f"set MLFLOW_TRACKING_URI to the store that has it, or delete {folder.path / 'sweep.json'}"
            ) from error

    def environment(self) -> dict[str, str]:
        """Variables that make a point's run a child of this one."""
        return {"MLFLOW_TRACKING_URI": self.store, "JQLIGHT_PARENT_RUN_ID": self.run_id}

    def close(self, runs: list[Run]) -> None:
        """End the parent run, and the runs of points whose process crashed or was killed before it could."""
        statuses = {run.status for run in runs}
        for run in runs:
            if run.status in _MLFLOW_STATUS:
                self._close_children(run.point.name, _MLFLOW_STATUS[run.status])
        ended = next((name for status, name in _MLFLOW_STATUS.items() if status in statuses), "FINISHED")
        self._client.set_terminated(self.run_id, status=ended)

    def _close_children(self, name: str, status: str) -> None:
        experiment = self._client.get_run(self.run_id).info.experiment_id
        query = f"tags.`{PARENT_TAG}` = '{self.run_id}' and attributes.status = 'RUNNING'"
        for run in self._client.search_runs([experiment], query):
            if run.info.run_name == name:
                self._client.set_terminated(run.info.run_id, status=status)

    def _create(self, sweep: Sweep) -> str:
        experiment = self._client.get_experiment_by_name(sweep.experiment)
        experiment_id = experiment.experiment_id if experiment else self._create_experiment(sweep.experiment)
        tags = {SWEEP_TAG: sweep.name, "mlflow.note.content": f"Sweep {sweep.name}: {len(sweep.points)} points"}
        run_id = self._client.create_run(experiment_id, run_name=sweep.name, tags=tags).info.run_id
        self._client.log_param(run_id, "points", len(sweep.points))
        for key in sweep.axes():
            values = dict.fromkeys(label(point.settings[key]) for point in sweep.points if key in point.settings)
            self._client.log_param(run_id, f"axis/{key}", ", ".join(values)[:500])
        self._client.log_text(run_id, sweep.path.read_text(encoding="utf-8"), SWEEP_FILE_ARTIFACT)
        return run_id

    def _create_experiment(self, name: str) -> str:
        with suppress(MlflowException):  # another sweep made it in the meantime
            return self._client.create_experiment(name, artifact_location=artifact_location(self.store))
        experiment = self._client.get_experiment_by_name(name)
        assert experiment is not None
        return experiment.experiment_id


def artifact_location(store: str) -> str | None:
    """Folder for the artifacts of a sqlite store, beside its file; None leaves the choice to a server."""
    if not store.startswith("sqlite:///"):
        return None
    return (Path(store.removeprefix("sqlite:///")).resolve().parent / "mlartifacts").as_uri()


def _store(noted: dict[str, str]) -> str:
    given = os.environ.get("MLFLOW_TRACKING_URI")
    begun = noted.get("store")
    if begun and given and store_uri(given) != begun:
        raise ConfigError(
            f"MLFLOW_TRACKING_URI: given {given}, but this sweep was begun in {begun}; unset it or set it to that"
        )
    return begun or store_uri(given)
