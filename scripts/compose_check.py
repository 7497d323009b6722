"""What docs/howto/containers.md promises of compose.yaml; image_check.py --compose runs it."""

import os
import shutil
import subprocess
import urllib.request
from pathlib import Path

from docker_tools import FIT, IMAGE, ROOT, STEP_METRIC, Row, call, docker, last_step, record, wait_for
from screenshot_mlflow import find_chromium, open_page

from jqlight.tracking.mlflow import open_store
from jqlight.tracking.views import charts, leave_view

SERVER = "http://127.0.0.1:5000"
POSTGRES = "postgres:17-bookworm"
SWEEP = """base: conf/quickstart.yaml
experiment: check
overrides: {model.rollouts: 4, model.samples: 4, data.prompts_per_step: 2, data.validation_size: 16}
grid:
  q: [0.0, 0.75, 1.0]
"""
PAGES = {"table": "1800,620", "charts": "1600,1040"}


def compose_rows(work: Path, pictures: Path | None) -> list[Row]:
    """A sweep and a run that log to the server; the services are gone afterwards.

    Args:
        work: a folder that is made.
        pictures: path of the pictures of MLflow's pages without _table.png, _charts.png; None takes none.
    """
    work.mkdir()
    shutil.copy(ROOT / "compose.yaml", work)
    (work / "check.yaml").write_text(SWEEP)
    try:
        _services(work, "up", "--detach")
        wait_for(_answers, 300)
        return [_sweep(work, 80 if pictures else 16), _pages(work, pictures), _stopped(work)]
    finally:
        _services(work, "down", "--volumes")


def _compose() -> list[str]:
    return ["docker", "compose"] if docker("compose", "version").returncode == 0 else ["docker-compose"]


def _services(work: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    done = call(*_compose(), *words, cwd=work)
    if done.returncode:
        print(done.stdout[-3000:], flush=True)
    return done


def _sweep(work: Path, steps: int) -> Row:
    """A sweep whose server is killed in the middle of its second run and is back in its third."""
    options = [
        "run",
        "--rm",
        "-T",
        "-v",
        f"{work}/check.yaml:/home/jqlight/check.yaml:ro",
        IMAGE,
        "sweep",
        "check.yaml",
    ]
    options += ["--trainer.max_steps", str(steps), "--trainer.val_check_interval", str(steps // 4)]
    with (work / "sweep.log").open("w") as output:
        training = subprocess.Popen([*_compose(), *options], cwd=work, stdout=output, stderr=subprocess.STDOUT)

        def reached(place: int, step: int) -> bool:
            done = sorted((last_step(path) for path in (work / "runs" / "check").glob("*/metrics.jsonl")), reverse=True)
            return training.poll() is not None or (len(done) > place and done[place] >= step)

        wait_for(lambda: reached(1, steps // 2), 1800)
        _services(work, "kill", "mlflow")
        wait_for(lambda: reached(2, 1), 1800)
        _services(work, "up", "--detach")
        code = training.wait(1800)
    runs = sorted(path.parent for path in (work / "runs" / "check").glob("*/run.json"))
    known = [len(_metric_steps(run)) for run in runs]
    names = [f"runs/check/{run.name}" for run in runs]
    synced = _services(work, "run", "--rm", "-T", "jqlight", "sync", *names)
    after = [_metric_steps(run) for run in runs]
    kept = [open_store(SERVER).list_artifacts(record(run)["run_id"]) for run in runs]
    good = code == synced.returncode == 0 and after == [list(range(1, steps + 1))] * 3
    text = (
        f"exit {code}; steps in MLflow {known}, after `jqlight sync` {[len(known) for known in after]} of {steps} each"
    )
    text += f"; {[len(entries) for entries in kept]} artifacts"
    if code:
        print((work / "sweep.log").read_text()[-3000:], flush=True)
    return "compose up, a sweep, server killed in its second run", text, good and all(kept)


def _pages(work: Path, pictures: Path | None) -> Row:
    """The sweep's view on PostgreSQL, by the address that the sweep printed, as the host's browser shows it."""
    name = "the sweep's table of q, from the host's browser"
    run = next((work / "runs" / "check").glob("*/run.json")).parent
    address = leave_view(open_store(SERVER), record(run)["run_id"])
    linked = f"{SERVER}/{address}" in (work / "sweep.log").read_text()
    if not find_chromium():
        return name, f"view {'printed' if linked else 'not printed'}; no Chromium to open it with", linked
    text = open_page(f"{SERVER}/{address}")
    shown = [q for q in ("0", "0.75", "1") if f">{q}<" in text]
    for page, size in PAGES.items() if pictures else ():
        there = charts(address) if page == "charts" else address
        open_page(f"{SERVER}/{there}", picture=pictures.with_name(f"{pictures.name}_{page}.png"), size=size)
    return (
        name,
        f"address {'printed' if linked else 'not printed'}, q shown: {', '.join(shown)}",
        linked and len(shown) == 3,
    )


def _stopped(work: Path) -> Row:
    """``docker stop`` of a run that logs to the server."""
    container, run = f"jqlight-check-{os.getpid()}", work / "runs" / "stopped"
    _services(work, "run", "--detach", "--name", container, "jqlight", *FIT, "--run_dir", "runs/stopped")
    wait_for(lambda: last_step(run / "metrics.jsonl") >= 5, 600)
    docker("stop", container)
    code = docker("inspect", "--format", "{{.State.ExitCode}}", container).stdout.strip()
    docker("rm", container)
    status = open_store(SERVER).get_run(record(run)["run_id"]).info.status
    return "compose, docker stop of a run", f"exit {code}, {status} on the server", (code, status) == ("143", "KILLED")


def _metric_steps(run: Path) -> list[int]:
    """The training steps that the server knows of a run."""
    history = open_store(SERVER).get_metric_history(record(run)["run_id"], STEP_METRIC)
    return sorted({metric.step for metric in history})


def _answers() -> bool:
    try:
        with urllib.request.urlopen(f"{SERVER}/health", timeout=3):
            return True
    except OSError:
        return False
