"""The Lightning logger of a jqlight run: the run's folder first, MLflow from there, other loggers as well."""

import math
import os
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from jqlight.errors import ConfigError
from jqlight.files import json_lines
from jqlight.names import QUESTIONS, evaluation_name, format_value
from jqlight.tracking.journal import Journal
from jqlight.tracking.mlflow import (
    PARENT_TAG,
    PARENT_VARIABLE,
    log,
    prepare_client,
    reason,
    recorded_store,
    redacted,
    same_store,
    store_uri,
)
from jqlight.tracking.params import flatten, numeric_q
from jqlight.tracking.upload import UPLOAD_TIMEOUT_S, BackgroundUpload, Uploader

if TYPE_CHECKING:
    from mlflow import MlflowClient

# Seconds that an interrupted run still spends on its upload: who stops a run has no time for more.
_INTERRUPT_TIMEOUT_S = 10.0
_STATUS = {"success": "FINISHED", "finished": "FINISHED", "failed": "FAILED"}


class RunLogger(Logger):
    """Logs a run to its folder and, from a background thread, to MLflow.

    Every value is in the folder (see ``jqlight.tracking.journal``) before MLflow gets it: a store that is slow,
    dead or comes back later costs no step and loses nothing. Unlike Lightning's ``MLFlowLogger`` it does not open the
    store when it is built, and its ``save_dir`` is the run's folder for every store.

    Args:
        run_dir: the run's folder; if it holds a run of the same store, that MLflow run is continued. None waits for
            :meth:`settle`, by which the command line gives a logger of its config the folder that it has chosen.
        experiment_name: MLflow experiment; None takes that of ``settle``, else jqlight.
        run_name: name in MLflow; None takes the folder's.
        tracking_uri: MLflow store; None takes ``MLFLOW_TRACKING_URI``, else the store this run is in, else
            ``mlflow.db`` next to the run's folder.
        timeout: seconds to wait for the last upload when the run ends.
        patience: old name of ``timeout``.

    Raises:
        ConfigError: at its first use, when it has no folder.
    """

    def __init__(
        self,
        run_dir: str | Path | None = None,
        experiment_name: str | None = None,
        run_name: str | None = None,
        tracking_uri: str | None = None,
        timeout: float = 60.0,
        patience: float | None = None,
    ) -> None:
        super().__init__()
        if patience is not None:
            log.warning("trainer.logger.patience is now called trainer.logger.timeout.")
        self.experiment_name = experiment_name or ""
        self.run_name, self.tracking_uri = run_name or "", tracking_uri or ""
        self.run_dir, self.settled = Path(), False
        self.timeout = timeout if patience is None else patience
        self.step_source: Callable[[], int] | None = None
        """Tells the optimizer steps taken; a trainer's own step for logging is one behind in validation."""
        self._uploader: Uploader | None = None
        self._thread: BackgroundUpload | None = None
        self.held = False
        """Whether the run goes on behind its training, so that a success of that is not yet its end."""
        self.awaits_config = False
        """Whether the whole config is (to be) logged, which makes a module's hyper-parameters superfluous."""
        if run_dir is not None:
            self.settle(run_dir)

    def settle(self, run_dir: str | Path, experiment_name: str | None = None, run_name: str | None = None) -> None:
        """Take the run's folder, and the names that were not given when the logger was made."""
        self.run_dir, self.settled = Path(run_dir), True
        self.experiment_name = self.experiment_name or experiment_name or "jqlight"
        self.run_name = self.run_name or run_name or self.run_dir.resolve().name
        recorded = recorded_store(self.run_dir)
        self.tracking_uri = store_uri(self.tracking_uri or None, recorded=recorded, runs=self.run_dir.resolve().parent)

    # -- Lightning's side --------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """The MLflow experiment's name."""
        return self.experiment_name

    @property
    def version(self) -> str:
        """The run's name."""
        return self.run_name

    @property
    def save_dir(self) -> str:
        """The run's folder."""
        return str(self.run_dir)

    @property
    def journal(self) -> Journal:
        """The run's own record; opening it starts (or continues) the run."""
        return self._started().journal

    @property
    @rank_zero_experiment
    def experiment(self) -> "DeferredClient":
        """MLflow's client; its methods wait for the store, unlike those of the logger itself."""
        return DeferredClient(lambda: self._started().client)

    @property
    def run_id(self) -> str:
        """Id of the MLflow run, created when it is not yet there; waits for the store."""
        return self._started().ensure_run()

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Append numbers but NaN to the run's metrics file. ``step`` is ignored where a trainer counts its own."""
        step = self._own_step(step or 0)
        values = {name: float(value) for name, value in metrics.items() if name != "epoch"}
        values = {name: value for name, value in values.items() if not math.isnan(value)}
        if values:
            self.journal.log_metrics(values, step)
            self._wake()

    @rank_zero_only
    def log_hyperparams(self, params: Mapping[str, Any] | Namespace | None, *args: Any, **kwargs: Any) -> None:
        """Log a module's hyper-parameters, unless the command line has logged the whole config."""
        if not self.awaits_config and params:
            values = vars(params) if isinstance(params, Namespace) else dict(params)
            if "q" in values:
                self.log_tags({"q": format_value(values["q"])})
            self._log_params(numeric_q(flatten(values)))

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """End the run and wait for the last upload; says what to do when some of it could not be uploaded."""
        if self._thread is None or (self.held and status in ("success", "finished")):
            return
        interrupted = isinstance(sys.exc_info()[1], KeyboardInterrupt | SystemExit)
        ended = "KILLED" if interrupted else _STATUS.get(status, "FINISHED")
        self.journal.note(status=ended, end_time=time.time())
        failure = self._thread.close(min(self.timeout, _INTERRUPT_TIMEOUT_S) if interrupted else self.timeout)
        self._thread = None
        if failure is not None:
            log.warning(
                "Not everything is in MLflow (%s); nothing is lost: `jqlight sync %s` uploads what is missing.",
                reason(failure),
                self.run_dir,
            )

    # -- ours --------------------------------------------------------------------------------------------------------

    @rank_zero_only
    def log_config(self, text: str, params: Mapping[str, Any], tags: Mapping[str, str]) -> None:
        """Log the resolved config as ``config.yaml``, its settings as parameters, and the tags the UI groups by."""
        self.awaits_config = True
        self.journal.log_text("config.yaml", text)
        self._log_params(params)
        self.log_tags(tags)

    @rank_zero_only
    def log_tags(self, tags: Mapping[str, str]) -> None:
        """Set tags of the run."""
        self.journal.update(tags=dict(tags))
        self._wake()

    @rank_zero_only
    def log_samples(self, stage: str, step: int, rows: Sequence[Mapping[str, Any]]) -> None:
        """Log a table of sampled outputs: ``samples/step_000100`` for validation, with the stage's name for others.

        A step that is taken again after a resume replaces its table. ``step`` is ignored, as in ``log_metrics``, where
        a trainer counts optimizer steps.
        """
        step = self._own_step(step)
        self.journal.log_rows(evaluation_name(stage, step), [{**row, "step": step} for row in rows])
        self._wake()

    @rank_zero_only
    def log_questions(self, stage: str, step: int, rows: Sequence[Mapping[str, Any]]) -> None:
        """Log each question's values: ``artifacts/questions/step_000100.jsonl``, named and numbered as samples are."""
        name = f"{QUESTIONS}/{evaluation_name(stage, self._own_step(step))}.jsonl"
        self.journal.log_text(name, json_lines(rows))
        self._wake()

    def _own_step(self, step: int) -> int:
        return step if self.step_source is None else self.step_source()

    @rank_zero_only
    def log_text_artifact(self, name: str, text: str) -> None:
        """Log a text under ``name`` among the run's artifacts."""
        self.journal.log_text(name, text)
        self._wake()

    def _log_params(self, params: Mapping[str, Any]) -> None:
        self.journal.update(params={name: str(value) for name, value in params.items()})
        self._wake()

    def _wake(self) -> None:
        if self._thread is not None:
            self._thread.wake()

    def _started(self) -> Uploader:
        if not self.settled:
            raise ConfigError("RunLogger: run_dir: not given; a script gives the folder that the run is to have")
        if self._uploader is None:
            self._uploader = Uploader(Journal(self.run_dir), self.tracking_uri)
        if self._thread is None:
            self._begin(self._uploader.journal)
            # In this thread, since importing in two at once is where Python's import locks get in the way.
            prepare_client(self.tracking_uri, UPLOAD_TIMEOUT_S)
            self._thread = BackgroundUpload(self._uploader)
            self._thread.start()
            self._thread.wake()
        return self._uploader

    def _begin(self, journal: Journal) -> None:
        before = journal.record
        if not same_store(recorded_store(self.run_dir) or "", self.tracking_uri):
            journal.forget_upload()
        parent = os.environ.get(PARENT_VARIABLE)
        journal.update(
            experiment_name=self.experiment_name,
            run_name=self.run_name,
            directory=before.get("directory", str(Path.cwd())),  # what relative paths in the config are relative to
            tracking_uri=redacted(self.tracking_uri),
            folder=str(self.run_dir.resolve()),  # a copy of it is told apart by this
            start_time=before.get("start_time", time.time()),
            status="RUNNING",
            tags={PARENT_TAG: parent} if parent else {},
        )


def with_run_logger(given: Logger | Iterable[Logger] | bool | None, own: Callable[[], RunLogger]) -> list[Logger]:
    """The loggers of a trainer: the one of the run's folder, and behind it those that the user gave.

    Args:
        given: the trainer's ``logger`` setting but False.
        own: makes the folder's logger, where ``given`` has none.
    """
    loggers = [] if given is None or isinstance(given, bool) else [given] if isinstance(given, Logger) else [*given]
    found = [logger for logger in loggers if isinstance(logger, RunLogger)] or [own()]
    for logger in found:
        if not logger.settled:
            usual = own()
            logger.settle(usual.run_dir, usual.experiment_name, usual.run_name)
    return [*found, *(logger for logger in loggers if not isinstance(logger, RunLogger))]


class DeferredClient:
    """MLflow's client, connected at its first use: Lightning touches it before anything is known to work."""

    def __init__(self, connect: Callable[[], "MlflowClient"]) -> None:
        self._connect = connect

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connect(), name)
