"""Where points run: the protocol, and processes on this machine."""

import os
import signal
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class Command:
    """What to run for one point."""

    argv: tuple[str, ...]
    environment: Mapping[str, str]
    """Variables on top of the launcher's own environment."""
    log: Path
    """File to which everything that the process prints is appended."""


class Job(Protocol):
    """A point that has been started."""

    def poll(self) -> int | None:
        """Exit code; None while it runs or is queued. Negative: ended by that signal."""

    def stop(self) -> None:
        """Ask it to end; a checkpoint that is being written is completed."""

    def kill(self) -> None:
        """End it at once."""


class Launcher(Protocol):
    """Starts points, on this machine or elsewhere."""

    def start(self, command: Command) -> Job:
        """Start one point and return at once."""

    def close(self) -> None:
        """Release what the launcher holds, after the last point."""


class LocalLauncher:
    """Starts points as processes of this machine, each in a process group of its own.

    Args:
        lock: file descriptor that every process inherits, so that the sweep's lock outlives a killed sweep.
        devices: GPU ids to give to the points in turn, one each; empty leaves the choice to the points.
    """

    def __init__(self, lock: int, devices: tuple[str, ...] = ()) -> None:
        self._lock = lock
        self._devices = devices
        self._taken: dict[str, _LocalJob] = {}

    def start(self, command: Command) -> "_LocalJob":
        """Start a process; its GPU is one that no running point of this launcher holds."""
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", **command.environment}
        free = [
            device for device in self._devices if device not in self._taken or self._taken[device].poll() is not None
        ]
        if free:
            environment["CUDA_VISIBLE_DEVICES"] = free[0]
        with command.log.open("ab") as log:
            process = subprocess.Popen(
                command.argv,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=(self._lock,) if os.name == "posix" else (),
            )
        job = _LocalJob(process)
        if free:
            self._taken[free[0]] = job
        return job

    def close(self) -> None:
        """Nothing to release."""


class _LocalJob:
    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self._process = process

    def poll(self) -> int | None:
        return self._process.poll()

    def stop(self) -> None:
        signal_group(self._process, signal.SIGTERM)

    def kill(self) -> None:
        signal_group(self._process, getattr(signal, "SIGKILL", signal.SIGTERM))


def signal_group(process: "subprocess.Popen[bytes]", number: int) -> None:
    """Send a signal to a process and its children (on Windows: end the process)."""
    if os.name != "posix":
        process.terminate()
        return
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        return  # it ended by itself in the meantime
