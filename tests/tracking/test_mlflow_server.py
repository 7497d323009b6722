"""Parent, children and report through a real MLflow server: its REST interface and its comparison page."""

import importlib.util
import json
import re
import urllib.request
from pathlib import Path

import mlflow
import pytest
from synthetic_runs import Fake, log_sweep

from jqlight.cli.compare import main
from jqlight.errors import JQLightError
from jqlight.tracking.views import charts, leave_view

SCRIPT = Path(__file__).parents[2] / "scripts" / "screenshot_mlflow.py"
RUNS = [Fake("GARL", q, seed, middle) for q, middle in (("0", None), ("0.75", 30), ("1", 20)) for seed in (0, 1)]
RUNS.append(Fake("GARL", "splice(0.05)", 0, 20, params=(("commitment", "splice"), ("commitment.tau", "0.05"))))


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("screenshot_mlflow", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def server(script, tmp_path_factory):
    """(URL, experiment id, parent run id, the store's URI) of a server with one made-up sweep, logged through it."""
    folder = tmp_path_factory.mktemp("server")
    store = f"sqlite:///{folder}/mlflow.db"
    with script.serve(store, folder / "artifacts") as url:
        client = mlflow.MlflowClient(url)
        parent = log_sweep(client, RUNS, sweep_file="base: x.yaml\n")
        experiment = client.get_experiment_by_name("e").experiment_id
        yield url, experiment, parent, store


def rest(url, path, **body):
    """Answer of MLflow's REST interface, as any other program would get it."""
    data = json.dumps(body).encode() if body else None
    request = urllib.request.Request(f"{url}/api/2.0/mlflow/{path}", data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def test_children_have_parent_params_and_stepwise_metrics(server):
    url, experiment, parent, _ = server
    query = {"experiment_ids": [experiment], "filter": f"tags.`mlflow.parentRunId` = '{parent}'"}
    runs = rest(url, "runs/search", **query)["runs"]
    params = [{entry["key"]: entry["value"] for entry in run["data"]["params"]} for run in runs]
    # One text among them, and MLflow's charts would take q for text in every run.
    assert sorted((p["estimator"], float(p["q"]), int(p["seed"])) for p in params if "q" in p) == [
        ("GARL", q, seed) for q in (0.0, 0.75, 1.0) for seed in (0, 1)
    ]
    history = rest(url, f"metrics/get-history?run_id={runs[0]['info']['run_id']}&metric_key=val/maj_at_16")["metrics"]
    assert [int(entry["step"]) for entry in history] == [20, 40, 60]


def test_compare_leaves_its_report_on_the_parent_run(server, tmp_path, capsys):
    url, experiment, parent, _ = server
    assert main(["--parent", parent, "--store", url, "--out", str(tmp_path)]) == 0
    assert "GARL q=0.75" in capsys.readouterr().out
    files = {entry["path"] for entry in rest(url, f"artifacts/list?run_id={parent}&path=comparison")["files"]}
    named = (
        "report.html",
        "summary.md",
        "summary.json",
        "runs.md",
        "verdicts.md",
        "q.png",
        "validation.png",
        "cold_start.png",
        "cost.png",
    )
    assert files == {f"comparison/{name}" for name in named}
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(url)  # load_table looks in the global store, not in the client's
    try:
        table = mlflow.MlflowClient(url).load_table(experiment, "comparison/summary.json", run_ids=[parent])
    finally:
        mlflow.set_tracking_uri(before)
    assert list(table["method"]) == ["GARL q=0", "GARL q=0.75", "GARL q=1", "GARL splice(0.05)"]


def test_the_sweeps_view_shows_q_and_scores_in_a_browser_without_a_click(server, script):
    if script.find_chromium() is None:
        pytest.skip("no Chromium on this machine")
    url, experiment, parent, store = server
    view = leave_view(mlflow.MlflowClient(url), parent)
    tags = mlflow.MlflowClient(url).get_experiment(experiment).tags
    # A program that has the file itself, as a run without a server, leaves the same.
    assert leave_view(mlflow.MlflowClient(store), parent) == view
    assert mlflow.MlflowClient(url).get_experiment(experiment).tags == tags
    table = text_of(script.open_page(f"{url}/{view}"))
    assert f"{len(RUNS)} matching runs" in table
    for name in ("val/maj_at_16", "val/pass_at_1", "estimator", "seed"):
        assert name in table
    # A row: estimator, q, maj@16, pass@1. By score, so that q = 0, which never escapes, comes last.
    rows = re.findall(r"GARL (0|0\.75|1|splice\(0\.05\)) (0|0\.6\d*) (0|0\.15\d*) ", table)
    assert [q for q, _, _ in rows[-2:]] == ["0", "0"]
    assert sorted(q for q, _, _ in rows[:-2]) == ["0.75", "0.75", "1", "1", "splice(0.05)"]
    assert [float(score) for _, score, _ in rows] == pytest.approx([0.6] * 5 + [0, 0])
    page = text_of(script.open_page(f"{url}/{charts(view)}"))
    for name, ticks in (("val/maj_at_16", "0 0.2 0.4 0.6"), ("val/pass_at_1", "0 0.05 0.1 0.15")):
        assert f"q vs. {name} 0 0.5 1 {ticks} q {name} " in page
    assert "GARL-q0.75-seed1" in page
    assert re.search(r"train/log_success 20 40 60 [−\d ]+ Step GARL", page)


def text_of(page):
    """The text of a page's HTML, words apart by one space."""
    return " ".join(re.sub(r"<[^>]+>", " ", re.sub(r"(?s)<(script|style).*?</\1>", "", page)).split())


def test_server_that_is_gone_is_one_sentence(monkeypatch):
    for name, value in {"REQUEST_MAX_RETRIES": "0", "REQUEST_TIMEOUT": "2"}.items():
        monkeypatch.setenv(f"MLFLOW_HTTP_{name}", value)
    with pytest.raises(JQLightError, match=r"MLflow at http://127.0.0.1:9 cannot be read .* is its server running\?"):
        main(["--experiment", "e", "--store", "http://127.0.0.1:9"])
