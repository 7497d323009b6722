"""q over training: functions from the optimizer step to a commitment.

A schedule is a function of the step alone, so a resumed run continues it exactly.
"""

import math
from abc import ABC, abstractmethod

from jqlight.errors import ConfigError
from jqlight.objective import Tsallis


class Schedule(ABC):
    """A q that moves from ``start`` to ``end``: a function from the optimizer step to the commitment in force at it.

    Raises:
        ConfigError: q outside [0, 1], or a step count below 1.
    """

    def __init__(self, start: float, end: float, steps: int) -> None:
        if steps < 1:
            raise ConfigError(f"model.q.steps: given {steps}, allowed is 1 or more optimizer steps")
        self.start, self.end, self.steps = Tsallis(start).q, Tsallis(end).q, int(steps)

    @abstractmethod
    def progress(self, step: int) -> float:
        """Share of the way from ``start`` to ``end`` at ``step``, in [0, 1]."""

    def at(self, step: int) -> Tsallis:
        """``Tsallis`` with the q of optimizer step ``step`` (the first step is 0)."""
        share = self.progress(step)
        return Tsallis((1 - share) * self.start + share * self.end)

    def __repr__(self) -> str:
        return f"{type(self).__name__.lower()}({self.start:g}->{self.end:g}@{self.steps})"


class Step(Schedule):
    """``start`` until step ``steps``, then ``end``: with 1 and 0 the SFT-then-RL pipeline. Lin & Ie (2026), v2.

    Args:
        steps: first optimizer step with ``end``.
        start: q before.
        end: q from then on.
    """

    def __init__(self, steps: int, start: float = 1.0, end: float = 0.0) -> None:
        super().__init__(start, end, steps)

    def progress(self, step: int) -> float:
        """0 before ``steps``, 1 from then on."""
        return float(step >= self.steps)


class Linear(Schedule):
    """From ``start`` to ``end`` in equal steps, reached at step ``steps``.

    Args:
        steps: optimizer steps until ``end``.
        start: q at step 0.
        end: q from step ``steps`` on.
    """

    def __init__(self, steps: int, start: float = 1.0, end: float = 0.0) -> None:
        super().__init__(start, end, steps)

    def progress(self, step: int) -> float:
        """step / steps, at most 1."""
        return min(1.0, step / self.steps)


class Cosine(Linear):
    """From ``start`` to ``end`` along half a cosine, reached at step ``steps``: slow at both ends."""

    def progress(self, step: int) -> float:
        """(1 - cos(pi step / steps)) / 2, at most 1."""
        return (1 - math.cos(math.pi * super().progress(step))) / 2
