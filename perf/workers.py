"""Two trainers in turn: each runs in a process of its own and takes one step per command."""

import json
import os
import subprocess
import sys
from typing import Any

from perf.common import Meter, reset_peak, resident_mib, timed


class WorkerClient:
    """The parent's connection to one trainer."""

    def __init__(self, module: str, *arguments: str) -> None:
        process = [sys.executable, "-m", module, *arguments]
        self._child = subprocess.Popen(process, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.ready = self._receive()

    def step(self) -> dict[str, Any]:
        """One step of the trainer: its seconds, foreign cores, split, peak memory and checks."""
        self._send("step")
        return self._receive()

    def close(self) -> None:
        """End the process."""
        self._send("stop")
        self._child.wait(timeout=60)

    def _send(self, command: str) -> None:
        assert self._child.stdin is not None, "opened as a pipe"
        self._child.stdin.write(command + "\n")
        self._child.stdin.flush()

    def _receive(self) -> dict[str, Any]:
        assert self._child.stdout is not None, "opened as a pipe"
        line = self._child.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._child.args} ended with {self._child.wait()}; its message is above")
        return json.loads(line)


class WorkerLoop:
    """The trainer's connection to the parent: `pause`, called before every step, returns on the parent's command.

    A step is all that happens from one pause to the next, the trainer's own loop included.

    Attributes:
        seconds: phase -> seconds of the current step, filled by clocks set with `watch`.
        facts: further values of the step to report.
    """

    def __init__(self) -> None:
        # Libraries print to stdout too: keep the pipe for answers and send the rest to stderr.
        self._out = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)
        self.seconds: dict[str, float] = {}
        self.facts: dict[str, Any] = {}
        self._meter: Meter | None = None
        self._level = 0.0

    def watch(self, owner: object, name: str, key: Any) -> None:
        """Add the time spent in the method ``name`` of ``owner`` to a phase."""
        timed(owner, name, self.seconds, key)

    def pause(self) -> None:
        """Report the step that has ended, if any, and wait for the next."""
        if self._meter is None:
            self._level = resident_mib()
            answer: dict[str, Any] = {"resident_mib": self._level}
        else:
            timing, peak = self._meter.stop(), resident_mib(peak=True)
            memory = {"peak_mib": peak, "step_mib": peak - self._level}
            answer = {**timing._asdict(), "split": dict(self.seconds), **memory, **self.facts}
        self._out.write(json.dumps(answer) + "\n")
        self._out.flush()
        if sys.stdin.readline().strip() != "step":
            os._exit(0)  # no trainer's clean-up is of interest
        self.seconds.clear()
        self.facts.clear()
        reset_peak()
        self._meter = Meter()
