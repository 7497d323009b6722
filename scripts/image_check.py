"""Builds the CPU image, runs what docs/howto/containers.md promises of it, and prints a table; 1 where a line fails.

    python scripts/image_check.py                  # or make image-check, which has --compose too
    python scripts/image_check.py --no-build       # with the images that are there

It takes a Docker engine of 20.10 or later. Where the base image cannot be pulled, scripts/stand_in_images.sh makes one
of Debian's packages (as root). JQLIGHT_BUILD_OPTIONS holds words for `docker build`, such as a secret with settings of
pip. With --compose the services of compose.yaml run too, and port 5000 must be free.
"""

import argparse
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path

from compose_check import POSTGRES, compose_rows
from docker_tools import (
    BASE,
    FIT,
    IMAGE,
    ROOT,
    RUNS,
    Done,
    Row,
    build,
    build_options,
    call,
    commit,
    docker,
    ensure,
    give,
    last_step,
    record,
    steps_of,
    wait_for,
)
from screenshot_mlflow import stop as stop_server

LARGEST_GB, SLOWEST_RATIO, REFUSAL_S, STOP_S = 3.5, 1.3, 1.0, 10.0
TURNS, TURN_STEPS = 6, 5
NOISE = re.compile(
    r"traceback|mempolicy|matplotlib|error saving|warn|not writable|permission|vllm|torch", re.IGNORECASE
)
USER, OTHER = 4321, 12345
"""Users of the host that no container knows."""
PORT = 5017
THREADS = """
import sys, torch
from jqlight.machine import limit_threads
limit_threads(int(sys.argv[1]))
print(torch.get_num_threads())
"""


def contents() -> list[Row]:
    """Size, what Debian's packages are in it, labels."""
    size = int(docker("image", "inspect", "--format", "{{.Size}}", IMAGE).stdout) / 1e9
    tools = _inside("sh", "-c", "for t in gcc g++ cc make git nvcc; do command -v $t; done").split()
    listed = ["dpkg-query", "--show", "--showformat", "${Package}\n"]
    added = set(_inside(*listed).split()) - set(_inside(*listed, image=BASE).split())
    wanted = {"libnuma1", "tini"}
    labels = json.loads(docker("image", "inspect", "--format", "{{json .Config.Labels}}", IMAGE).stdout)
    revision = labels.get("org.opencontainers.image.revision", "")
    return [
        ("size", f"{size:.2f} GB", size <= LARGEST_GB),
        ("compilers, make, git", ", ".join(tools) or "none", not tools),
        ("Debian's packages beyond the base's", ", ".join(sorted(added)), added == wanted),
        ("label of the revision", revision[:7], revision == commit()),
    ]


def _inside(*words: str, image: str = IMAGE, options: tuple[str, ...] = ()) -> str:
    return docker("run", "--rm", *options, "--entrypoint", words[0], image, *words[1:]).stdout


def threads() -> list[Row]:
    """Threads of torch by the model's parameters, the container's cores, and the user's own number."""
    cores = len(os.sched_getaffinity(0))
    cases = {
        ("0.4 M parameters", "400000", ()): 1,
        ("1 G parameters", "1000000000", ()): cores,
        ("1 G parameters, --cpus 1", "1000000000", ("--cpus", "1")): 1,
        ("0.4 M parameters, -e OMP_NUM_THREADS=2", "400000", ("-e", "OMP_NUM_THREADS=2")): 2,
    }
    rows = []
    for (name, parameters, options), wanted in cases.items():
        used = _inside("python", "-c", THREADS, parameters, options=options).strip()
        rows.append((f"threads, {name}", f"{used} on {cores} cores", used == str(wanted)))
    return rows


def fit(runs: Path, options: list[str], steps: int, *words: str) -> Done:
    """The documented line, shortened to ``steps``."""
    short = ["--trainer.max_steps", str(steps), "--trainer.val_check_interval", str(steps)]
    return docker("run", "--rm", *options, "-v", f"{runs}:{RUNS}", IMAGE, *FIT, *short, *words)


def flags(work: Path) -> list[Row]:
    """The documented line as it stands, on folders of several owners, and with the flags that people add."""
    limited = ["--user", f"{OTHER}:{OTHER}", "--read-only", "--tmpfs", "/tmp", "--network", "none"]
    cases = {
        "as it stands, no folder there": ([], None, 1000),
        "as it stands, a folder of the host's user": ([], USER, USER),
        f"no folder there, -e JQLIGHT_USER={USER}:{USER}": (["-e", f"JQLIGHT_USER={USER}:{USER}"], None, USER),
        "all of the following": ([*limited, "--memory", "2g", "--cpus", "1"], OTHER, OTHER),
        f"--user {OTHER}:{OTHER}": (["--user", f"{OTHER}:{OTHER}"], OTHER, OTHER),
        "--read-only --tmpfs /tmp": (["--read-only", "--tmpfs", "/tmp"], None, 1000),
        "--network none": (["--network", "none"], None, 1000),
        "--memory 2g": (["--memory", "2g"], None, 1000),
        "--cpus 1": (["--cpus", "1"], None, 1000),
    }
    rows = []
    for number, (name, (options, owner, wanted)) in enumerate(cases.items()):
        runs = work / f"flags{number}"
        if owner:
            runs.mkdir()
            give(runs, owner)
        done = fit(runs, options, 4)
        strange = [line for line in done.stdout.splitlines() if NOISE.search(line)]
        owners = {path.stat().st_uid for path in runs.rglob("*")}
        text = f"exit {done.returncode}, files of user {', '.join(map(str, owners))}, {len(strange)} strange lines"
        rows.append((f"docker run, {name}", text, done.returncode == 0 and not strange and owners == {wanted}))
        if not rows[-1][2]:
            print(done.stdout[-3000:], flush=True)
        if number == 0:
            rows.append(moved(work, runs))
    return rows


def against_host(work: Path) -> list[Row]:
    """Time of a step beside the host's: both runs at once, each stopped while the other goes on, in turns."""
    name, runs, host = f"jqlight-timed-{os.getpid()}", work / "timed", work / "runs" / "host"
    endless = [*FIT, "--trainer.max_steps", "100000", "--trainer.val_check_interval", "100000"]
    journals = {"there": runs / "quickstart" / "metrics.jsonl", "here": host / "metrics.jsonl"}
    docker("run", "--rm", "--detach", "--name", name, "-v", f"{runs}:{RUNS}", IMAGE, *endless)
    try:
        wait_for(lambda: last_step(journals["there"]) >= 2, 600)
        docker("pause", name)
        with _on_host([*endless, "--run_dir", str(host)], work) as process:
            wait_for(lambda: last_step(journals["here"]) >= 2 or process.poll() is not None, 600)
            if process.poll() is not None:
                return [("step beside the host's", "the host has no vLLM to compare with", True)]
            os.killpg(process.pid, signal.SIGSTOP)
            turns = {
                "there": (lambda: docker("unpause", name), lambda: docker("pause", name)),
                "here": (
                    lambda: os.killpg(process.pid, signal.SIGCONT),
                    lambda: os.killpg(process.pid, signal.SIGSTOP),
                ),
            }
            spans: dict[str, list[tuple[float, float]]] = {"there": [], "here": []}
            load = os.getloadavg()[0]
            for side in ("there", "here") * TURNS:
                start, stop = turns[side]
                done = last_step(journals[side])
                start()
                begin = time.time()
                wait_for(lambda side=side, done=done: last_step(journals[side]) >= done + TURN_STEPS, 300)
                spans[side].append((begin, time.time()))
                stop()
    finally:
        docker("unpause", name)
        docker("kill", name)
    medians = {side: [_median_step(journals[side], span) for span in spans[side]] for side in spans}
    ratios = [there / here for there, here in zip(medians["there"], medians["here"], strict=True)]
    there, here, ratio = (statistics.median(values) for values in (medians["there"], medians["here"], ratios))
    text = f"{there:.2f} s and {here:.2f} s, {ratio:.2f} times (median of {TURNS} turns of {TURN_STEPS} steps: "
    text += f"{min(ratios):.2f} to {max(ratios):.2f}); load {load:.0f}"
    return [("step beside the host's", text, ratio <= SLOWEST_RATIO)]


@contextmanager
def _on_host(words: list[str], work: Path) -> Iterator["subprocess.Popen[str]"]:
    """jqlight on the host, with threads as it chooses them itself, ended with the block."""
    environment = {key: value for key, value in os.environ.items() if key not in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    with (work / "host.log").open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "jqlight", *words],
            cwd=work, env=environment, stdout=output, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        )  # fmt: skip
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _median_step(journal: Path, span: tuple[float, float]) -> float:
    """Median seconds between two steps that both fell in ``span``."""
    times = [row["time"] for row in steps_of(journal) if span[0] <= row["time"] <= span[1]]
    return statistics.median(after - before for before, after in pairwise(times))


def refusal(work: Path) -> list[Row]:
    """A folder that cannot be written: one sentence, before an engine starts."""
    locked = work / "locked"
    locked.mkdir(mode=0o755)
    give(locked, USER)
    rows, load = [], os.getloadavg()[0]
    for name, options, mode in (("--user 12345", ["--user", "12345:12345"], ""), ("a read-only mount", [], ":ro")):
        mounted = [*options, "-v", f"{locked}:{RUNS}{mode}"]
        tries, empty = [], []
        for _ in range(3):
            empty.append(_seconds(lambda: _inside("true")))
            start = time.monotonic()
            done = docker("run", "--rm", *mounted, IMAGE, *FIT)
            tries.append(time.monotonic() - start)
        seconds, lines = statistics.median(tries), len(done.stdout.strip().splitlines())
        text = f"exit {done.returncode}, {lines} line, {seconds:.1f} s, of which an empty container takes "
        text += f"{statistics.median(empty):.1f} s (medians of 3, load {load:.0f})"
        good = done.returncode == 2 and lines == 1 and seconds <= REFUSAL_S
        rows.append((f"no right to write, {name}", text, good))
    return rows


def _seconds(work: Callable[[], object]) -> float:
    start = time.monotonic()
    work()
    return time.monotonic() - start


def stopped(work: Path) -> list[Row]:
    """``docker stop`` in the middle; ``docker start`` of the same container, then another run, go on from there."""
    from jqlight.tracking.mlflow import open_store, recorded_store

    runs, name = work / "stopped", f"jqlight-stopped-{os.getpid()}"
    mount, journal = ["-v", f"{runs}:{RUNS}"], runs / "quickstart" / "metrics.jsonl"
    begun = docker("run", "--detach", "--name", name, *mount, IMAGE, *FIT, "--ckpt_path", "last")
    if begun.returncode:
        return [("docker stop", f"no container: {begun.stdout.strip()[-200:]}", False)]
    rows = []
    for begun in ("docker run", "docker start"):
        before = last_step(journal)
        wait_for(lambda before=before: last_step(journal) >= before + 4, 600)
        start = time.monotonic()
        docker("stop", name)
        seconds = time.monotonic() - start
        code = docker("inspect", "--format", "{{.State.ExitCode}}", name).stdout.strip()
        copy = work / f"copy of {begun}"
        shutil.copytree(runs, copy)
        noted = record(copy / "quickstart")
        status = open_store(recorded_store(copy / "quickstart")).get_run(noted["run_id"]).info.status
        text = f"exit {code} after {seconds:.1f} s, {status} at step {last_step(journal)}"
        rows.append((f"docker stop after {begun}", text, (code, status, seconds <= STOP_S) == ("143", "KILLED", True)))
        if begun == "docker run":
            docker("start", name)
    docker("rm", name)
    step = last_step(journal)
    again = docker("run", "--rm", *mount, IMAGE, *FIT, "--ckpt_path", "last", "--trainer.max_steps", str(step + 3))
    done = [int(row["step"]) for row in steps_of(journal)]
    good = again.returncode == 0 and done == list(range(1, step + 4))
    return [
        *rows,
        ("docker run --ckpt_path last", f"exit {again.returncode}, steps {done[0]} to {done[-1]}, each once", good),
    ]


def moved(work: Path, runs: Path) -> Row:
    """A run of the container in another folder of the host: all that its store lists comes from `jqlight ui`."""
    from jqlight.tracking.mlflow import open_store, recorded_store

    there = work / "moved" / "elsewhere"
    shutil.copytree(runs, there)
    run = there / "quickstart"
    command = [sys.executable, "-m", "jqlight", "ui", str(run), "--port", str(PORT)]
    with (work / "ui.log").open("w") as output:
        server = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            wait_for(lambda: _body(f"http://127.0.0.1:{PORT}/health") is not None, 120)
            client, run_id = open_store(recorded_store(run)), record(run)["run_id"]
            folders, files = [""], []
            while folders:
                for entry in client.list_artifacts(run_id, folders.pop()):
                    (folders if entry.is_dir else files).append(entry.path)
            url = f"http://127.0.0.1:{PORT}/get-artifact?run_uuid={run_id}&path="
            opened = [path for path in files if _body(url + path)]
        finally:
            stop_server(server)
    good = len(files) == len(opened) and {"config.yaml"} <= set(files)
    return "moved to another folder, opened with jqlight ui", f"{len(opened)} of {len(files)} artifacts open", good


def _body(url: str) -> bytes | None:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.read()
    except OSError:
        return None


def static() -> list[Row]:
    """The Dockerfile by hadolint, and the packages of the gpu target, which is not built here."""
    lint = call("hadolint", str(ROOT / "Dockerfile")) if shutil.which("hadolint") else None
    found = f"{len(lint.stdout.splitlines())} findings" if lint else "not run: no hadolint on PATH"
    docker("build", "--target", "wheel", "--tag", "jqlight-wheel", *build_options(), str(ROOT))
    secret = re.search(r"id=pip,src=(\S+)", " ".join(build_options()))
    options = ["-v", f"{secret[1]}:/etc/pip.conf:ro"] if secret else []
    done = docker(
        "run", "--rm", "--network", "host", *options, "jqlight-wheel", "sh", "-c",
        "wheel=$(echo /wheel/*.whl) && pip install --dry-run --quiet --report - \"${wheel}[gpu,lora]\"",
    )  # fmt: skip
    plan = {} if done.returncode else json.loads(done.stdout[done.stdout.index("{") :])
    chosen = {item["metadata"]["name"]: item["metadata"]["version"] for item in plan.get("install", [])}
    text = f"{len(chosen)} packages, torch {chosen.get('torch')}, vllm {chosen.get('vllm')}; not built"
    return [
        ("hadolint", found, lint is None or lint.returncode == 0),
        ("gpu target, pip's resolution", text, {"torch", "vllm"} <= set(chosen)),
    ]


def main() -> int:
    """Build, try, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--no-build", action="store_true", help="use the images that are there")
    parser.add_argument("--compose", action="store_true", help="also run the services of compose.yaml")
    parser.add_argument("--only", help="only these checks, by the names of their functions and commas")
    parser.add_argument("--pictures", type=Path, help="with --compose: path of pictures of MLflow's pages")
    options = parser.parse_args()
    rows: list[Row] = []
    if not options.no_build:
        ensure(BASE)
        rows.append(build("cpu", IMAGE))
        if options.compose:
            ensure(POSTGRES)
            rows.append(build("mlflow", f"{IMAGE}-mlflow"))
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        work.chmod(0o755)
        shutil.copytree(ROOT / "conf", work / "conf")
        checks: dict[str, Callable[[], list[Row]]] = {
            "static": static,
            "contents": contents,
            "threads": threads,
            "flags": lambda: flags(work),
            "refusal": lambda: refusal(work),
            "against_host": lambda: against_host(work),
            "stopped": lambda: stopped(work),
        }
        if options.compose:
            checks["compose"] = lambda: compose_rows(work / "served", options.pictures)
        try:
            for name in options.only.split(",") if options.only else checks:
                found = checks[name]()
                rows += found
                print(*found, sep="\n", flush=True)
        finally:
            give(work, os.getuid())
    print("\n| tried | came out | |\n|---|---|---|")
    for name, text, good in rows:
        print(f"| {name} | {text} | {'as promised' if good else 'NOT as promised'} |")
    return int(not all(good for *_, good in rows))


if __name__ == "__main__":
    raise SystemExit(main())
