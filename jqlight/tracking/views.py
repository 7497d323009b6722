"""The view in which MLflow's pages open: the runs of a sweep or an experiment by score, and charts of q against it.

MLflow keeps a view as a tag of the experiment, lists it by its name under "Views" and opens it from an address. What is
in it is its own web page's business: the keys are those of MLflow 3.17, and a page that does not know one passes it by.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from jqlight.names import SCORE, majority, pass_at
from jqlight.tracking.mlflow import PARENT_TAG, SWEEP_TAG, experiment_kind, log, reason

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

CHARTS = {"compareRunsMode": "CHART"}
"""What an address has more to open a view's charts instead of its table."""

_TAG = "mlflow.sharedViewState."
_SAMPLES = 16  # of a validation, where nothing is logged yet
_RUNS_READ = 200
_CURVES = ("train/log_success", "train/empty_rationales")
_ESCAPE = "train/escape_step"
_AXIS = "axis/"  # parameters of a sweep's run that name what is varied
# Axes that have columns of their own, by the names of a sweep file.
_OWN = ("estimator", "q", "seed", "benchmark", "scenario", "base", "model.scale")
_FIXED = ("attributes.`Run Name`", "runDateAndNestInfo")  # columns that are always there
_WIDTHS = {_FIXED[0]: 165, _FIXED[1]: 120, "params.`estimator`": 85, "tags.`q`": 80, "params.`seed`": 70}


def try_view(client: "MlflowClient", run_id: str | None) -> str | None:
    """As :func:`leave_view`; None where that cannot be done, since a view is not worth a run."""
    try:
        return leave_view(client, run_id)
    except Exception as error:
        log.debug("no view in MLflow (%s)", reason(error))
        return None


def leave_view(client: "MlflowClient", run_id: str | None = None) -> str | None:
    """Leave the view of the sweep that a run is or belongs to, or of its experiment's runs, and open it for training.

    The tag of a view that is there is replaced; nothing is written where it would stay the same.

    Args:
        client: of the store.
        run_id: None takes the newest run of the store.

    Returns:
        The view's address behind a server's, from ``#`` on; None for a store without runs.

    Raises:
        MlflowException, OSError: the store cannot be used.
    """
    run = client.get_run(run_id) if run_id else _newest(client)
    if run is None:
        return None
    if parent := run.data.tags.get(PARENT_TAG):
        run = client.get_run(parent)
    sweep, experiment = run.data.tags.get(SWEEP_TAG), client.get_experiment(run.info.experiment_id)
    query = f"tags.{PARENT_TAG} = '{run.info.run_id}'" if sweep else "params.estimator != ''"
    name = f"Which q? Sweep {sweep}" if sweep else "Which q? All runs"
    key = re.sub(r"[^A-Za-z0-9_.-]+", "-", f"sweep-{sweep}" if sweep else "all-runs")
    runs = client.search_runs([experiment.experiment_id], query, max_results=_RUNS_READ)
    axes = [name.removeprefix(_AXIS) for name in run.data.params if name.startswith(_AXIS)]
    # The envelope of MLflow's own saved views; the date is one that does not change when the view is left again.
    view = {"name": name, "createdAt": run.info.start_time if sweep else experiment.creation_time}
    value = json.dumps({**view, "state": json.dumps(state(query, runs, [axis for axis in axes if axis not in _OWN]))})
    for tag, text in {**experiment_kind(experiment.tags), _TAG + key: value}.items():
        if experiment.tags.get(tag) != text:
            client.set_experiment_tag(experiment.experiment_id, tag, text)
    return address(experiment.experiment_id, key)


def address(experiment_id: str, key: str) -> str:
    """The view's address behind a server's, in MLflow's pages for training."""
    return f"#/experiments/{experiment_id}/runs?" + urlencode(
        {"viewStateShareKey": key, "workflowType": "machine_learning"}
    )


def charts(address: str) -> str:
    """The address of a view's charts from that of its table."""
    return f"{address}&{urlencode(CHARTS)}"


def state(query: str, runs: Sequence["Run"], axes: Sequence[str]) -> dict[str, Any]:
    """A view's state as MLflow's page keeps it.

    Args:
        query: which runs are shown, in MLflow's search language.
        runs: some of them, which tell the names of their scores.
        axes: further parameters that are shown, those that differ between the runs.
    """
    params = {name for run in runs for name in run.data.params}
    scores = _scores({name for run in runs for name in run.data.metrics}, runs)
    varied = [*axes, *(["model.scale"] if "model.scale" in params else [])]
    # The tag holds a q that is no number too, such as splice(0.05).
    columns = [_quoted("params", "estimator"), _quoted("tags", "q")]
    columns += [_quoted("params", name) for name in axes]
    columns += [_quoted("metrics", name) for name in scores]  # in sight on a narrow screen
    columns += [_quoted("params", name) for name in ("seed", "model.scale")] + [_quoted("metrics", _ESCAPE)]
    return {
        "searchFilter": query,
        "orderByKey": _quoted("metrics", scores[0]),
        "orderByAsc": False,
        "selectedColumns": columns,
        "columnOrder": [*_FIXED, *columns],
        "columnWidths": {column: _WIDTHS.get(column, 105) for column in (*_FIXED, *columns)},
        "runsHiddenMode": "SHOWALL",
        "isAccordionReordered": True,  # else the sections of all other metrics come first
        "hideEmptyCharts": True,
        "compareRunSections": [_section("q", "Which q?"), _section("all", "What varies, and what comes of it")],
        "compareRunCharts": [
            *(_scatter("q", name) if "q" in params or not runs else _bars(name) for name in scores),
            *(_line(name) for name in _CURVES),
            _parallel(["estimator", "q", *varied, "seed"], scores, params),
        ],
    }


def _newest(client: "MlflowClient") -> "Run | None":
    ids = [entry.experiment_id for entry in client.search_experiments()]
    found = client.search_runs(ids, order_by=["attributes.start_time DESC"], max_results=1) if ids else []
    return found[0] if found else None


def _scores(logged: Iterable[str], runs: Sequence["Run"]) -> list[str]:
    """Names of maj@k, of the largest k, and of pass@1 in validation; in a test where nothing else was scored."""
    found = [match for name in logged if (match := SCORE.fullmatch(name)) and not match["verifier"]]
    stage = "test" if found and all(match["stage"] == "test" for match in found) else "val"
    voted = [int(match["k"]) for match in found if match["kind"] == "maj"]
    asked = [int(k) for run in runs if (k := run.data.params.get("model.samples", "")).isdigit()]
    return [f"{stage}/{name}" for name in (majority(max(voted or asked or [_SAMPLES])), pass_at(1))]


def _quoted(kind: str, name: str) -> str:
    return f"{kind}.`{name}`"


def _section(key: str, name: str) -> dict[str, Any]:
    return {"uuid": key, "name": name, "display": True, "isReordered": False, "columns": 2, "cardHeight": 290}


def _chart(kind: str, key: str, more: Mapping[str, Any], section: str = "q") -> dict[str, Any]:
    fixed = {"runsCountToCompare": 100, "deleted": False, "isGenerated": False}
    return {"uuid": key, "type": kind, "metricSectionId": section, **fixed, **more}


def _scatter(param: str, metric: str) -> dict[str, Any]:
    axes = {"xaxis": {"type": "PARAM", "key": param}, "yaxis": {"type": "METRIC", "key": metric}}
    return _chart("SCATTER", f"scatter {metric}", axes)


def _bars(metric: str) -> dict[str, Any]:
    return _chart("BAR", f"bars {metric}", {"metricKey": metric})


def _line(metric: str) -> dict[str, Any]:
    axis = {"xAxisKey": "step", "xAxisScaleType": "linear", "scaleType": "linear", "lineSmoothness": 0, "range": {}}
    return _chart("LINE", f"line {metric}", {"metricKey": metric, "selectedMetricKeys": [metric], **axis})


def _parallel(names: Sequence[str], metrics: Sequence[str], params: set[str]) -> dict[str, Any]:
    """A line through every run's parameters and scores, in this order, unlike on MLflow's page of a comparison."""
    known = [name for name in names if name in params]
    shown = {"selectedParams": known, "selectedMetrics": list(metrics), "showAllRuns": True}
    return _chart("PARALLEL", "parallel", shown, "all")
