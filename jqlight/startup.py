"""How long each phase of a start took, from the start of the process to the first training step."""

import os
import time
from pathlib import Path


class Phases:
    """Seconds of consecutive phases; a phase ends where it is marked.

    Attributes:
        seconds: phase -> seconds, in order; a phase marked twice adds up.
    """

    def __init__(self, start: float) -> None:
        self.start = start
        self.seconds: dict[str, float] = {}
        self._last = start

    def mark(self, phase: str) -> None:
        """End ``phase``: everything since the previous mark belongs to it."""
        now = time.time()
        self.seconds[phase] = self.seconds.get(phase, 0.0) + now - self._last
        self._last = now

    def restart(self) -> None:
        """Forget all phases and begin at this moment, for a second run in the same process."""
        self.start = self._last = time.time()
        self.seconds.clear()

    def line(self) -> str:
        """For example ``start-up 14.2 s: imports 8.1, data 0.1, engine 4.3, model 0.4``."""
        parts = ", ".join(f"{phase} {seconds:.1f}" for phase, seconds in self.seconds.items())
        return f"start-up {self._last - self.start:.1f} s: {parts}"


def _process_start() -> float:
    """Unix time at which this process began where the kernel tells, else now."""
    try:
        fields = Path("/proc/self/stat").read_text().rsplit(")", 1)[1].split()
        uptime = float(Path("/proc/uptime").read_text().split()[0])
        return time.time() - (uptime - int(fields[19]) / os.sysconf("SC_CLK_TCK"))
    except (OSError, ValueError, IndexError):
        return time.time()


phases = Phases(_process_start())
"""The phases of this process."""


def mark(phase: str) -> None:
    """End ``phase`` of this process's start."""
    phases.mark(phase)
