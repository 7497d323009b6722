"""From a run's journal to MLflow: what is not there yet, in as many attempts as needed, each part once."""

import json
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jqlight.tracking.journal import Journal
from jqlight.tracking.mlflow import (
    PARAM_CHARACTERS,
    PARENT_TAG,
    ensure_experiment,
    log,
    open_store,
    reason,
    redacted,
)
from jqlight.tracking.views import try_view

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

# A log_batch request takes at most 1000 metrics and 100 parameters or tags (MLflow's REST limits).
_METRICS_PER_REQUEST = 1000
_FIELDS_PER_REQUEST = 100
# The UI finds tables by a tag, which holds at most 8000 characters; older tables stay as artifacts.
_TABLES_IN_TAG = 100
UPLOAD_TIMEOUT_S = 10
"""Seconds that an upload waits for an answer, where the user has set no other time."""
# sqlite commits cost milliseconds; once a second is live enough for a chart.
_BETWEEN_UPLOADS_S = 1.0
_FIRST_RETRY_S = 15.0
_LONGEST_RETRY_S = 300.0
# At a run's end: seconds between two attempts, and those that pass before it is said what is waited for.
_END_RETRY_S = 2.0
_QUIET_END_S = 3.0


class Uploader:
    """Brings one run in MLflow up to date with its journal.

    What has arrived is noted in the journal's ``run.json`` after each part, so an upload that breaks off continues
    where it stopped, in this process or in a later ``jqlight sync``.

    Args:
        journal: of the run.
        store: tracking URI; what the journal keeps of it has no password.
    """

    def __init__(self, journal: Journal, store: str) -> None:
        self.journal, self.store = journal, store
        self._client: MlflowClient | None = None
        self._checked = self._viewed = False
        # The upload thread and whoever asks the logger for its run id must not both create the run.
        self._lock = threading.RLock()

    @property
    def client(self) -> "MlflowClient":
        """MLflow's client of the run's store."""
        if self._client is None:
            self._client = open_store(self.store, timeout=UPLOAD_TIMEOUT_S)
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
        experiment, start = self._experiment_id(record), int(record.get("start_time", time.time()) * 1000)
        name = record.get("run_name") or self.journal.folder.name
        run = self._created(experiment, name, start) or self.client.create_run(
            experiment, start_time=start, run_name=name, tags=record.get("tags")
        )
        self.journal.update(
            run_id=run.info.run_id,
            experiment_id=run.info.experiment_id,
            uploaded={"tags": record.get("tags", {}), "status": "RUNNING"},
        )
        self._checked = True
        return str(run.info.run_id)

    def _created(self, experiment: str, name: str, start: int) -> "Run | None":
        """The run that a request has made whose answer was lost."""
        ours = f"attributes.run_name = {_quoted(name)} and attributes.start_time = {start}"
        found = self.client.search_runs([experiment], ours, max_results=1)
        return found[0] if found else None

    def _exists(self, run_id: str) -> bool:
        from mlflow.exceptions import MlflowException

        try:
            return bool(self.client.get_run(run_id).info.lifecycle_stage == "active")
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return False
            raise

    def _experiment_id(self, record: dict[str, Any]) -> str:
        if parent := record.get("tags", {}).get(PARENT_TAG):  # the UI shows children in their parent's experiment only
            return str(self.client.get_run(parent).info.experiment_id)
        return ensure_experiment(self.client, record.get("experiment_name") or "jqlight")

    def push(self) -> int:
        """Number of metric values uploaded; afterwards everything in the journal is in MLflow.

        Raises:
            MlflowException, OSError: the store cannot be reached or refused a part; the rest is still missing.
        """
        with self._lock:
            run_id = self.ensure_run()
            self._push_fields(run_id)
            self._leave_view(run_id)
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
            self.client.log_batch(run_id, params=[Param(k, str(v)[:PARAM_CHARACTERS]) for k, v in part])
            done |= {k for k, _ in part}
            self.journal.note(uploaded={"params": sorted(done)})
        tags = dict(self.journal.record.get("tags", {}))
        changed = {k: v for k, v in tags.items() if self._uploaded("tags", {}).get(k) != v}
        if changed:
            self.client.log_batch(run_id, tags=[RunTag(k, str(v)) for k, v in changed.items()])
            self.journal.note(uploaded={"tags": tags})

    def _leave_view(self, run_id: str) -> None:
        """Once a process; a sweep leaves its own."""
        if not self._viewed and PARENT_TAG not in self.journal.record.get("tags", {}):
            try_view(self.client, run_id)
        self._viewed = True

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
            self.journal.note(uploaded={"metrics_bytes": end})
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
                self.client.log_text(run_id, path.read_text(encoding="utf-8", errors="replace"), name)
            self.journal.note(uploaded={"artifacts": {**done, name: stamp}})

    def _push_table(self, run_id: str, name: str, path: Path) -> None:
        # Line by line of the file: `splitlines` would also cut at U+2028 and its like, which models do write.
        with path.open(encoding="utf-8", errors="replace", newline="\n") as file:
            rows = [json.loads(line) for line in file]
        columns = list(dict.fromkeys(key for row in rows for key in row))
        table = {"columns": columns, "data": [[row.get(column) for column in columns] for row in rows]}
        # The format of log_table, which would append to a table that is already there; the tag makes the UI show it.
        self.client.log_dict(run_id, table, name)
        tables = [*self._uploaded("tables", []), {"path": name, "type": "table"}]
        unique = list({entry["path"]: entry for entry in tables}.values())[-_TABLES_IN_TAG:]
        self.client.set_tag(run_id, "mlflow.loggedArtifacts", json.dumps(unique))
        self.journal.note(uploaded={"tables": unique})

    def _push_status(self, run_id: str) -> None:
        status = self.journal.record.get("status", "RUNNING")
        if status == self._uploaded("status", None):
            return
        if status == "RUNNING":
            self.client.update_run(run_id, status=status)
        else:
            self.client.set_terminated(run_id, status, end_time=int(self.journal.record.get("end_time", 0) * 1000))
        self.journal.note(uploaded={"status": status})


class BackgroundUpload(threading.Thread):
    """Keeps MLflow up to date from a thread of its own, so that a slow or dead store never delays a training step."""

    def __init__(self, uploader: Uploader) -> None:
        super().__init__(name="jqlight-upload", daemon=True)
        self.uploader = uploader
        self.failure: Exception | None = None
        self._wake = threading.Event()
        self._ending = threading.Event()
        self._deadline = 0.0
        self._reached = False  # a store that never answered is not waited for

    def wake(self) -> None:
        """Say that the journal has grown."""
        self._wake.set()

    def close(self, timeout: float) -> Exception | None:
        """Upload the rest, trying for at most ``timeout`` seconds; what went wrong, None when all is uploaded."""
        self._deadline = time.monotonic() + timeout
        self._ending.set()
        self._wake.set()
        self.join(min(timeout, _QUIET_END_S))
        if self.is_alive():
            what = f" ({reason(self.failure)})" if self.failure else ""
            log.warning("Waiting up to %.0f s for MLflow at %s%s.", timeout, redacted(self.uploader.store), what)
            self.join(max(0.0, self._deadline - time.monotonic()))
        return TimeoutError(f"still uploading after {timeout:.0f} s") if self.is_alive() else self.failure

    def run(self) -> None:
        """Upload whenever woken, at most once a second; after a failure wait longer and longer."""
        pause = _FIRST_RETRY_S
        while True:
            self._wake.wait()
            self._wake.clear()
            ending = self._ending.is_set()
            try:
                self.uploader.push()
                self.failure, self._reached, pause = None, True, _FIRST_RETRY_S
            except Exception as error:  # the thread must survive any error: `close` reports what is missing
                if self.failure is None and not ending:
                    self._warn(error)
                self.failure = error
            late = time.monotonic() + _END_RETRY_S > self._deadline
            if ending and (self.failure is None or late or not self._reached):
                return
            if ending:
                time.sleep(_END_RETRY_S)
                self._wake.set()
            elif self.failure is None:
                self._ending.wait(_BETWEEN_UPLOADS_S)
            else:
                self._ending.wait(pause)
                pause = min(2 * pause, _LONGEST_RETRY_S)
                self._wake.set()

    def _warn(self, error: Exception) -> None:
        log.warning(
            "MLflow at %s cannot be used (%s). Training continues, everything is kept in %s; "
            "`jqlight sync %s` uploads it later.",
            redacted(self.uploader.store),
            reason(error),
            *[self.uploader.journal.folder] * 2,
        )


def _quoted(text: str) -> str:
    """A text for MLflow's search language, which has no escapes but two kinds of quotation marks."""
    return f"'{text}'" if "'" not in text else f'"{text}"'
