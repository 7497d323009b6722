"""From the command to the first training step of the quickstart, in phases: `make bench-startup`.

The phases are those that the run itself prints; the first step is timed from outside, by the line that reports it.
``cold`` runs follow a request to the kernel to drop the cached pages of the environment's files. Pages that another
process has mapped stay, so ``dropped_mib`` says how cold it was.
"""

import argparse
import os
import re
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path
from typing import Any

from perf.common import Meter, record, wait_quiet

CONFIG = Path("conf/quickstart.yaml").resolve()
PHASE = re.compile(r"([a-z][a-z ]*) ([0-9.]+)(?:,|$)")


def start(folder: str) -> dict[str, Any]:
    """Seconds of one start, in phases."""
    command = [sys.executable, "-m", "jqlight", "fit", "--config", str(CONFIG), "--trainer.max_steps", "1"]
    environment = {**os.environ, "PYTHONPATH": str(CONFIG.parent.parent), "PYTHONUNBUFFERED": "1"}
    meter, began = Meter(), time.perf_counter()
    phases: dict[str, float] = {}
    first_step = 0.0
    with subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None, "opened as a pipe"
        lines = []
        for line in child.stdout:
            lines.append(line)
            if line.startswith("start-up "):
                phases = {name: float(s) for name, s in PHASE.findall(line.split(": ", 1)[1].strip())}
            elif phases and not first_step:
                first_step = time.perf_counter() - began
    if child.returncode or not first_step:
        raise RuntimeError(f"{' '.join(command)} ended with {child.returncode}:\n{''.join(lines)}")
    foreign = meter.stop().foreign  # the child's own work counts as foreign here
    return {"to_first_step": first_step, "phases": phases, "all": time.perf_counter() - began, "cores": foreign}


def drop_cached() -> float:
    """Drop the cached pages of the environment's files; MiB that went."""
    before = _cached_mib()
    for path in Path(sysconfig.get_path("purelib")).rglob("*"):
        if path.is_file() and not path.is_symlink():
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return before - _cached_mib()


def _cached_mib() -> float:
    fields = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    return int(fields["Cached"].split()[0]) / 1024


def summary(starts: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians of several starts."""
    names = starts[0]["phases"]
    return {
        "to_first_step": statistics.median(one["to_first_step"] for one in starts),
        "phases": {name: statistics.median(one["phases"].get(name, 0.0) for one in starts) for name in names},
        "all": [one["to_first_step"] for one in starts],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="start of the quickstart in phases")
    parser.add_argument("--repetitions", type=int, default=3)
    options = parser.parse_args()
    cold, warm, dropped = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(options.repetitions):
            dropped.append(drop_cached())
            wait_quiet()
            cold.append(start(folder))
            wait_quiet()
            warm.append(start(folder))
    record("startup", warm=summary(warm), cold={**summary(cold), "dropped_mib": statistics.median(dropped)})


if __name__ == "__main__":
    main()
