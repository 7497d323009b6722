"""The scale of a step: what a batch's gradient is divided by before the optimizer sees it.

Adam's step does not change when every gradient is multiplied by one number, unless they fall under its epsilon. At a
cold start the amplification P^-q is nearly such a number, so that q mostly decides whether anything moves at all. With
the scale divided out q decides how a step is shared between examples.
"""

import math
from collections.abc import Iterable
from typing import Literal

import torch
from torch import nn

from jqlight.errors import ConfigError
from jqlight.estimators import distributed

Scale = Literal["raw", "batch", "running"]
SCALES: tuple[Scale, ...] = ("raw", "batch", "running")

DECAY = 0.05
"""running: nats that the reference may fall per step. A batch e^-5 times the last one's size takes 100 steps to get a
whole step, and a run that climbs out of e^-50 is never held back, since the reference rises at once."""

_TINY = -40.0
"""Nats under which the groups of a raw step are counted in a unit too, by which their sum is multiplied in the end:
what a backward pass multiplies with such coefficients are denormal numbers, on which a processor takes many times as
long."""

_NEGLIGIBLE = 2.0**-6
"""Share of a number format's resolution under which a group's weight counts as nothing next to the largest one's."""


class StepScale:
    """The unit in which one step's coefficients are counted, found while its groups come one after the other.

    A later group may be larger than all before it: then the gradients gathered so far are multiplied by the ratio of
    the units, as an online softmax does. Every result is that of the largest group's unit, in any order of groups.

    Args:
        kind: raw (1 when the step ends, the paper's step), batch (the size of the batch's largest group) or running
            (the same, but never under the last step's reference less ``DECAY``, so that a batch of hopeless examples
            late in training does not get a whole step).

    Attributes:
        log_reference: log of the last step's unit, nats; -inf before the first. What a resumed run needs.
        skipped: groups of this step whose weight relative to the largest one is below the gradient's resolution.

    Raises:
        ConfigError: another kind.
    """

    def __init__(self, kind: Scale = "raw") -> None:
        if kind not in SCALES:
            raise ConfigError(f"model.scale: given {kind!r}, allowed are {', '.join(SCALES)}")
        self.kind = kind
        self.log_reference = -math.inf
        self.skipped = 0
        self._log_unit = self._largest = -math.inf
        self._parameters: list[nn.Parameter] = []

    def begin(self, parameters: Iterable[nn.Parameter]) -> None:
        """Begin a step on ``parameters``, whose gradients are empty."""
        self._parameters = [p for p in parameters if p.requires_grad]
        self.skipped, self._largest = 0, -math.inf
        self._log_unit = self.log_reference - DECAY if self.kind == "running" else -math.inf

    def admit(self, log_size: float) -> float | None:
        """Log of the unit for the coefficients of a group of this size, both in nats; None if it need not be run.

        Args:
            log_size: of ``jqlight.objective.garl_log_size`` or ``paft_log_size``.
        """
        if log_size == -math.inf:  # a dead group, counted as one elsewhere
            return None
        self._largest = max(self._largest, log_size)
        if self.kind == "raw":
            self._raise_to(self._largest if self._largest < _TINY else 0.0)
            matters_from = min(_TINY, self._largest + self._log_resolution())
        else:
            self._raise_to(log_size)
            matters_from = self._log_unit + self._log_resolution()
        if log_size < matters_from:
            self.skipped += 1
            return None
        return self._log_unit

    def finish(self, device: torch.device) -> None:
        """Give all ranks the largest rank's unit, before their gradients are summed, and remember it."""
        if self.kind == "raw":
            self._raise_to(0.0)
            return
        self._raise_to(distributed.largest({"log_unit": self._log_unit}, device)["log_unit"])
        self.log_reference = self._log_unit

    def metrics(self) -> dict[str, float]:
        """The unit's logarithm, nats, and how many groups were not run; nothing for a raw step."""
        if self.kind == "raw":
            return {}
        unit = {"log_scale": self.log_reference} if self.log_reference > -math.inf else {}
        return {**unit, "skipped_groups": float(self.skipped)}

    def _raise_to(self, log_unit: float) -> None:
        if log_unit <= self._log_unit:
            return
        factor = math.exp(self._log_unit - log_unit)
        for parameter in self._parameters:
            if parameter.grad is not None:
                parameter.grad.mul_(factor)
        self._log_unit = log_unit

    def _log_resolution(self) -> float:
        smallest = min(torch.finfo(p.dtype).eps for p in self._parameters)
        return math.log(_NEGLIGIBLE * smallest)
