"""What image_check.py and compose_check.py share: commands and their outcome, images, and runs as they grow."""

import json
import os
import shlex
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[1]
BASE = "python:3.11-slim-bookworm"
IMAGE = "jqlight"
RUNS = "/home/jqlight/runs"
FIT = ["fit", "--config", "conf/quickstart.yaml"]
STEP_METRIC = "time/sample"

Row = tuple[str, str, bool]
"""What was tried, what came out, whether that is what is promised."""
Done = subprocess.CompletedProcess[str]


def call(*words: str, seconds: float = 1800, **options: object) -> Done:
    """A command's outcome, with what it printed to both streams as one text."""
    environment = {**os.environ, "DOCKER_BUILDKIT": "1"}
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.run(words, env=environment, text=True, timeout=seconds, check=False, **streams, **options)


def docker(*words: str, **options: object) -> Done:
    """A docker command's outcome."""
    return call("docker", *words, **options)


def ensure(image: str) -> None:
    """Pull an image, or make a stand-in for it."""
    if docker("image", "inspect", image).returncode and docker("pull", image).returncode:
        done = call(str(ROOT / "scripts" / "stand_in_images.sh"), image)
        if done.returncode:
            raise SystemExit(f"{image} can neither be pulled nor made:\n{done.stdout[-2000:]}")


def commit() -> str:
    """The checkout's commit."""
    return call("git", "-C", str(ROOT), "rev-parse", "HEAD").stdout.strip()


def build(target: str, tag: str) -> Row:
    """Build a target of the Dockerfile."""
    created = time.strftime("CREATED=%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    labels = ["--build-arg", f"REVISION={commit()}", "--build-arg", created]
    start = time.monotonic()
    done = docker("build", "--target", target, "--tag", tag, *labels, *build_options(), str(ROOT))
    if done.returncode:
        raise SystemExit(done.stdout[-4000:])
    return f"docker build --target {target}", f"{time.monotonic() - start:.0f} s", True


def build_options() -> list[str]:
    """Further words of the user's for `docker build`."""
    return shlex.split(os.environ.get("JQLIGHT_BUILD_OPTIONS", ""))


def give(path: Path, owner: int) -> None:
    """Make ``owner`` the user and group of all that is in a folder; only the engine may do that."""
    docker("run", "--rm", "-v", f"{path}:/given", "--entrypoint", "chown", IMAGE, "-hR", f"{owner}:{owner}", "/given")


def steps_of(journal: Path) -> list[dict[str, float]]:
    """The lines of training steps in a run's metrics; empty where there are none yet."""
    if not journal.exists():
        return []
    rows = [json.loads(line) for line in journal.read_text().splitlines() if line.endswith("}")]
    return [row for row in rows if STEP_METRIC in row]


def last_step(journal: Path) -> int:
    """The last training step in a run's metrics."""
    return int(max((row["step"] for row in steps_of(journal)), default=0))


def record(run: Path) -> dict[str, str]:
    """What a run noted of itself."""
    return json.loads((run / "run.json").read_text())


def wait_for(condition: Callable[[], bool], seconds: float) -> None:
    """Return when ``condition`` holds."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise SystemExit(f"nothing after {seconds:.0f} s")
        time.sleep(0.5)
