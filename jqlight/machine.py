"""What this process has: memory, cores and threads, versions of packages, a checkout's commit."""

import os
import subprocess
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil
import torch

GIB = 1 << 30
"""Bytes."""
PARAMETERS_PER_THREAD = 10_000_000
"""A model's parameters that are worth one thread more. With less to do, threads mostly wait for each other: on two
cores that others use as well the quickstart's 0.4 M parameters take 0.4 s a step with one thread and 6 s with two."""

_CGROUPS = Path("/sys/fs/cgroup")
_OWN_CGROUPS = Path("/proc/self/cgroup")
_UNLIMITED = 1 << 60
"""What version 1 says, about, where there is no limit to memory."""
_DEFAULT_THREADS = torch.get_num_threads()


def usual_device() -> torch.device:
    """The current GPU where torch can use one, else the CPU: for what runs without a trainer."""
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


def free_memory(device: torch.device) -> int:
    """Free bytes of a GPU, or of main memory for a CPU.

    What torch holds of a GPU's memory without using it counts as taken; see ``torch.cuda.memory_reserved``. Of main
    memory a container has what its limit leaves.
    """
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    free = int(psutil.virtual_memory().available)
    texts = [*_limits("", "memory.max"), *_limits("memory", "memory.limit_in_bytes")]
    limits = [int(text) for text in texts if text.isdigit() and int(text) < _UNLIMITED]
    return max(0, min([free, *(limit - psutil.Process().memory_info().rss for limit in limits)]))


def usable_cores() -> int:
    """Processor cores that this process may use, at least 1: those it may run on, or its container's limit."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = [text.split() for text in _limits("", "cpu.max")]
    periods = _limits("cpu", "cpu.cfs_period_us")
    quotas += [[quota, period] for quota, period in zip(_limits("cpu", "cpu.cfs_quota_us"), periods, strict=False)]
    limits = [int(quota) // int(period) for quota, period in quotas if quota.isdigit()]  # "max" and -1 are no limit
    return max(1, min([cores, *limits]))


def limit_threads(parameters: int) -> None:
    """Let torch use no more threads than there are cores, and than a model of so many parameters has work for.

    A user's own number stays: OMP_NUM_THREADS, MKL_NUM_THREADS, or ``torch.set_num_threads`` called before.
    """
    own = (
        torch.get_num_threads() != _DEFAULT_THREADS
        or "OMP_NUM_THREADS" in os.environ
        or "MKL_NUM_THREADS" in os.environ
    )
    wanted = min(usable_cores(), 1 + parameters // PARAMETERS_PER_THREAD)
    if not own and wanted < _DEFAULT_THREADS:
        torch.set_num_threads(wanted)


def _limits(controller: str, file: str) -> Iterator[str]:
    """What ``file`` says in the control groups of this process, innermost first; ``controller`` is "" in version 2."""
    try:
        lines = _OWN_CGROUPS.read_text().splitlines()
    except OSError:  # not Linux
        return
    for _, controllers, path in (line.split(":", 2) for line in lines):
        if controller not in controllers.split(","):
            continue
        # Inside a container the path is the host's, and the container's group is the root.
        group = (_CGROUPS / controller / path.lstrip("/")).resolve()
        for folder in (group, *group.parents):
            if folder.is_relative_to(_CGROUPS) and (folder / file).is_file():
                yield (folder / file).read_text().strip()


def installed(package: str) -> str | None:
    """Version of a package; None when it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def git_commit(folder: Path) -> str | None:
    """Commit of the checkout whose root ``folder`` is; None when it is none."""
    if not (folder / ".git").exists():
        return None
    try:
        command = ["git", "-C", str(folder), "rev-parse", "HEAD"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
