"""Whole runs through the command line, on a model of one weight."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import cli_standins
import pytest
import yaml
from mlflow import MlflowClient


def metrics(folder):
    return [json.loads(line) for line in Path(folder, "metrics.jsonl").read_text().splitlines()]


def stored_run(workplace, folder="runs/climber"):
    record = json.loads((workplace / folder / "run.json").read_text())
    return MlflowClient(record["tracking_uri"]).get_run(record["run_id"])


def test_fit_leaves_everything_in_its_folder(shell, climber, workplace):
    assert shell("fit", "--config", climber) == 0, shell.err
    folder = workplace / "runs" / "climber"
    assert {"config.yaml", "metrics.jsonl", "run.json", "checkpoints", "samples", "model"} <= {
        path.name for path in folder.iterdir()
    }
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]
    assert sorted(path.name for path in (folder / "samples").iterdir()) == [
        f"step_{step:06d}.jsonl" for step in (2, 4, 6)
    ]
    scores = {row["step"]: row["val/maj_at_2"] for row in metrics(folder) if "val/maj_at_2" in row}
    assert scores == {2: 0.75, 4: 1.0, 6: 0.75}
    assert [row["step"] for row in metrics(folder) if "train/success" in row] == [1, 2, 3, 4, 5, 6]
    page = (folder / "artifacts" / "samples.html").read_text()
    assert "Samples of climber" in page
    assert "samples          runs/climber/artifacts/samples.html\n" in shell.out
    client = MlflowClient(f"sqlite:///{workplace}/runs/mlflow.db")
    assert "samples.html" in [item.path for item in client.list_artifacts(stored_run(workplace).info.run_id)]


def test_fit_exports_the_best_checkpoint_not_the_last(shell, climber, workplace):
    shell("fit", "--config", climber)
    assert (workplace / "runs/climber/model/weight.txt").read_text() == "2.0"


def test_fit_says_where_everything_is(shell, climber):
    shell("fit", "--config", climber)
    assert "best checkpoint  runs/climber/checkpoints/best.ckpt  (val/maj_at_2 1.000 at step 4)" in shell.out
    assert re.search(r"\ncheckpoints      \d written in \d+\.\d s, [1-9]\d?\.\d% of the training\n", shell.out)
    assert "model            runs/climber/model" in shell.out
    assert "jqlight ui runs/climber" in shell.out
    assert shell.out.startswith("jqlight fit: Climber (q = 0.25) on Numbers; files in runs/climber\nstart-up ")
    assert "validation at step 2: val/maj_at_2 0.75" in shell.out
    header, scores = [line.split() for line in shell.out.splitlines() if "first (" in line or "val/maj_at_2  " in line]
    assert header == ["first", "(2)", "best", "(4)", "last", "(6)"]
    assert scores == ["val/maj_at_2", "0.750", "1.000", "0.750"]
    assert shell.err == ""


def test_the_scores_at_the_end_are_those_of_the_whole_run_also_after_a_resume(shell, climber):
    shell("fit", "--config", climber, "--trainer.max_steps", "4", "--trainer.num_sanity_val_steps", "-1")
    assert shell("fit", "--ckpt_path", "runs/climber/checkpoints/last.ckpt", "--trainer.max_steps", "7") == 0, shell.err
    header, scores = [line.split() for line in shell.out.splitlines() if "first (" in line or "val/maj_at_2  " in line]
    assert header == ["first", "(0)", "best", "(4)", "last", "(6)"]
    assert scores == ["val/maj_at_2", "0.500", "1.000", "0.750"]


def test_without_a_logger_the_scores_are_told_and_no_file_is_named(shell, climber):
    assert shell("fit", "--config", climber, "--trainer.logger", "false") == 0, shell.err
    assert "(val/maj_at_2 1.000 at step 4)" in shell.out
    assert "metrics.jsonl" not in shell.out


def test_a_starting_model_that_scored_higher_is_told(shell, climber):
    options = ["--trainer.num_sanity_val_steps", "-1", "--optimizer.lr", "4"]
    assert shell("fit", "--config", climber, *options) == 0, shell.err
    assert "but the starting model scored higher: val/maj_at_2 0.500 at step 0" in shell.out


def test_the_run_is_in_mlflow_with_what_one_compares_by(shell, climber, workplace):
    shell("fit", "--config", climber, "--model.q", "0.5", "--seed_everything", "3", "--data.scenario", "warm")
    run = stored_run(workplace)
    for name, value in {
        "estimator": "Climber",
        "q": "0.5",
        "benchmark": "Numbers",
        "scenario": "warm",
        "seed": "3",
    }.items():
        assert run.data.params[name] == value
        assert run.data.tags[name] == value
    assert run.data.params["optimizer.lr"] == "0.5"
    assert run.data.params["trainer.max_steps"] == "6"
    assert not [name for name in run.data.params if "_instantiator" in name or name.startswith("_")]
    assert run.data.metrics["val/maj_at_2"] == 0.75
    assert run.info.status == "FINISHED"
    assert {"version.torch", "host.kind"} <= set(run.data.tags)


def test_the_resolved_config_is_logged_and_starts_a_new_run(shell, climber, workplace):
    shell("fit", "--config", climber, "--model.q", "0.5")
    saved = yaml.safe_load((workplace / "runs/climber/config.yaml").read_text())
    assert saved["model"]["init_args"]["q"] == 0.5
    assert saved["run_dir"] is None
    assert saved["ckpt_path"] is None
    run = stored_run(workplace)
    client = MlflowClient(f"sqlite:///{workplace}/runs/mlflow.db")
    assert "config.yaml" in [item.path for item in client.list_artifacts(run.info.run_id)]
    assert shell("fit", "--config", "runs/climber/config.yaml") == 0
    assert "files in runs/climber-2" in shell.out


def test_repeated_runs_get_folders_of_their_own(shell, climber, workplace):
    for _ in range(3):
        shell("fit", "--config", climber, "--trainer.max_steps", "2")
    names = {path.name for path in (workplace / "runs").iterdir() if path.is_dir()}
    assert {"climber", "climber-2", "climber-3"} <= names
    ids = {json.loads((workplace / "runs" / n / "run.json").read_text())["run_id"] for n in names if n[0] == "c"}
    assert len(ids) == 3


def test_run_dir_and_run_name_are_taken_as_given(shell, climber, workplace):
    assert shell("fit", "--config", climber, "--run_dir", "elsewhere/x", "--run_name", "mine") == 0
    assert (workplace / "elsewhere/x/checkpoints/last.ckpt").exists()
    assert json.loads((workplace / "elsewhere/x/run.json").read_text())["run_name"] == "mine"
    assert shell("fit", "--config", climber, "--run_dir", "elsewhere/x") == 2
    assert "run_dir: elsewhere/x holds a run already; continue it with --ckpt_path last" in shell.err


@pytest.mark.parametrize("how", ["last", "file", "file alone"])
def test_resume_continues_the_same_run(shell, climber, workplace, how):
    shell("fit", "--config", climber, "--trainer.max_steps", "4")
    before = stored_run(workplace)
    checkpoint = "runs/climber/checkpoints/last.ckpt"
    arguments = {
        "last": ["--config", climber, "--ckpt_path", "last"],
        "file": ["--config", climber, "--ckpt_path", checkpoint],
        "file alone": ["--ckpt_path", checkpoint, "--trainer.max_steps", "6"],
    }[how]
    assert shell("fit", *arguments) == 0, shell.err
    after = stored_run(workplace)
    assert after.info.run_id == before.info.run_id
    assert after.info.status == "FINISHED"
    history = MlflowClient(f"sqlite:///{workplace}/runs/mlflow.db").get_metric_history(
        after.info.run_id, "train/success"
    )
    assert [(m.step, m.value) for m in history] == [(step, step / 2) for step in range(1, 7)]
    assert not (workplace / "runs/climber-2").exists()


def test_a_finished_run_says_that_nothing_is_left(shell, climber):
    shell("fit", "--config", climber)
    assert shell("fit", "--config", climber, "--ckpt_path", "last") == 0, shell.err
    assert "nothing was left to train: 6 steps are done; raise trainer.max_steps to go on" in shell.out


def test_last_starts_afresh_where_there_is_nothing_to_continue(shell, climber, workplace):
    assert shell("fit", "--config", climber, "--ckpt_path", "last", "--run_dir", "runs/a") == 0
    assert [row["step"] for row in metrics(workplace / "runs/a") if "train/success" in row] == [1, 2, 3, 4, 5, 6]


def test_the_best_checkpoint_is_tested_in_its_own_run(shell, climber, workplace):
    shell("fit", "--config", climber)
    assert shell("test", "--config", climber, "--ckpt_path", "best") == 0, shell.err
    assert metrics(workplace / "runs/climber")[-1]["test/weight"] == 2.0
    assert "test/maj_at_2" in shell.out
    run = stored_run(workplace)
    assert run.data.metrics["test/weight"] == 2.0
    assert run.data.metrics["val/maj_at_2"] == 0.75
    assert metrics(workplace / "runs/climber")[-1]["step"] == 4
    assert (workplace / "runs/climber/samples/test_step_000004.jsonl").exists()


def test_predict_writes_rows(shell, climber, workplace):
    shell("fit", "--config", climber)
    assert shell("predict", "--ckpt_path", "runs/climber/checkpoints/last.ckpt") == 0, shell.err
    rows = [json.loads(line) for line in (workplace / "runs/climber/predictions.jsonl").read_text().splitlines()]
    assert rows == [{"id": str(i), "weight": 3.0} for i in range(8)]
    assert "8 predictions in runs/climber/predictions.jsonl" in shell.out


def test_validate_without_a_checkpoint_scores_the_base_model(shell, climber, workplace):
    assert shell("validate", "--config", climber) == 0, shell.err
    assert metrics(workplace / "runs/climber")[-1]["val/weight"] == 0.0


def test_a_scheduler_steps_with_the_optimizer(shell, climber, workplace):
    options = ["--lr_scheduler", "torch.optim.lr_scheduler.StepLR", "--lr_scheduler.step_size", "2"]
    assert shell("fit", "--config", climber, *options) == 0, shell.err
    rates = [row["train/lr"] for row in metrics(workplace / "runs/climber") if "train/lr" in row]
    assert rates == pytest.approx([0.5, 0.5, 0.05, 0.05, 0.005, 0.005])


def test_ctrl_c_ends_with_the_command_to_go_on(shell, climber, workplace):
    handler = signal.getsignal(signal.SIGINT)
    try:
        assert shell("fit", "--config", climber, "--model.fail_at", "-5") == 130
    finally:
        signal.signal(signal.SIGINT, handler)
    assert "interrupted; go on with: jqlight fit --ckpt_path runs/climber/checkpoints/last.ckpt" in shell.err
    assert "Traceback" not in shell.err
    assert stored_run(workplace).info.status == "KILLED"
    assert shell("fit", "--ckpt_path", "runs/climber/checkpoints/last.ckpt", "--model.fail_at", "0") == 0
    assert stored_run(workplace).info.status == "FINISHED"


def test_a_terminated_run_ends_like_an_interrupted_one(climber, workplace):
    command = [sys.executable, "-m", "jqlight", "fit", "--config", str(climber), "--trainer.max_steps", "9999"]
    command += ["--model.pause", "0.05"]
    environment = {**os.environ, "PYTHONPATH": str(Path(cli_standins.__file__).parent)}
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=environment
    ) as run:
        checkpoint = workplace / "runs/climber/checkpoints/last.ckpt"
        while run.poll() is None and not checkpoint.exists():
            time.sleep(0.05)
        run.terminate()
        _, errors = run.communicate(timeout=240)
    assert run.returncode == 143, errors
    assert "interrupted; go on with: jqlight fit --ckpt_path runs/climber/checkpoints/last.ckpt" in errors
    assert stored_run(workplace).info.status == "KILLED"


def test_an_error_in_a_step_is_a_sentence_and_the_run_has_failed(shell, climber, workplace):
    assert shell("fit", "--config", climber, "--model.fail_at", "3") == 2
    assert shell.err == "jqlight fit: record 7 of train.json: no answer\n"
    assert stored_run(workplace).info.status == "FAILED"


def test_a_dead_server_neither_stops_training_nor_loses_anything(shell, climber, workplace, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert shell("fit", "--config", climber) == 0
    assert shell.err.count("jqlight sync runs/climber") >= 1
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert shell("sync", "runs/climber", "--store", f"sqlite:///{workplace}/runs/mlflow.db") == 0, shell.err
    run = stored_run(workplace)
    assert run.data.metrics["val/maj_at_2"] == 0.75
    assert run.data.params["q"] == "0.25"
    assert run.info.status == "FINISHED"


def test_runs_of_a_sweep_are_children_in_their_parents_experiment(shell, climber, workplace, monkeypatch):
    client = MlflowClient(f"sqlite:///{workplace}/runs/mlflow.db")
    experiment = client.create_experiment("a sweep", artifact_location=(workplace / "artifacts").as_uri())
    parent = client.create_run(experiment).info.run_id
    monkeypatch.setenv("JQLIGHT_PARENT_RUN_ID", parent)
    assert shell("fit", "--config", climber) == 0
    run = stored_run(workplace)
    assert run.data.tags["mlflow.parentRunId"] == parent
    assert run.info.experiment_id == experiment


def test_logging_can_be_switched_off(shell, climber, workplace):
    assert shell("fit", "--config", climber, "--trainer.logger", "false") == 0, shell.err
    assert not (workplace / "runs/climber/metrics.jsonl").exists()
    assert (workplace / "runs/climber/checkpoints/best.ckpt").exists()


def test_a_run_that_its_time_has_ended_says_so(shell, climber):
    forever = ["--trainer.max_time", "00:00:00:01", "--trainer.max_steps", "9999", "--model.pause", "0.05"]
    assert shell("fit", "--config", climber, *forever) == 0
    assert "stopped at step " in shell.out
    assert "trainer.max_time, 1 s over all sessions of the run, is used up; raise it to go on" in shell.out
    assert shell("fit", "--ckpt_path", "runs/climber/checkpoints/last.ckpt") == 0
    assert "nothing was left to train: " in shell.out and "trainer.max_time" in shell.out


def test_a_resumed_run_says_that_nothing_was_left_only_where_nothing_was(shell, climber):
    assert shell("fit", "--config", climber, "--trainer.max_steps", "2") == 0
    last = ["--ckpt_path", "runs/climber/checkpoints/last.ckpt"]
    assert shell("fit", *last, "--trainer.max_steps", "4") == 0
    assert "nothing was left" not in shell.out
    assert shell("fit", *last, "--trainer.max_steps", "4") == 0
    assert "nothing was left to train: 4 steps are done; raise trainer.max_steps to go on" in shell.out
