"""Runs read back from MLflow: all that a comparison knows about them.

Nothing here reads a run's folder or checkpoints, so a comparison works as long as the store does; without the store's
artifacts it lacks results by question.
"""

import json
import tempfile
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from jqlight.errors import ConfigError
from jqlight.names import QUESTIONS, evaluation_name, inert
from jqlight.tracking.mlflow import PARENT_TAG, SWEEP_TAG, find_experiment

SWEEP_FILE = "sweep.yaml"
"""Artifact of a sweep's parent run: the sweep file as it was run."""

_PAGE = 1000
_READERS = 4
_ATTRIBUTES = ("estimator", "q", "benchmark", "scenario", "seed")

Curve = list[tuple[int, float]]
"""(step, value), ordered by step, one value a step."""
Keys = Callable[[Iterable[str]], list[str]]
"""Chooses among a run's metric keys."""


@dataclass(frozen=True)
class RunRecord:
    """One run of the store."""

    run_id: str
    name: str
    status: str
    """MLflow's: RUNNING, FINISHED, FAILED or KILLED."""
    start: int
    """Milliseconds since 1970."""
    estimator: str
    q: str
    """A number, or a commitment as text, such as ``splice(0.05)``; empty for an estimator without q."""
    benchmark: str
    scenario: str
    seed: str
    params: Mapping[str, str] = field(repr=False)
    tags: Mapping[str, str] = field(repr=False)
    last: Mapping[str, float] = field(repr=False)
    """Newest value of each metric."""
    curves: Mapping[str, Curve] = field(default_factory=dict, repr=False)

    def curve(self, key: str) -> Curve:
        """Values of metric ``key``; empty when the run has none."""
        return self.curves.get(key, [])


def find_parents(client: MlflowClient, experiment: str) -> list[Run]:
    """The sweeps of an experiment, newest first; of sweeps with one name, the newest. Empty when it holds none.

    Raises:
        ConfigError: the store has no such experiment.
    """
    found = client.search_runs([find_experiment(client, experiment)], f"tags.`{SWEEP_TAG}` != ''", max_results=_PAGE)
    newest: dict[str, Run] = {}
    for run in found:  # MLflow's order is newest first
        newest.setdefault(run.data.tags[SWEEP_TAG], run)
    return list(newest.values())


def get_run(client: MlflowClient, run_id: str, given: str = "--parent") -> Run:
    """The run with this id, which ``given``, an option or a folder, names.

    Raises:
        ConfigError: the store has no such run.
    """
    try:
        return client.get_run(run_id)
    except MlflowException as error:
        raise ConfigError(f"{given}: given {run_id}, the store has no such run") from error


def child_records(client: MlflowClient, parents: Iterable[Run], keys: Keys) -> list[RunRecord]:
    """The points of sweeps; of a point that was run again, the newest run.

    Args:
        client: of the store.
        parents: the sweeps' parent runs.
        keys: of a run's metrics, those whose history is read.
    """
    newest: dict[tuple[str, str], Run] = {}
    for parent in parents:
        query = f"tags.`{PARENT_TAG}` = '{parent.info.run_id}'"
        for run in sorted(_search(client, parent.info.experiment_id, query), key=lambda run: run.info.start_time):
            newest[parent.info.run_id, run.info.run_name or run.info.run_id] = run
    return read_records(client, list(newest.values()), keys)


def single_records(client: MlflowClient, experiment: str, keys: Keys) -> list[RunRecord]:
    """The runs of an experiment that belong to no sweep.

    Raises:
        ConfigError: the store has no such experiment, or it has no such run.
    """
    runs = _search(client, find_experiment(client, experiment), "")
    alone = [run for run in runs if not {PARENT_TAG, SWEEP_TAG} & set(run.data.tags)]
    if not alone:
        raise ConfigError(f"--experiment: {experiment} holds no runs; start some with jqlight sweep or jqlight fit")
    return read_records(client, alone, keys)


def record(client: MlflowClient, run: Run, metrics: Iterable[str]) -> RunRecord:
    """What the store knows about one run, with the curves of ``metrics`` that it has."""
    params, tags = run.data.params, run.data.tags
    known = {name: inert(tags.get(name, params.get(name, ""))) for name in _ATTRIBUTES}
    curves = {key: _curve(client, run.info.run_id, key) for key in metrics if key in run.data.metrics}
    return RunRecord(
        run_id=run.info.run_id,
        name=inert(run.info.run_name or run.info.run_id),
        status=run.info.status,
        start=run.info.start_time,
        estimator=known["estimator"].rsplit(".", 1)[-1],
        q=known["q"],
        benchmark=known["benchmark"].rsplit(".", 1)[-1],
        scenario=known["scenario"],
        seed=known["seed"],
        params=params,
        tags=tags,
        last=run.data.metrics,
        curves=curves,
    )


def read_questions(client: MlflowClient, steps: Mapping[str, int]) -> dict[str, pd.DataFrame]:
    """Results by question of one validation per run: a row per question id, a column per metric.

    Args:
        client: of the store.
        steps: run id -> optimizer step of the validation. Runs that did not keep its results are left out.
    """
    with ThreadPoolExecutor(_READERS) as pool:
        found = pool.map(lambda item: _questions(client, *item), steps.items())
        return {run_id: table for run_id, table in zip(steps, found, strict=True) if table is not None}


def _questions(client: MlflowClient, run_id: str, step: int) -> pd.DataFrame | None:
    name = f"{QUESTIONS}/{evaluation_name('val', step)}.jsonl"
    try:
        if name not in [entry.path for entry in client.list_artifacts(run_id, QUESTIONS)]:
            return None
        with tempfile.TemporaryDirectory() as folder:
            text = Path(client.download_artifacts(run_id, name, folder)).read_text(encoding="utf-8")
        rows = pd.DataFrame([json.loads(line) for line in text.splitlines()]).set_index("id")
    except (MlflowException, OSError, ValueError, KeyError):  # gone, moved, or cut off: the run counts by its scores
        return None
    rows.index = rows.index.astype(str)
    return rows[~rows.index.duplicated()]


def read_records(client: MlflowClient, runs: Iterable[Run], keys: Keys) -> list[RunRecord]:
    """What the store knows about each of these runs, in their order."""
    with ThreadPoolExecutor(_READERS) as pool:
        return list(pool.map(lambda run: record(client, run, keys(run.data.metrics)), runs))


def _search(client: MlflowClient, experiment_id: str, query: str) -> list[Run]:
    found: list[Run] = []
    token: str | None = None
    while token is None or token:
        page = client.search_runs([experiment_id], query, max_results=_PAGE, page_token=token)
        found += page
        token = page.token or ""
    return found


def _curve(client: MlflowClient, run_id: str, key: str) -> Curve:
    # A resumed run logs the steps after its checkpoint a second time: the later value counts.
    history = sorted(client.get_metric_history(run_id, key), key=lambda metric: (metric.step, metric.timestamp))
    return list({metric.step: (metric.step, metric.value) for metric in history}.values())
