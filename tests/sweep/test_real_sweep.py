"""A sweep of real runs on conf/quickstart.yaml: interrupted, resumed, compared from MLflow."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import mlflow

ROOT = Path(__file__).parents[2]
SWEEP = f"""
base: {ROOT}/conf/quickstart.yaml
experiment: real
overrides:
  trainer.max_steps: 4
  trainer.val_check_interval: 2
  model.rollouts: 2
  model.samples: 2
  model.sampler.engine: transformers
  data.prompts_per_step: 2
  data.train_size: 16
  data.validation_size: 2
points:
  - {{estimator: GARL, q: {{splice: 0.05}}}}
  - {{estimator: GRPO}}
"""


def sweep(folder, *options):
    environment = {**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db", "OMP_NUM_THREADS": "1"}
    environment.pop("JQLIGHT_PARENT_RUN_ID", None)
    command = [sys.executable, "-m", "jqlight", "sweep", str(folder / "s.yaml"), *options]
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True)


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_interrupted_sweep_resumes_from_its_checkpoint_and_is_compared(tmp_path, empty_store):
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    (tmp_path / "s.yaml").write_text(SWEEP)
    first = tmp_path / "runs" / "s" / "GARL-qsplice-0.05"

    # As soon as there is a checkpoint to go on from.
    running = sweep(tmp_path)
    while not (first / "checkpoints" / "last.ckpt").exists() and running.poll() is None:
        time.sleep(0.02)
    running.send_signal(signal.SIGTERM)
    output = running.communicate(timeout=120)[0]
    assert running.returncode == 128 + signal.SIGTERM, output
    assert not (first / "finished.json").exists()
    run_id = json.loads((first / "run.json").read_text())["run_id"]
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    assert client.get_run(run_id).info.status in ("KILLED", "FAILED")

    resumed = sweep(tmp_path, "--resume")
    output = resumed.communicate(timeout=400)[0]
    assert resumed.returncode == 0, output
    trained = [row["step"] for row in rows(first / "metrics.jsonl") if "train/success" in row]
    assert sorted(set(trained)) == [1, 2, 3, 4]
    assert "from step" in output

    experiment = client.get_experiment_by_name("real").experiment_id
    (parent,) = client.search_runs([experiment], "tags.`jqlight.sweep` = 's'")
    assert parent.info.status == "FINISHED"
    children = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'")
    facts = {(run.info.run_name, run.data.tags["estimator"], run.data.tags.get("q")) for run in children}
    assert facts == {("GARL-qsplice-0.05", "GARL", "splice(0.05)"), ("GRPO", "GRPO", None)}
    (spliced,) = (run.data.params for run in children if run.info.run_id == run_id)
    assert "q" not in spliced  # text in one run makes MLflow's charts take the parameter for text in all
    assert (spliced["commitment"], spliced["commitment.tau"]) == ("splice", "0.05")
    assert {run.info.status for run in children} == {"FINISHED"}
    assert run_id in {run.info.run_id for run in children}
    assert all(run.data.params["benchmark"] == "TwoHop" and "val/maj_at_2" in run.data.metrics for run in children)
    assert "GARL splice(0.05)" in output
    page = Path(client.download_artifacts(parent.info.run_id, "comparison/report.html", str(tmp_path))).read_text()
    assert "GARL splice(0.05)" in page

    finished = (first / "finished.json").read_text()
    again = sweep(tmp_path, "--resume")
    assert again.communicate(timeout=120)[0].count("started") == 0
    assert again.returncode == 0
    assert (first / "finished.json").read_text() == finished


def test_point_that_fit_refuses_shows_fits_sentence(tmp_path, empty_store):
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    (tmp_path / "s.yaml").write_text(
        f"base: {ROOT}/conf/quickstart.yaml\npoints: [{{estimator: GRPO, model.rollouts: 1}}]\n"
    )
    refused = sweep(tmp_path)
    output = refused.communicate(timeout=200)[0]
    assert refused.returncode == 1
    assert "model.rollouts: given 1, a group's rewards are compared: it needs at least 2" in output
