"""Builds the CPU image, runs what docs/howto/containers.md promises of it, and prints a table; 1 where a line fails.

    python scripts/image_check.py                  # or make image-check
    python scripts/image_check.py --no-build       # with the image that is there

It takes a Docker engine of 20.10 or later. Where the base image cannot be pulled, scripts/stand_in_images.sh makes one
of Debian's packages (as root). JQLIGHT_BUILD_OPTIONS holds words for `docker build`, such as a secret with settings of
pip. With --compose the services of compose.yaml run too, and port 5000 must be free.
"""

import argparse
import json
import os
import re
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).parents[1]
BASE = "python:3.11-slim-bookworm"
IMAGE = "jqlight"
LARGEST_GB, SLOWEST_RATIO, REFUSAL_S, STOP_S = 3.5, 1.3, 1.0, 10.0
FIT = ["fit", "--config", "conf/quickstart.yaml"]
STEP_METRIC = "time/sample"
NOISE = re.compile(r"traceback|mempolicy|matplotlib|error saving|warning|not writable|permission", re.IGNORECASE)
NO_NETWORK = "WARNING: IPv4 forwarding is disabled. Networking will not work.\n"

Row = tuple[str, str, bool]
"""What was tried, what came out, whether that is what is promised."""


def call(*words: str, seconds: float = 1800, **options: object) -> "subprocess.CompletedProcess[str]":
    """A command's outcome, with what it printed to both streams as one text."""
    environment = {**os.environ, "DOCKER_BUILDKIT": "1"}
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.run(words, env=environment, text=True, timeout=seconds, check=False, **streams, **options)


def docker(*words: str, **options: object) -> "subprocess.CompletedProcess[str]":
    """A docker command's outcome, without what it says itself of an engine that has no network."""
    done = call("docker", *words, **options)
    done.stdout = done.stdout.replace(NO_NETWORK, "")
    return done


def ensure(image: str) -> None:
    """Pull an image, or make a stand-in for it."""
    if docker("image", "inspect", image).returncode and docker("pull", image).returncode:
        done = call(str(ROOT / "scripts" / "stand_in_images.sh"), image)
        if done.returncode:
            raise SystemExit(f"{image} can neither be pulled nor made:\n{done.stdout[-2000:]}")


def build(target: str, tag: str) -> Row:
    """Build a target of the Dockerfile."""
    commit = call("git", "-C", str(ROOT), "rev-parse", "HEAD").stdout.strip()
    labels = [
        "--build-arg",
        f"REVISION={commit}",
        "--build-arg",
        time.strftime("CREATED=%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    ]
    extra = shlex.split(os.environ.get("JQLIGHT_BUILD_OPTIONS", ""))
    start = time.monotonic()
    done = docker("build", "--target", target, "--tag", tag, *labels, *extra, str(ROOT))
    if done.returncode:
        raise SystemExit(done.stdout[-4000:])
    return f"docker build --target {target}", f"{time.monotonic() - start:.0f} s", True


def contents() -> list[Row]:
    """Size, and what is not in the image."""
    size = int(docker("image", "inspect", "--format", "{{.Size}}", IMAGE).stdout) / 1e9
    tools = docker("run", "--rm", "--entrypoint", "sh", IMAGE, "-c", "command -v gcc g++ git nvcc").stdout.split()
    return [
        ("size", f"{size:.2f} GB", size <= LARGEST_GB),
        ("compilers and git", ", ".join(tools) or "none", not tools),
    ]


def fit(runs: Path, options: list[str], steps: int, *words: str) -> "subprocess.CompletedProcess[str]":
    """The documented line, shortened to ``steps``."""
    short = ["--trainer.max_steps", str(steps), "--trainer.val_check_interval", str(steps)]
    return docker("run", "--rm", *options, "-v", f"{runs}:/home/jqlight/runs", IMAGE, *FIT, *short, *words)


def step_seconds(folder: Path) -> float:
    """Median time between two steps, by the run's own metrics."""
    times = [row["time"] for row in steps_of(folder / "metrics.jsonl")]
    return statistics.median(after - before for before, after in pairwise(times))


def steps_of(journal: Path) -> list[dict[str, float]]:
    """The lines of training steps in a run's metrics."""
    rows = [json.loads(line) for line in journal.read_text().splitlines() if line.endswith("}")]
    return [row for row in rows if STEP_METRIC in row]


def verdict(done: "subprocess.CompletedProcess[str]", runs: Path) -> tuple[str, bool]:
    """How a run ended, who owns what it wrote, and what it printed that is not jqlight's."""
    noise = [line for line in done.stdout.splitlines() if NOISE.search(line)]
    owners = {f"{path.stat().st_uid}" for path in (runs / "quickstart").rglob("*")} if not done.returncode else set()
    text = f"exit {done.returncode}, files of user {', '.join(owners) or '-'}, {len(noise)} strange lines"
    return text, done.returncode == 0 and not noise and "0" not in owners and len(owners) == 1


def flags(work: Path, steps: int) -> list[Row]:
    """The documented line as it stands and with the flags that people add."""
    rows = []
    given = {"as it stands": [], "--network none": ["--network", "none"], "--memory 2g": ["--memory", "2g"]}
    given |= {"--cpus 1": ["--cpus", "1"], "--read-only --tmpfs /tmp": ["--read-only", "--tmpfs", "/tmp"]}
    given["--user 12345:12345"] = ["--user", "12345:12345"]
    for name, options in given.items():
        runs = work / re.sub(r"\W+", "_", name)
        if "--user" in options:
            runs.mkdir()
            os.chown(runs, 12345, 12345)
        done = fit(runs, options, steps if name == "as it stands" else 5)
        text, good = verdict(done, runs)
        rows.append((f"docker run, {name}", text, good))
        print(rows[-1], flush=True)
        if not good:
            print(done.stdout[-3000:])
    return rows


def against_host(work: Path, steps: int) -> list[Row]:
    """Time of a step beside the host's, one after the other."""
    short = ["--trainer.max_steps", str(steps), "--trainer.val_check_interval", str(steps), "--run_dir", "runs/host"]
    done = call(sys.executable, "-m", "jqlight", *FIT, *short, cwd=work)
    if done.returncode:
        return [("step beside the host's", "the host has no vLLM to compare with", True)]
    here, there = step_seconds(work / "runs" / "host"), step_seconds(work / "as_it_stands" / "quickstart")
    ratio = there / here
    return [("step beside the host's", f"{there:.2f} s and {here:.2f} s, {ratio:.2f} times", ratio <= SLOWEST_RATIO)]


def refusal(work: Path) -> list[Row]:
    """A folder that cannot be written."""
    locked = work / "locked"
    locked.mkdir(mode=0o555)
    os.chown(locked, 1000, 1000)
    rows = []
    for name, options in {"--user 12345": ["--user", "12345:12345"], "read-only mount": []}.items():
        mount = f"{locked}:/home/jqlight/runs" + (":ro" if not options else "")
        start = time.monotonic()
        done = docker("run", "--rm", *options, "-v", mount, IMAGE, *FIT)
        seconds, lines = time.monotonic() - start, done.stdout.strip().count("\n") + 1
        text = f"exit {done.returncode}, {lines} line, {seconds:.1f} s"
        rows.append((f"no right to write, {name}", text, done.returncode == 2 and lines == 1 and seconds <= REFUSAL_S))
    return rows


def stopped(work: Path) -> list[Row]:
    """``docker stop`` in the middle, and a second run that goes on."""
    runs, name = work / "stopped", f"jqlight-check-{os.getpid()}"
    mount = ["-v", f"{runs}:/home/jqlight/runs"]
    docker("run", "--detach", "--name", name, *mount, IMAGE, *FIT)
    journal = runs / "quickstart" / "metrics.jsonl"
    wait_for(lambda: last_step(journal) >= 5, 600)
    start = time.monotonic()
    docker("stop", name)
    seconds = time.monotonic() - start
    code = docker("inspect", "--format", "{{.State.ExitCode}}", name).stdout.strip()
    docker("rm", name)
    step, status = last_step(journal), json.loads((runs / "quickstart" / "run.json").read_text()).get("status")
    limit = ["--trainer.max_steps", str(step + 3), "--ckpt_path", "last"]
    again = docker("run", "--rm", *mount, IMAGE, *FIT, *limit)
    next_step = min((int(row["step"]) for row in steps_of(journal) if row["step"] > step), default=0)
    good = (code, status, again.returncode, next_step) == ("143", "KILLED", 0, step + 1)
    text = (
        f"exit {code} after {seconds:.1f} s, {status} at step {step}; resumed at {next_step}, exit {again.returncode}"
    )
    return [("docker stop, then --ckpt_path last", text, good and seconds <= STOP_S)]


def last_step(journal: Path) -> int:
    """The last training step in a run's metrics."""
    return int(max((row["step"] for row in steps_of(journal)), default=0)) if journal.exists() else 0


def wait_for(condition: Callable[[], bool], seconds: float) -> None:
    """Return when ``condition`` holds."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise SystemExit(f"nothing after {seconds:.0f} s")
        time.sleep(0.5)


def moved(work: Path) -> list[Row]:
    """The run of the first line, opened on the host from another folder."""
    from jqlight.tracking.journal import read_record
    from jqlight.tracking.mlflow import open_store, recorded_store

    there = work / "moved"
    shutil.copytree(work / "as_it_stands", there)
    run = there / "quickstart"
    client = open_store(recorded_store(run))
    names = [entry.path for entry in client.list_artifacts(read_record(run)["run_id"])]
    return [("opened on the host, moved", f"artifacts: {', '.join(names)}", {"config.yaml", "samples"} <= set(names))]


def compose(work: Path) -> list[Row]:
    """A run that logs to the server of compose.yaml; the server is away in the middle."""
    shutil.copy(ROOT / "compose.yaml", work)
    command = ["docker", "compose"] if docker("compose", "version").returncode == 0 else ["docker-compose"]

    def services(*words: str) -> "subprocess.CompletedProcess[str]":
        return call(*command, *words, cwd=work)

    try:
        services("up", "--detach", "mlflow")
        wait_for(lambda: answers("http://127.0.0.1:5000/health"), 300)
        options = ["--trainer.max_steps", "30", "--run_dir", "runs/served"]
        training = subprocess.Popen([*command, "run", "--rm", "-T", "jqlight", *FIT, *options], cwd=work)
        journal = work / "runs" / "served" / "metrics.jsonl"
        wait_for(lambda: last_step(journal) >= 3, 600)
        services("kill", "mlflow")
        code = training.wait(600)
        services("up", "--detach", "mlflow")
        wait_for(lambda: answers("http://127.0.0.1:5000/health"), 300)
        synced = services("run", "--rm", "-T", "jqlight", "sync", "runs/served")
        steps = metric_steps("http://127.0.0.1:5000", json.loads((journal.parent / "run.json").read_text())["run_id"])
    finally:
        services("down", "--volumes")
    good = code == 0 and synced.returncode == 0 and steps == list(range(1, 31))
    return [("compose, server killed, jqlight sync", f"exit {code}, {len(steps)} of 30 steps in MLflow", good)]


def answers(url: str) -> bool:
    """Whether a server answers there."""
    try:
        with urllib.request.urlopen(url, timeout=3):
            return True
    except OSError:
        return False


def metric_steps(server: str, run_id: str) -> list[int]:
    """The training steps that MLflow knows of a run."""
    from jqlight.tracking.mlflow import open_store

    history = open_store(server).get_metric_history(run_id, STEP_METRIC)
    return sorted({metric.step for metric in history})


def main() -> int:
    """Build, try, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--no-build", action="store_true", help="use the image that is there")
    parser.add_argument("--compose", action="store_true", help="also run the services of compose.yaml")
    parser.add_argument("--steps", type=int, default=40, help="of the run that is timed (default: 40)")
    options = parser.parse_args()
    rows: list[Row] = []
    if not options.no_build:
        ensure(BASE)
        rows.append(build("cpu", IMAGE))
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        work.chmod(0o755)
        shutil.copytree(ROOT / "conf", work / "conf")
        rows += contents() + flags(work, options.steps) + against_host(work, options.steps)
        rows += refusal(work) + stopped(work) + moved(work)
        if options.compose:
            ensure("postgres:17-bookworm")
            if not options.no_build:
                rows.append(build("mlflow", "jqlight-mlflow"))
            rows += compose(work)
    print("\n| tried | came out | |\n|---|---|---|")
    for name, text, good in rows:
        print(f"| {name} | {text} | {'as promised' if good else 'NOT as promised'} |")
    return int(not all(good for *_, good in rows))


if __name__ == "__main__":
    raise SystemExit(main())
