"""The parent run of a sweep in MLflow: opened before the first point, closed after the last."""

import os
from pathlib import Path

from mlflow.exceptions import MlflowException

from jqlight.errors import ConfigError, JQLightError
from jqlight.names import format_value
from jqlight.report.runs import SWEEP_FILE
from jqlight.sweep.file import Sweep
from jqlight.sweep.folder import SweepFolder
from jqlight.sweep.runner import Run, Status
from jqlight.tracking.journal import read_record
from jqlight.tracking.mlflow import (
    PARAM_CHARACTERS,
    PARENT_VARIABLE,
    STORE_VARIABLE,
    SWEEP_TAG,
    ensure_experiment,
    log,
    moved_store,
    open_store,
    reason,
    redacted,
    same_store,
    store_errors,
    store_uri,
)
from jqlight.tracking.views import try_view

_ENDED = {Status.STOPPED: "KILLED", Status.WAITING: "KILLED", Status.FAILED: "FAILED"}
"""Status of a point -> MLflow's, the worst first; all other points are FINISHED."""


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
                f"MLflow at {self.shown_store} cannot be used ({reason(error)}); "
                f"start its server, or unset {STORE_VARIABLE} for a store in {folder.path.parent}"
            ) from error
        facts = {"store": self.shown_store, "folder": str(folder.path.resolve()), "experiment": sweep.experiment}
        folder.note(parent_run_id=self.run_id, **facts)
        self.leave_view()

    @property
    def shown_store(self) -> str:
        """The store without its password."""
        return redacted(self.store)

    def environment(self) -> dict[str, str]:
        """Variables that make a point's run a child of this one, in the same store."""
        return {STORE_VARIABLE: self.store, PARENT_VARIABLE: self.run_id}

    def leave_view(self) -> str | None:
        """Address of the view of this sweep, from ``#`` on, see :mod:`jqlight.tracking.views`; None without one."""
        return try_view(self._client, self.run_id)

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
                "MLflow at %s cannot be used (%s); the sweep's run stays open there.", self.shown_store, reason(error)
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
                f"{folder.path} belongs to MLflow run {self.run_id}, which is not in {self.shown_store}; "
                f"set {STORE_VARIABLE} to the store that has it, or delete {folder.path / 'sweep.json'}"
            ) from error

    def _create(self, sweep: Sweep) -> str:
        tags = {SWEEP_TAG: sweep.name, "mlflow.note.content": f"Sweep {sweep.name}: {len(sweep.points)} points"}
        experiment_id = ensure_experiment(self._client, sweep.experiment)
        run_id = str(self._client.create_run(experiment_id, run_name=sweep.name, tags=tags).info.run_id)
        self._client.log_param(run_id, "points", len(sweep.points))
        for key in sweep.axes():
            values = dict.fromkeys(format_value(point.settings[key]) for point in sweep.points if key in point.settings)
            self._client.log_param(run_id, f"axis/{key}", ", ".join(values)[:PARAM_CHARACTERS])
        self._client.log_text(run_id, sweep.path.read_text(encoding="utf-8"), SWEEP_FILE)
        return run_id


def _store(noted: dict[str, str], folder: SweepFolder) -> str:
    given = os.environ.get(STORE_VARIABLE)
    begun = moved_store(noted.get("store"), folder.path, noted.get("folder"))
    if begun and given and not same_store(given, begun):
        raise ConfigError(
            f"{STORE_VARIABLE}: given {redacted(given)}, but this sweep was begun in {begun}; unset it or set it to "
            "that"
        )
    return store_uri(recorded=begun, runs=Path(folder.path.parent))
