"""How far a point has come, read from the metrics file that its run writes."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jqlight.names import k_of_majority


@dataclass
class Progress:
    """The newest figures of one run; call :meth:`update` to read what was added to its metrics file."""

    metrics: Path
    """One JSON object a line: ``step``, ``time`` (Unix seconds) and the metrics logged at that step."""
    step: int = 0
    """Optimizer steps done."""
    first: tuple[int, float] | None = None
    """Step and time of the first line that this process wrote."""
    newest: tuple[int, float] | None = None
    """Step and time of its last line."""
    success: float | None = None
    """Newest ``train/success``, the mean probability of the gold answer."""
    majority: float | None = None
    """Newest ``val/maj_at_k``, a share of the validation questions."""
    _offset: int = field(default=0, repr=False)

    def skip_existing(self) -> None:
        """Read what an earlier process left, without counting it as progress of this one."""
        self.update()
        self.first = self.newest = None

    def update(self) -> None:
        """Read the lines that were added; a line still being written is left for the next call."""
        try:
            with self.metrics.open("rb") as file:
                file.seek(self._offset)
                added = file.read()
        except FileNotFoundError:
            return
        complete = added[: added.rfind(b"\n") + 1]
        self._offset += len(complete)
        for line in complete.splitlines():
            self._take(line)

    def seconds_left(self, max_steps: int | None) -> float | None:
        """Seconds from the newest line until ``max_steps`` at the pace so far; None while there is no pace to go by.

        Args:
            max_steps: optimizer steps of the whole run; None or 0 when it is not known.
        """
        if not max_steps or self.first is None or self.newest is None or self.newest[0] <= self.first[0]:
            return None
        pace = (self.newest[1] - self.first[1]) / (self.newest[0] - self.first[0])
        return max(0, max_steps - self.newest[0]) * pace

    def _take(self, line: bytes) -> None:
        try:
            row: Any = json.loads(line)
        except ValueError:
            return  # no text, or a line cut off by a killed process, followed by those of the resumed one
        if not isinstance(row, dict) or not isinstance(row.get("step"), int):
            return
        if any(key.startswith("test/") for key in row):
            return  # scores of the best checkpoint, which is older than the newest step
        self.step = row["step"]
        self.newest = (self.step, float(row.get("time", 0.0)))
        self.first = self.first or self.newest
        self.success = row.get("train/success", self.success)
        for key, value in row.items():
            if key.startswith("val/maj") and k_of_majority(key):
                self.majority = value
