"""Sampling one batch ahead: what is drawn in a thread while a step is computed, and handed out when its turn comes."""

import math
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from typing import NamedTuple

import torch
from torch import Tensor

from jqlight.benchmarks import Example
from jqlight.objective import truncated
from jqlight.policy import Group
from jqlight.sampling import Rollout

Drawn = list[list[Rollout]]


class Turn(NamedTuple):
    """A training step and the batch it is for."""

    step: int
    batch: Sequence[Example]


class ImportanceRatios:
    """Ratios rho = p(sampled tokens) / p(the same when they were drawn) of one step's rollouts.

    The denominator is what the engine recorded, so that a difference between engine and trainer is corrected with the
    step's staleness. Forced tokens were not sampled and have no part in it.

    Args:
        maximum: ratios above it are truncated to it in the coefficients.
    """

    def __init__(self, maximum: float) -> None:
        self._maximum = maximum
        self._log_ratios: list[Tensor] = []

    def of(self, rollouts: Sequence[Rollout], group: Group) -> Tensor:
        """Logs of one group's truncated ratios, (1, M) float64, nats."""
        drawn_at = [r.rationale_logprobs + r.answer_logprobs for r in rollouts]
        now = [t[: len(then)].sum() for t, then in zip(group.token_logprobs(), drawn_at, strict=True)]
        then = torch.tensor([math.fsum(then) for then in drawn_at], dtype=torch.float64)
        log_ratio = (torch.stack(now).cpu() - then).unsqueeze(0)
        self._log_ratios.append(log_ratio)
        return truncated(log_ratio, self._maximum)

    def metrics(self) -> dict[str, float]:
        """Mean ratio before truncation (1 in expectation) and share of ratios that were truncated."""
        ratios = torch.cat(self._log_ratios).exp()
        return {
            "importance_ratio": ratios.mean().item(),
            "importance_clipped": (ratios > self._maximum).double().mean().item(),
        }


class Lookahead:
    """Rollouts of the next batch, at most one, drawn from weights one optimizer step older than those they train.

    An engine has one user at a time: between :meth:`start` and :meth:`finish` it is the thread, and nobody may give the
    engine weights or ask it for anything else. What has been drawn lives in memory only, so that a resumed run draws
    its own.

    The engines put the global random states back when they have drawn. A step must therefore take nothing from them
    beside the thread, and takes nothing: every seed is a function of step and example, and dropout is off.
    """

    def __init__(self) -> None:
        self._turn: Turn | None = None
        self._drawn: Drawn | None = None
        self._future: Future[Drawn] | None = None
        # One thread and one stream for all steps: each new one would bring its own worker threads and cached memory.
        self._executor: ThreadPoolExecutor | None = None
        self._stream: torch.cuda.Stream | None = None

    def start(self, turn: Turn, draw: Callable[[Turn], Drawn], device: torch.device) -> None:
        """Begin ``draw(turn)`` in the thread, on a GPU in a stream of its own behind all work issued so far."""
        if self._executor is None:
            self._executor = ThreadPoolExecutor(1, thread_name_prefix="lookahead")
        if device.type == "cuda":
            self._stream = self._stream or torch.cuda.Stream(device)
            self._stream.wait_stream(torch.cuda.current_stream(device))
        self._turn, self._drawn = turn, None
        self._future = self._executor.submit(self._run, turn, draw, self._stream)

    def finish(self) -> None:
        """Wait for the thread; raises what ``draw`` raised."""
        if self._future is not None:
            future, self._future = self._future, None
            self._drawn = future.result()

    def take(self, turn: Turn) -> Drawn | None:
        """The rollouts drawn for exactly ``turn``, once; otherwise None, and nothing is kept."""
        drawn = self._drawn if self._turn == turn else None
        self.discard()
        return drawn

    def discard(self) -> None:
        """Forget what has been drawn."""
        self._turn = self._drawn = None

    def close(self) -> None:
        """Wait for the thread without looking at what it gave or raised, and end it; :meth:`start` begins another."""
        self.discard()
        self._future = None
        if self._executor is not None:
            self._executor.shutdown()
            self._executor = None

    @staticmethod
    def _run(turn: Turn, draw: Callable[[Turn], Drawn], stream: torch.cuda.Stream | None) -> Drawn:
        if stream is not None:
            torch.cuda.set_device(stream.device)  # a new thread begins on the first GPU
        with nullcontext() if stream is None else torch.cuda.stream(stream):
            drawn = draw(turn)
        if stream is not None:
            stream.synchronize()
        return drawn
