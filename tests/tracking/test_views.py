"""The view of a sweep in MLflow: what is in it, that it stays one, and that no run depends on it."""

import json

import mlflow
import pytest
from synthetic_runs import Fake, log_run, log_sweep

from jqlight.sweep.file import read_sweep
from jqlight.sweep.folder import SweepFolder
from jqlight.sweep.parent import ParentRun
from jqlight.tracking import views
from jqlight.tracking.logger import RunLogger
from jqlight.tracking.mlflow import ensure_experiment
from jqlight.tracking.views import leave_view

KIND, PREFIX = "mlflow.experimentKind", "mlflow.sharedViewState."
RUNS = [Fake("GARL", "0.75"), Fake("GARL", "1", 1), Fake("GARL", "splice(0.05)"), Fake("GRPO", middle=None)]


@pytest.fixture
def client(workplace):
    return mlflow.MlflowClient(f"sqlite:///{workplace}/runs/mlflow.db")


def tags(client, name="e"):
    return client.get_experiment_by_name(name).tags


def opened(client, key, experiment="e"):
    """Name and state of a view, as MLflow's page reads them from the tag."""
    view = json.loads(tags(client, experiment)[PREFIX + key])
    assert isinstance(view["createdAt"], int)
    return view["name"], json.loads(view["state"])


def shown(client, state):
    ids = [client.get_experiment_by_name("e").experiment_id]
    return [run.info.run_name for run in client.search_runs(ids, state["searchFilter"], order_by=[state["orderByKey"]])]


def test_the_sweeps_view_has_its_points_by_score_with_q_next_to_the_scores(client):
    log_sweep(client, [Fake("PAFT", "0.25")], name="other")
    parent = log_sweep(client, RUNS)
    log_run(client, client.get_experiment_by_name("e").experiment_id, Fake("GARL", "0", seed=7))
    address = leave_view(client, parent)
    experiment = client.get_experiment_by_name("e").experiment_id
    assert address == f"#/experiments/{experiment}/runs?viewStateShareKey=sweep-made_up&workflowType=machine_learning"
    name, state = opened(client, "sweep-made_up")
    assert name == "Which q? Sweep made_up"
    assert sorted(shown(client, state)) == sorted(run.name for run in RUNS)
    assert (state["orderByKey"], state["orderByAsc"]) == ("metrics.`val/maj_at_16`", False)
    assert [column.split("`")[1] for column in state["selectedColumns"]] == [
        *("estimator", "q", "val/maj_at_16", "val/pass_at_1", "seed", "model.scale", "train/escape_step")
    ]
    charts = {chart["uuid"]: chart for chart in state["compareRunCharts"]}
    for score in ("val/maj_at_16", "val/pass_at_1"):
        chart = charts[f"scatter {score}"]
        assert (chart["xaxis"], chart["yaxis"]) == ({"type": "PARAM", "key": "q"}, {"type": "METRIC", "key": score})
    curves = [key for chart in charts.values() if chart["type"] == "LINE" for key in chart["selectedMetricKeys"]]
    assert curves == ["train/log_success", "train/empty_rationales"]
    assert {chart["metricSectionId"] for chart in charts.values()} == {s["uuid"] for s in state["compareRunSections"]}


def test_a_view_left_again_is_the_same_and_a_later_sweep_of_the_name_takes_its_place(client):
    first = log_sweep(client, RUNS)
    leave_view(client, first)
    before = tags(client)
    child = client.search_runs([client.get_experiment_by_name("e").experiment_id], "params.estimator = 'GRPO'")[0]
    assert leave_view(client, child.info.run_id) == leave_view(client, first)
    assert tags(client) == before
    second = log_sweep(client, RUNS[:1])
    leave_view(client)  # of what was started last
    assert tags(client).keys() == before.keys()
    assert second in opened(client, "sweep-made_up")[1]["searchFilter"]


def test_runs_without_a_sweep_are_shown_with_all_of_their_experiment_but_no_sweeps_own_row(client):
    log_sweep(client, RUNS[:1])
    alone = log_run(client, client.get_experiment_by_name("e").experiment_id, Fake("GARL", "0.5"))
    assert "viewStateShareKey=all-runs" in leave_view(client, alone)
    assert sorted(shown(client, opened(client, "all-runs")[1])) == ["GARL-q0.5-seed0", "GARL-q0.75-seed0"]


@pytest.mark.parametrize(
    ("metrics", "params", "expected"),
    [
        (["val/maj_at_4", "val/exact_maj_at_64", "val/pass_at_1"], {}, ["val/maj_at_4", "val/pass_at_1"]),
        (["test/maj_at_8", "test/pass_at_1"], {}, ["test/maj_at_8", "test/pass_at_1"]),
        (["train/success"], {"model.samples": "2"}, ["val/maj_at_2", "val/pass_at_1"]),
        ([], {}, ["val/maj_at_16", "val/pass_at_1"]),
    ],
)
def test_scores_are_those_that_the_runs_have_or_will_have(client, metrics, params, expected):
    run = client.create_run(ensure_experiment(client, "e")).info.run_id
    for name in metrics:
        client.log_metric(run, name, 0.5)
    for name, value in {"estimator": "GARL", **params}.items():
        client.log_param(run, name, value)
    leave_view(client, run)
    state = opened(client, "all-runs")[1]
    assert [c.split("`")[1] for c in state["selectedColumns"] if c.startswith("metrics")][:2] == expected
    assert state["orderByKey"] == f"metrics.`{expected[0]}`"


def test_what_else_a_sweep_varies_comes_first_in_table_and_parallel_coordinates(client, fake_fit, write_sweep):
    text = "experiment: e\ngrid: {optimizer.lr: [0.1, 0.2], q: [0, 1], seed: [0], model.scale: [raw, batch]}\n"
    parent = ParentRun(read_sweep(write_sweep(text)), SweepFolder(fake_fit / "runs/s"))
    client = mlflow.MlflowClient(parent.store)
    values = (("optimizer.lr", "0.1"), ("model.scale", "raw"), ("commitment", "tsallis"))
    log_run(client, client.get_experiment_by_name("e").experiment_id, Fake("GARL", "0", params=values), parent.run_id)
    parent.leave_view()
    state = opened(client, "sweep-s")[1]
    assert [c.split("`")[1] for c in state["selectedColumns"]][:4] == [
        "estimator",
        "q",
        "optimizer.lr",
        "val/maj_at_16",
    ]
    (parallel,) = (chart for chart in state["compareRunCharts"] if chart["type"] == "PARALLEL")
    assert parallel["selectedParams"] == ["estimator", "q", "optimizer.lr", "model.scale", "seed"]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, "custom_model_development"),
        ("genai_development_inferred", "custom_model_development"),
        ("genai_development", "genai_development"),
    ],
)
def test_the_experiment_opens_on_its_runs_unless_someone_chose_another_kind(client, before, after):
    experiment = client.create_experiment("e", tags={KIND: before} if before else {})
    leave_view(client, log_run(client, experiment, Fake("GARL", "0")))
    assert tags(client)[KIND] == after
    ensure_experiment(client, "made by a run")
    assert tags(client, "made by a run")[KIND] == "custom_model_development"


def test_a_run_leaves_a_view_and_does_without_one(workplace, client, monkeypatch):
    def run(name):
        logger = RunLogger(workplace / "runs" / name, "alone", tracking_uri=client.tracking_uri)
        logger.log_config("q: 1\n", {"estimator": "GARL", "q": 1, "model.samples": 2}, {"q": "1"})
        logger.log_metrics({"val/maj_at_2": 0.5}, 1)
        logger.finalize("success")
        return client.get_run(logger.journal.record["run_id"]).info.status

    assert run("a") == "FINISHED"
    assert opened(client, "all-runs", "alone")[1]["orderByKey"] == "metrics.`val/maj_at_2`"

    def refused(*args):
        raise OSError("connection refused")

    client.delete_experiment_tag(client.get_experiment_by_name("alone").experiment_id, PREFIX + "all-runs")
    monkeypatch.setattr(views, "leave_view", refused)
    assert run("b") == "FINISHED"
    assert PREFIX + "all-runs" not in tags(client, "alone")
