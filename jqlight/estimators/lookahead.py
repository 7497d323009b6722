"""Prefetched rollouts: sampled in a thread while a step is computed, taken by the next step."""

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

RolloutGroups = list[list[Rollout]]
"""The rollouts of each example of a batch."""


class StepBatch(NamedTuple):
    """A training step and the batch it is for."""

    step: int
    batch: Sequence[Example]


class ImportanceRatios:
    """Ratios rho = p(sampled tokens) / p(the same when they were sampled) of one step's rollouts.

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
        sampled = [r.rationale_logprobs + r.answer_logprobs for r in rollouts]
        now = [t[: len(then)].sum() for t, then in zip(group.token_logprobs(), sampled, strict=True)]
        then = torch.tensor([math.fsum(then) for then in sampled], dtype=torch.float64)
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
    """Rollouts of the next batch, at most one, sampled from weights one optimizer step older than those they train.

    An engine has one user at a time: between :meth:`start` and :meth:`finish` it is the thread, and nothing else may
    give the engine weights or requests. Prefetched rollouts are in memory only, so that a resumed run samples
    its own.

    The engines restore the global random states after sampling. A step must therefore take nothing from them while the
    thread runs, and takes nothing: every seed is a function of step and example, and dropout is off.
    """

    def __init__(self) -> None:
        self._step_batch: StepBatch | None = None
        self._rollouts: RolloutGroups | None = None
        self._future: Future[RolloutGroups] | None = None
        # One thread and one stream for all steps: each new one would bring its own worker threads and cached memory.
        self._executor: ThreadPoolExecutor | None = None
        self._stream: torch.cuda.Stream | None = None

    def start(self, step_batch: StepBatch, sample: Callable[[StepBatch], RolloutGroups], device: torch.device) -> None:
        """Begin ``sample(step_batch)`` in the thread, on a GPU in a stream of its own behind all work issued so far."""
        if self._executor is None:
            self._executor = ThreadPoolExecutor(1, thread_name_prefix="lookahead")
        if device.type == "cuda":
            self._stream = self._stream or torch.cuda.Stream(device)
            self._stream.wait_stream(torch.cuda.current_stream(device))
        self._step_batch, self._rollouts = step_batch, None
        self._future = self._executor.submit(self._run, step_batch, sample, self._stream)

    def finish(self) -> None:
        """Wait for the thread; raises what ``sample`` raised."""
        if self._future is not None:
            future, self._future = self._future, None
            self._rollouts = future.result()

    def take(self, step_batch: StepBatch) -> RolloutGroups | None:
        """The rollouts sampled for exactly ``step_batch``, once; otherwise None, and nothing is kept."""
        groups = self._rollouts if self._step_batch == step_batch else None
        self.discard()
        return groups

    def discard(self) -> None:
        """Forget the prefetched rollouts."""
        self._step_batch = self._rollouts = None

    def close(self) -> None:
        """Wait for the thread without looking at what it gave or raised, and end it; :meth:`start` begins another."""
        self.discard()
        self._future = None
        if self._executor is not None:
            self._executor.shutdown()
            self._executor = None

    @staticmethod
    def _run(
        step_batch: StepBatch, sample: Callable[[StepBatch], RolloutGroups], stream: torch.cuda.Stream | None
    ) -> RolloutGroups:
        if stream is not None:
            torch.cuda.set_device(stream.device)  # a new thread begins on the first GPU
        with nullcontext() if stream is None else torch.cuda.stream(stream):
            groups = sample(step_batch)
        if stream is not None:
            stream.synchronize()
        return groups
