"""From a run's journal to MLflow: whatever is not there yet, as often as needed, each thing once."""

import json
import logging
import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jqlight.tracking.journal import Journal

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger("jqlight")

PARENT_TAG = "mlflow.parentRunId"

# A log_batch request takes at most 1000 metrics and 100 parameters or tags (MLflow's REST limits).
_METRICS_PER_REQUEST = 1000
_FIELDS_PER_REQUEST = 100
# The UI finds tables by a tag, which holds at most 8000 characters; older tables stay as artifacts.
_TABLES_IN_TAG = 100
# Older servers refuse longer parameter values.
_PARAM_CHARACTERS = 500
# sqlite commits cost milliseconds; once a second is live enough for a chart.
_SECONDS_BETWEEN_UPLOADS = 1.0
_FIRST_RETRY_SECONDS = 15.0
_LONGEST_RETRY_SECONDS = 300.0


def quick_timeouts(seconds: int = 10) -> None:
    """Make MLflow's HTTP client give up on an answer after ``seconds`` where the user has not set its patience."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", str(seconds))
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "0")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")


def store_errors() -> tuple[type[Exception], ...]:
    """What a store that cannot be used right now raises: MLflow's, the network's and the database's errors."""
    from mlflow.exceptions import MlflowException

    errors: tuple[type[Exception], ...] = (MlflowException, OSError)
    try:
        from sqlalchemy.exc import SQLAlchemyError
    except ImportError:
        return errors
    return (*errors, SQLAlchemyError)


def artifact_location(tracking_uri: str) -> str | None:
    """Folder for artifacts beside a sqlite store's file; None leaves the choice to a server."""
    if not tracking_uri.startswith("sqlite:///"):
        return None
    return (Path(tracking_uri.removeprefix("sqlite:///")).resolve().parent / "mlartifacts").as_uri()


class Uploader:
    """Brings one run in MLflow up to date with its journal.

    What has arrived is noted in the journal's ``run.json`` after each part, so an upload that breaks off goes on where
    it stopped, in this process or in a later ``jqlight sync``.
    """

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self._client: MlflowClient | None = None
        self._checked = False
        # The upload thread and whoever asks the logger for its run id must not both create the run.
        self._lock = threading.RLock()

    @property
    def client(self) -> "MlflowClient":
        """MLflow's client of the run's store."""
        if self._client is None:
            from mlflow import MlflowClient

            quick_timeouts()
            self._client = MlflowClient(self.journal.record["tracking_uri"])
        return self._client

    def ensure_run(self) -> str:
        """Id of the MLflow run, created when this journal has none (or its run was deleted from the store)."""
        with self._lock:
            return self._ensure_run()

    def _ensure_run(self) -> str:
        run_id = self.journal.record.get("run_id")
        if run_id and (self._checked or self._exists(run_id)):
            self._checked = True
            return str(run_id)
        self.journal.forget_upload()
        record = self.journal.record
        run = self.client.create_run(
            self._experiment_id(record),
            start_time=int(record.get("start_time", time.time()) * 1000),
            run_name=record["run_name"],
            tags=record.get("tags"),
        )
        self.journal.update(
            run_id=run.info.run_id,
            experiment_id=run.info.experiment_id,
            uploaded={"tags": record.get("tags", {}), "status": "RUNNING"},
        )
        self._checked = True
        return str(run.info.run_id)

    def _exists(self, run_id: str) -> bool:
        from mlflow.exceptions import MlflowException

        try:
            return bool(self.client.get_run(run_id).info.lifecycle_stage == "active")
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return False
            raise

    def _experiment_id(self, record: dict[str, Any]) -> str:
        from mlflow.exceptions import MlflowException

        if parent := record.get("tags", {}).get(PARENT_TAG):  # the UI shows children in their parent's experiment only
            return str(self.client.get_run(parent).info.experiment_id)
        name = record["experiment_name"]
        found = self.client.get_experiment_by_name(name)
        if found is None:
            try:
                location = artifact_location(record["tracking_uri"])
                return str(self.client.create_experiment(name, artifact_location=location))
            except MlflowException:  # a run beside this one made it in the meantime
                found = self.client.get_experiment_by_name(name)
                if found is None:
                    raise
        if found.lifecycle_stage == "deleted":
            self.client.restore_experiment(found.experiment_id)
        return str(found.experiment_id)

    def push(self) -> int:
        """Number of metric values uploaded; afterwards everything in the journal is in MLflow.

        Raises:
            MlflowException, OSError: the store cannot be reached or refused a part; the rest is still missing.
        """
        with self._lock:
            run_id = self.ensure_run()
            self._push_fields(run_id)
            sent = self._push_metrics(run_id)
            self._push_artifacts(run_id)
            self._push_status(run_id)
        return sent

    def missing(self) -> int:
        """Number of metric lines that MLflow does not have yet."""
        return len(self.journal.metrics_from(self._uploaded("metrics_bytes", 0))[0])

    def _uploaded(self, key: str, default: Any) -> Any:
        return self.journal.record.get("uploaded", {}).get(key, default)

    def _push_fields(self, run_id: str) -> None:
        from mlflow.entities import Param, RunTag

        done = set(self._uploaded("params", []))
        params = [(k, v) for k, v in dict(self.journal.record.get("params", {})).items() if k not in done]
        for i in range(0, len(params), _FIELDS_PER_REQUEST):
            part = params[i : i + _FIELDS_PER_REQUEST]
            self.client.log_batch(run_id, params=[Param(k, str(v)[:_PARAM_CHARACTERS]) for k, v in part])
            done |= {k for k, _ in part}
            self.journal.update(uploaded={"params": sorted(done)})
        tags = dict(self.journal.record.get("tags", {}))
        changed = {k: v for k, v in tags.items() if self._uploaded("tags", {}).get(k) != v}
        if changed:
            self.client.log_batch(run_id, tags=[RunTag(k, str(v)) for k, v in changed.items()])
            self.journal.update(uploaded={"tags": tags})

    def _push_metrics(self, run_id: str) -> int:
        from mlflow.entities import Metric

        rows, end = self.journal.metrics_from(self._uploaded("metrics_bytes", 0))
        metrics = [
            Metric(key=name, value=float(value), timestamp=int(row["time"] * 1000), step=int(row["step"]))
            for row in rows
            for name, value in row.items()
            if name not in ("step", "time")
        ]
        # Sent again after a break-off, a metric with its old time stamp is the same row to MLflow.
        for i in range(0, len(metrics), _METRICS_PER_REQUEST):
            self.client.log_batch(run_id, metrics=metrics[i : i + _METRICS_PER_REQUEST])
        if rows:
            self.journal.update(uploaded={"metrics_bytes": end})
        return len(metrics)

    def _push_artifacts(self, run_id: str) -> None:
        for name, path in self.journal.artifacts():
            stat = path.stat()
            stamp = [stat.st_size, stat.st_mtime_ns]
            done = self._uploaded("artifacts", {})
            if done.get(name) == stamp:
                continue
            if name.startswith("samples/"):
                self._push_table(run_id, name, path)
            else:
                self.client.log_text(run_id, path.read_text(encoding="utf-8"), name)
            self.journal.update(uploaded={"artifacts": {**done, name: stamp}})

    def _push_table(self, run_id: str, name: str, path: Path) -> None:
        # Line by line of the file: `splitlines` would also cut at U+2028 and its like, which models do write.
        with path.open(encoding="utf-8", newline="\n") as file:
            rows = [json.loads(line) for line in file]
        columns = list(dict.fromkeys(key for row in rows for key in row))
        table = {"columns": columns, "data": [[row.get(column) for column in columns] for row in rows]}
        # The format of log_table, which would append to a table that is already there; the tag makes the UI show it.
        self.client.log_dict(run_id, table, name)
        tables = [*self._uploaded("tables", []), {"path": name, "type": "table"}]
        unique = list({entry["path"]: entry for entry in tables}.values())[-_TABLES_IN_TAG:]
        self.client.set_tag(run_id, "mlflow.loggedArtifacts", json.dumps(unique))
        self.journal.update(uploaded={"tables": unique})

    def _push_status(self, run_id: str) -> None:
        status = self.journal.record.get("status", "RUNNING")
        if status == self._uploaded("status", None):
            return
        if status == "RUNNING":
            self.client.update_run(run_id, status=status)
        else:
            self.client.set_terminated(run_id, status, end_time=int(self.journal.record.get("end_time", 0) * 1000))
        self.journal.update(uploaded={"status": status})


class BackgroundUpload(threading.Thread):
    """Keeps MLflow up to date from a thread of its own, so that a slow or dead store never delays a training step."""

    def __init__(self, uploader: Uploader) -> None:
        super().__init__(name="jqlight-upload", daemon=True)
        self.uploader = uploader
        self.failure: Exception | None = None
        self._wake = threading.Event()
        self._ending = threading.Event()

    def wake(self) -> None:
        """Say that the journal has grown."""
        self._wake.set()

    def close(self, patience: float) -> Exception | None:
        """Upload the rest, waiting at most ``patience`` seconds; what went wrong, None when all is uploaded."""
        self._ending.set()
        self._wake.set()
        self.join(patience)
        return TimeoutError(f"still uploading after {patience:.0f} s") if self.is_alive() else self.failure

    def run(self) -> None:
        """Upload whenever woken, at most once a second; after a failure wait longer and longer."""
        pause = _FIRST_RETRY_SECONDS
        while True:
            self._wake.wait()
            self._wake.clear()
            ending = self._ending.is_set()
            try:
                self.uploader.push()
                self.failure, pause = None, _FIRST_RETRY_SECONDS
            except Exception as error:  # whatever it is, the thread stays and `close` tells of what is missing
                if self.failure is None and not ending:
                    self._warn(error)
                self.failure = error
            if ending:
                return
            if self.failure is None:
                self._ending.wait(_SECONDS_BETWEEN_UPLOADS)
            else:
                self._ending.wait(pause)
                pause = min(2 * pause, _LONGEST_RETRY_SECONDS)
                self._wake.set()

    def _warn(self, error: Exception) -> None:
        record, folder = self.uploader.journal.record, self.uploader.journal.folder
        log.warning(
            "MLflow at %s cannot be used (%s). Training goes on, everything is kept in %s; "
            "`jqlight sync %s` uploads it later.",
            record["tracking_uri"],
            reason(error),
            folder,
            folder,
        )


def reason(error: BaseException) -> str:
    """The innermost cause of an error in one line of at most 160 characters."""
    text = str(error).strip() or type(error).__name__
    for mark in ("Caused by ", "exceeded with url"):
        text = text.rsplit(mark, 1)[-1]
    line = " ".join(text.split())
    return line if len(line) <= 160 else line[:157] + "..."
