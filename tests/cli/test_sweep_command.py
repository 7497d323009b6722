"""``jqlight sweep`` as a user runs it, with the stand-in for ``fit`` and a real MLflow store."""

import json
import os
import signal
import subprocess
import sys
import time

import mlflow
import pytest
from sweep_fixtures import FAKE_FIT

from jqlight.cli.sweep import main
from jqlight.errors import ConfigError

DRIVER = f"""
import sys
from jqlight.cli import sweep
from jqlight.sweep import command
command.PROGRAM = (sys.executable, {str(FAKE_FIT)!r})
sweep.check_points = lambda _: None
raise SystemExit(sweep.main(sys.argv[1:]))
"""


def parents(folder, experiment="s"):
    client = mlflow.MlflowClient(f"sqlite:///{folder}/mlflow.db")
    found = client.get_experiment_by_name(experiment)
    return client, client.search_runs([found.experiment_id], "tags.`jqlight.sweep` != ''")


def wait_for(path, seconds=30):
    end = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < end, f"{path} did not appear"
        time.sleep(0.05)


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_sweep_has_one_parent_run_and_tells_its_points(fake_fit, write_sweep, capsys):
    path = write_sweep("experiment: exp\ngrid: {q: [0, {splice: 0.05}], seed: [0]}\n")
    assert main([str(path)]) == 0
    client, (parent,) = parents(fake_fit, "exp")
    assert (parent.info.status, parent.info.run_name) == ("FINISHED", "s")
    assert parent.data.params == {"points": "2", "axis/q": "0, splice(0.05)", "axis/seed": "0"}
    assert [entry.path for entry in client.list_artifacts(parent.info.run_id)] == ["sweep.yaml"]
    call = json.loads((fake_fit / "runs/s/q0-seed0/calls.jsonl").read_text())
    assert call["env"]["JQLIGHT_PARENT_RUN_ID"] == parent.info.run_id
    assert call["env"]["MLFLOW_TRACKING_URI"] == f"sqlite:///{fake_fit}/mlflow.db"
    assert call["argv"][call["argv"].index("--experiment_name") + 1] == "exp"
    output = capsys.readouterr().out
    assert "q0-seed0: started; log: runs/s/q0-seed0/output.log" in output
    view = f"http://127.0.0.1:5000/#/experiments/{parent.info.experiment_id}/runs?viewStateShareKey=sweep-s"
    assert f"MLflow   jqlight ui runs/s\ntable    {view}&workflowType=machine_learning\ncharts   {view}&" in output
    assert "mlflow.sharedViewState.sweep-s" in client.get_experiment(parent.info.experiment_id).tags
    assert "q0-seed0: finished (1 of 2): step 3, success 0.3, maj@k 0.500" in output
    assert "sweep s: 2 finished" in output


def test_store_without_a_setting_lies_in_the_runs_folder(fake_fit, write_sweep, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    (fake_fit / "elsewhere").mkdir()
    (fake_fit / "mlflow.db").rename(fake_fit / "elsewhere" / "mlflow.db")
    assert main([str(write_sweep("grid: {seed: [0]}\n")), "--runs-dir", "elsewhere"]) == 0
    assert len(parents(fake_fit / "elsewhere")[1]) == 1


def test_failure_is_shown_and_resume_continues_the_same_parent(fake_fit, write_sweep, capsys):
    path = write_sweep("overrides: {fake.steps: 4}\ngrid: {seed: [0]}\ninclude: [{fake.fail_at: 3, seed: 1}]\n")
    assert main([str(path)]) == 1
    output = capsys.readouterr().out
    assert "fail_at=3-seed1 failed (exit code 1); the end of runs/s/fail_at=3-seed1/output.log:" in output
    assert "  | RuntimeError: failed at step 3" in output
    assert f"to run what is missing: jqlight sweep {path} --resume" in output
    assert parents(fake_fit)[1][0].info.status == "FAILED"
    assert main([str(path), "--resume"]) == 0
    output = capsys.readouterr().out
    assert "fail_at=3-seed1: started, from step 2" in output
    assert "sweep s: 1 finished before, 1 finished" in output
    (parent,) = parents(fake_fit)[1]
    assert parent.info.status == "FINISHED"


def test_two_sweeps_share_a_store(fake_fit, write_sweep):
    assert main([str(write_sweep("experiment: exp\ngrid: {seed: [0]}\n", "a.yaml"))]) == 0
    assert main([str(write_sweep("experiment: exp\ngrid: {seed: [0]}\n", "b.yaml"))]) == 0
    assert {run.info.run_name for run in parents(fake_fit, "exp")[1]} == {"a", "b"}


def test_resume_in_another_store_is_refused(fake_fit, write_sweep, monkeypatch):
    path = write_sweep("grid: {seed: [0]}\n")
    assert main([str(path)]) == 0
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///other.db")
    with pytest.raises(ConfigError, match=r"this sweep was begun in sqlite:///.*mlflow.db; unset it"):
        main([str(path), "--resume"])


def test_resume_without_its_parent_run_says_so(fake_fit, write_sweep):
    path = write_sweep("grid: {seed: [0]}\n")
    assert main([str(path)]) == 0
    noted = json.loads((fake_fit / "runs/s/sweep.json").read_text())
    (fake_fit / "runs/s/sweep.json").write_text(json.dumps({**noted, "parent_run_id": "0" * 32}))
    with pytest.raises(ConfigError, match="which is not in sqlite"):
        main([str(path), "--resume"])


def test_settings_on_the_command_line_reach_every_point(fake_fit, write_sweep):
    path = write_sweep("grid: {seed: [0]}\n")
    assert main(["--fake.steps=2", str(path), "--model.init_args.lr", "1e-3"]) == 0
    arguments = json.loads((fake_fit / "runs/s/seed0/calls.jsonl").read_text())["argv"]
    given = dict(zip(arguments[1::2], arguments[2::2]))
    assert given["--fake.steps"] == "2"
    assert float(given["--model.lr"]) == 1e-3


def test_dry_run_prints_points_and_commands_and_runs_nothing(fake_fit, write_sweep, capsys):
    path = write_sweep("grid: {estimator: [GARL, GRPO], q: [0, 0.5]}\n")
    assert main([str(path), "--dry-run"]) == 0
    output = capsys.readouterr().out
    lines = [line.split() for line in output.splitlines()]
    assert ["1", "GARL-q0", "missing", "GARL", "0"] in lines
    assert ["3", "GRPO", "missing", "GRPO", "–"] in lines
    assert "jqlight fit --config" in output
    assert "--model jqlight.estimators.GARL --model.q 0.5 --run_dir runs/s/GARL-q0.5 --experiment_name s" in output
    assert not (fake_fit / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--jobs", "0"], "--jobs: given 0"),
        (["--model.q"], "--model.q has no value"),
        (["--jobs", "x"], "argument --jobs: invalid int value: 'x'"),
        (["--seeds", "3"], "unrecognized arguments: --seeds 3"),
    ],
)
def test_mistakes_on_the_command_line_start_nothing(fake_fit, write_sweep, arguments, message):
    path = write_sweep("grid: {seed: [0]}\n")
    with pytest.raises(ConfigError, match=message):
        main([str(path), *arguments])
    assert not (fake_fit / "runs/s/seed0").exists()


@pytest.mark.parametrize(("number", "setting"), [(signal.SIGINT, ""), (signal.SIGTERM, ", fake.polite: 1")])
def test_signal_stops_the_points_and_resume_continues(fake_fit, write_sweep, number, setting):
    # A point that ends with 0 because it was asked to stop is not finished.
    path = write_sweep(f"overrides: {{fake.steps: 5, fake.seconds: 0.3{setting}}}\ngrid: {{seed: [0, 1]}}\n")
    sweep = subprocess.Popen([sys.executable, "-c", DRIVER, str(path)], stdout=subprocess.PIPE, text=True)
    wait_for(fake_fit / "runs/s/seed0/metrics.jsonl")
    pid = json.loads((fake_fit / "runs/s/seed0/calls.jsonl").read_text())["pid"]
    sweep.send_signal(number)
    output = sweep.communicate(timeout=60)[0]
    assert sweep.returncode == 128 + number
    assert not alive(pid)
    assert "sweep s: 1 waiting, 1 stopped" in output
    assert f"to run what is missing: jqlight sweep {path} --resume" in output
    assert parents(fake_fit)[1][0].info.status == "KILLED"
    assert main([str(path), "--resume", "--jobs", "2"]) == 0
    _, second = (json.loads(line) for line in (fake_fit / "runs/s/seed0/calls.jsonl").read_text().splitlines())
    assert second["first"] >= 1
    assert "--ckpt_path" in second["argv"]


def test_sweep_under_nohup_outlives_its_terminal(fake_fit, write_sweep):
    path = write_sweep("overrides: {fake.steps: 4, fake.seconds: 0.3}\ngrid: {seed: [0]}\n")
    command = ["nohup", sys.executable, "-c", DRIVER, str(path)]
    sweep = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(fake_fit / "runs/s/seed0/metrics.jsonl")
    sweep.send_signal(signal.SIGHUP)
    assert sweep.wait(60) == 0
    assert (fake_fit / "runs/s/seed0/finished.json").exists()


def test_points_outlive_a_killed_sweep_and_are_not_started_twice(fake_fit, write_sweep):
    path = write_sweep("overrides: {fake.steps: 5, fake.seconds: 0.5}\ngrid: {seed: [0]}\n")
    sweep = subprocess.Popen([sys.executable, "-c", DRIVER, str(path)], stdout=subprocess.DEVNULL)
    wait_for(fake_fit / "runs/s/seed0/metrics.jsonl")
    pid = json.loads((fake_fit / "runs/s/seed0/calls.jsonl").read_text())["pid"]
    sweep.kill()
    sweep.wait()
    with pytest.raises(ConfigError, match="still running here"):
        main([str(path), "--resume"])
    os.kill(pid, signal.SIGKILL)
    while alive(pid):
        time.sleep(0.05)
    assert main([str(path), "--resume"]) == 0


def test_live_table_shows_every_point_on_a_terminal(fake_fit, write_sweep):
    path = write_sweep("overrides: {fake.seconds: 0.3}\ngrid: {seed: [0]}\ninclude: [{fake.crash: 1}]\n")
    controller, terminal = os.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100", "LINES": "30"}
    sweep = subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(path)], stdout=terminal, stderr=terminal, env=environment
    )
    os.close(terminal)
    shown = b""
    while True:
        try:
            part = os.read(controller, 65536)
        except OSError:
            break
        if not part:
            break
        shown += part
    assert sweep.wait(30) == 1
    text = shown.decode()
    assert all(heading in text for heading in ("point", "state", "step", "success", "maj@k", "time left"))
    assert "running" in text
    assert "3/3" in text
    assert "0.500" in text
    assert "1 finished, 1 failed" in text
