"""Parent, children and report through a real MLflow server: its REST interface and its comparison page."""

import importlib.util
import json
import urllib.request
from pathlib import Path

import mlflow
import pytest
from synthetic_runs import Fake, log_sweep

from jqlight.cli.compare import main
from jqlight.errors import JQLightError

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
    """(URL, experiment id, parent run id, runs' ids) of a server with one made-up sweep, logged through it."""
    folder = tmp_path_factory.mktemp("server")
    with script.serve(f"sqlite:///{folder}/mlflow.db", folder / "artifacts") as url:
        client = mlflow.MlflowClient(url)
        parent = log_sweep(client, RUNS, sweep_file="base: x.yaml\n")
        experiment = client.get_experiment_by_name("e").experiment_id
        found = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{parent}'")
        yield url, experiment, parent, [run.info.run_id for run in found]


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


def test_comparison_page_shows_the_runs_in_a_browser(server, script, tmp_path):
    if script.find_chromium() is None:
        pytest.skip("no Chromium on this machine")
    url, experiment, _, runs = server
    address = script.comparison_page(url, experiment, runs)
    page = script.open_page(address)
    assert f"Comparing {len(RUNS)} Runs from 1 Experiment" in page
    assert "GARL-q0.75-seed1" in page
    assert "val/maj_at_16" in page
    script.open_page(address, picture=tmp_path / "page.png")
    picture = (tmp_path / "page.png").read_bytes()
    # A blank page of this size takes some 10 kB.
    assert picture.startswith(b"\x89PNG")
    assert len(picture) > 50_000


def test_server_that_is_gone_is_one_sentence(monkeypatch):
    for name, value in {"REQUEST_MAX_RETRIES": "0", "REQUEST_TIMEOUT": "2"}.items():
        monkeypatch.setenv(f"MLFLOW_HTTP_{name}", value)
    with pytest.raises(JQLightError, match=r"MLflow at http://127.0.0.1:9 cannot be read .* is its server running\?"):
        main(["--experiment", "e", "--store", "http://127.0.0.1:9"])
