"""The parent run of a sweep in MLflow: opened before the first point, closed after the last."""

import os
from pathlib import Path

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from jqlight.errors import ConfigError, JQLightError
from jqlight.report.runs import SWEEP_FILE, SWEEP_TAG, open_store, store_uri
from jqlight.sweep.file import Sweep
from jqlight.sweep.folder import SweepFolder
from jqlight.sweep.keys import label
from jqlight.sweep.runner import Run, Status
from jqlight.tracking.journal import read_record
from jqlight.tracking.mlflow import artifact_location, log, reason, store_errors

_ENDED = {Status.STOPPED: "KILLED", Status.WAITING: "KILLED", Status.FAILED: "FAILED"}
"""Status of a point -> MLflow's, the worst first; all other points are FINISHED."""
_PARAM_CHARACTERS = 500


class ParentRun:
    """The MLflow run that a sweep's points are children of.

    On a later invocation of the same sweep the same run is taken up again, so that a resumed sweep is one sweep.

    Attributes:
        store: tracking URI.
        run_id: of the parent.

    Raises:
        ConfigError: the sweep was begun in another store, or its parent run is no longer there.
        JQLightError: the store cannot be used.
    """

    def __init__(self, sweep: Sweep, folder: SweepFolder) -> None:
        noted = folder.noted()
        self.experiment = sweep.experiment
        self.store = _store(noted, folder)
        self._client = open_store(self.store)
        try:
            self.run_id: str = noted.get("parent_run_id") or self._create(sweep)
            self._continue(folder)
        except store_errors() as error:
            raise JQLightError(
                f"MLflow at {self.store} cannot be used ({reason(error)}); "
                f"start its server, or unset MLFLOW_TRACKING_URI for a store in {folder.path.parent}"
            ) from error
        folder.note(parent_run_id=self.run_id, store=self.store, experiment=sweep.experiment)

    def environment(self) -> dict[str, str]:
        """Variables that make a point's run a child of this one, in the same store."""
        return {"MLFLOW_TRACKING_URI": self.store, "JQLIGHT_PARENT_RUN_ID": self.run_id}

    def close(self, runs: list[Run]) -> None:
        """End the parent run, and the runs of points whose process crashed or was killed before it could."""
        statuses = {run.status for run in runs}
        ended = next((name for status, name in _ENDED.items() if status in statuses), "FINISHED")
        try:
            for run in runs:
                if run.status in (Status.STOPPED, Status.FAILED):
                    self._close_child(run, _ENDED[run.status])
            self._client.set_terminated(self.run_id, status=ended)
        except store_errors() as error:
            log.warning(
                "MLflow at %s cannot be used (%s); the sweep's run stays open there.", self.store, reason(error)
            )

    def _close_child(self, run: Run, status: str) -> None:
        run_id = read_record(run.folder.path).get("run_id")
        if run_id and self._client.get_run(run_id).info.status == "RUNNING":
            self._client.set_terminated(run_id, status=status)

    def _continue(self, folder: SweepFolder) -> None:
        try:
            self._client.update_run(self.run_id, status="RUNNING")
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            raise ConfigError(
                f"{folder.path} belongs to MLflow run {self.run_id}, which is not in {self.store}; "
                f"set MLFLOW_TRACKING_URI to the store that has it, or delete {folder.path / 'sweep.json'}"
            ) from error

    def _create(self, sweep: Sweep) -> str:
        tags = {SWEEP_TAG: sweep.name, "mlflow.note.content": f"Sweep {sweep.name}: {len(sweep.points)} points"}
        experiment_id = _experiment_id(self._client, self.store, sweep.experiment)
        run_id = str(self._client.create_run(experiment_id, run_name=sweep.name, tags=tags).info.run_id)
        self._client.log_param(run_id, "points", len(sweep.points))
        for key in sweep.axes():
            values = dict.fromkeys(label(point.settings[key]) for point in sweep.points if key in point.settings)
            self._client.log_param(run_id, f"axis/{key}", ", ".join(values)[:_PARAM_CHARACTERS])
        self._client.log_text(run_id, sweep.path.read_text(encoding="utf-8"), SWEEP_FILE)
        return run_id


def _experiment_id(client: MlflowClient, store: str, name: str) -> str:
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name, artifact_location=artifact_location(store)))
        except MlflowException:  # another sweep made it in the meantime
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    return str(found.experiment_id)


def _store(noted: dict[str, str], folder: SweepFolder) -> str:
    given = os.environ.get("MLFLOW_TRACKING_URI")
    begun = noted.get("store")
    if begun and given and store_uri(given) != begun:
        raise ConfigError(
            f"MLFLOW_TRACKING_URI: given {given}, but this sweep was begun in {begun}; unset it or set it to that"
        )
    return begun or store_uri(given, Path(folder.path.parent))
