"""What a history of steps says: the escape from a cold start, a collapse after it, and a run that does not learn."""

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

THRESHOLD = 0.1
"""Running success (a probability) at which a run counts as escaped."""
WINDOW = 5
"""Optimizer steps in the running mean."""


def escape_step(success: Iterable[tuple[int, float]]) -> int | None:
    """First step at which the running mean of ``train/success`` reaches the threshold; None if it never does.

    Args:
        success: (step, success) by step.
    """
    monitor = EscapeMonitor()
    for step, value in success:
        monitor.update(step, value)
    return monitor.escape_step


class EscapeMonitor:
    """Watches the running mean of w̄ for the escape from a cold start, and for a collapse after it.

    Args:
        threshold: running success at which a run counts as escaped.
        window: steps in the running mean.
        collapse: share of the best running mean below which an escaped run counts as collapsed.

    Attributes:
        escape_step: first step whose running mean reached the threshold, or None.
        collapsed: whether the running mean is below ``collapse`` times its best, after the escape.
    """

    def __init__(self, threshold: float = THRESHOLD, window: int = WINDOW, collapse: float = 0.1) -> None:
        self.threshold, self.window, self.collapse = threshold, window, collapse
        self.recent: deque[float] = deque(maxlen=window)
        self.best = 0.0
        self.escape_step: int | None = None
        self.collapsed = False

    def update(self, step: int, success: float) -> None:
        """Take in w̄ of ``step``, a mean over the batch, not in log-space. Too few steps so far: nothing is decided."""
        self.recent.append(success)
        if len(self.recent) < self.window:
            return
        running = sum(self.recent) / self.window
        self.best = max(self.best, running)
        if self.escape_step is None and running >= self.threshold:
            self.escape_step = step
        self.collapsed = self.escape_step is not None and running < self.collapse * self.best

    def state_dict(self) -> dict[str, object]:
        """Everything a resumed run needs, primitives only."""
        return {
            "recent": list(self.recent),
            "best": self.best,
            "escape_step": self.escape_step,
            "collapsed": self.collapsed,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from ``state_dict``."""
        self.recent = deque(state["recent"], maxlen=self.window)
        self.best, self.escape_step, self.collapsed = state["best"], state["escape_step"], state["collapsed"]


class StallMonitor:
    """Tells once when something that a healthy run does not do has lasted for some steps in a row.

    Args:
        window: steps in a row.
    """

    def __init__(self, window: int = 10) -> None:
        self.window = window
        self.steps: dict[str, int] = {}

    def update(self, seen: Mapping[str, bool]) -> list[str]:
        """Take in what was seen in a step, by name; the names for which this is the moment to tell."""
        self.steps = {name: self.steps.get(name, 0) + 1 if held else 0 for name, held in seen.items()}
        return [name for name, steps in self.steps.items() if steps == self.window]

    def state_dict(self) -> dict[str, int]:
        """What a resumed run needs."""
        return dict(self.steps)

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue from ``state_dict``."""
        self.steps = dict(state)
