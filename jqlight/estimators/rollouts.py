"""Where a training step's rollouts come from: drawn now, or drawn beside the step before it (lookahead)."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from jqlight.benchmarks import Example
from jqlight.errors import ConfigError
from jqlight.objective import truncated
from jqlight.policy import Group
from jqlight.sampling import Rollout

if TYPE_CHECKING:
    from jqlight.estimators.base import Estimator

RolloutGroups = list[list[Rollout]]
"""M rollouts of each prompt of a batch."""


class StepBatch(NamedTuple):
    """A training step and the batch it is for."""

    step: int
    examples: Sequence[Example]


MAX_IMPORTANCE_RATIO = 2.0
"""Larger importance ratios are truncated to it in the coefficients; inf would truncate none."""

Draw = Callable[[StepBatch], RolloutGroups]


class ImportanceRatios:
    """Ratios rho = p(sampled tokens) / p(the same when they were drawn) of one step's rollouts.

    The denominator is what the engine recorded, so that a difference between engine and trainer is corrected with the
    step's staleness. Forced tokens were not sampled and have no part in it.
    """

    def __init__(self) -> None:
        self._log_ratios: list[Tensor] = []

    def of(self, rollouts: Sequence[Rollout], group: Group) -> Tensor:
        """Logs of one group's truncated ratios, (1, M) float64, nats."""
        drawn_at = [r.rationale_logprobs + r.answer_logprobs for r in rollouts]
        now = [t[: len(then)].sum() for t, then in zip(group.token_logprobs(), drawn_at, strict=True)]
        then = torch.tensor([math.fsum(then) for then in drawn_at], dtype=torch.float64)
        log_ratio = (torch.stack(now).cpu() - then).unsqueeze(0)
        self._log_ratios.append(log_ratio)
        return truncated(log_ratio, MAX_IMPORTANCE_RATIO)

    def restart(self) -> None:
        """Forget what was gathered: the step begins again."""
        self._log_ratios = []

    def metrics(self) -> dict[str, float]:
        """Mean ratio before truncation (1 in expectation) and share of ratios that were truncated."""
        ratios = torch.cat(self._log_ratios).exp()
        return {
            "importance_ratio": ratios.mean().item(),
            "importance_clipped": (ratios > MAX_IMPORTANCE_RATIO).double().mean().item(),
        }


class RolloutSource:
    """Draws each batch when its step comes, from the weights that the step trains."""

    def __init__(self, draw: Draw) -> None:
        self._draw = draw

    def rollouts(self, batch: StepBatch) -> tuple[RolloutGroups, ImportanceRatios | None]:
        """The batch's rollouts, with a place for their importance ratios where older weights drew them."""
        return self._draw(batch), None

    @contextmanager
    def prefetching(self, following: StepBatch | None, waiting: AbstractContextManager[None]) -> Iterator[None]:
        """A block beside which the following batch may be drawn; here nothing is."""
        yield

    def metrics(self, ratios: ImportanceRatios | None) -> dict[str, float]:
        """How old the step's rollouts are, where they can be."""
        return {}

    def state(self) -> dict[str, Any] | None:
        """What has been drawn for the step to come, as primitives; None where that will be drawn when it comes."""
        return None

    def close(self) -> None:
        """End whatever draws."""


class Lookahead(RolloutSource):
    """Draws one batch ahead, in a thread beside the step: from weights one optimizer step older than those they train.

    An engine has one user at a time: inside :meth:`prefetching` it is the thread, and nobody may give the engine
    weights or ask it for anything else. What has been prefetched is part of a checkpoint; the weights that drew it are
    not.

    The engines put the global random states back when they have drawn. A step must therefore take nothing from them
    beside the thread, and takes nothing: every seed is a function of step and example, and dropout is off. On a GPU the
    two would have to wait for each other's streams, which nobody has seen to work; a run is refused there.

    Args:
        draw: draws a batch; called in the step's own thread and in the one beside it.
        state: of a checkpoint, from :meth:`state`.
    """

    def __init__(self, draw: Draw, state: Mapping[str, Any] | None = None) -> None:
        super().__init__(draw)
        self._key: tuple[int, list[str]] | None = None
        self._prefetched: RolloutGroups | None = None
        if state is not None:
            self._key = state["step"], list(state["examples"])
            self._prefetched = [[Rollout(**rollout) for rollout in group] for group in state["rollouts"]]
        self._future: Future[RolloutGroups] | None = None
        # One thread for all steps: each new one would bring its own worker threads.
        self._executor: ThreadPoolExecutor | None = None

    def rollouts(self, batch: StepBatch) -> tuple[RolloutGroups, ImportanceRatios | None]:
        """What was prefetched for exactly ``batch``, once; anything else is forgotten and drawn now."""
        prefetched = self._prefetched if self._key == _key(batch) else None
        self._key = self._prefetched = None
        if prefetched is None:
            return super().rollouts(batch)
        return prefetched, ImportanceRatios()

    @contextmanager
    def prefetching(self, following: StepBatch | None, waiting: AbstractContextManager[None]) -> Iterator[None]:
        """A block beside which ``following`` is drawn; it ends when both have, with what either raised.

        ``waiting`` is entered around what the block waits for the thread.
        """
        if following is not None:
            self._start(following)
        try:
            yield
            if self._future is not None:
                future, self._future = self._future, None
                with waiting:
                    self._prefetched = future.result()
        except BaseException:
            self.close()
            raise

    def metrics(self, ratios: ImportanceRatios | None) -> dict[str, float]:
        """Age of the rollouts in optimizer steps, and their importance ratios where that is not 0."""
        return {"staleness": 0.0} if ratios is None else {"staleness": 1.0, **ratios.metrics()}

    def state(self) -> dict[str, Any] | None:
        """Step, ids of the examples and rollouts."""
        if self._key is None or self._prefetched is None:
            return None
        rollouts = [[asdict(rollout) for rollout in group] for group in self._prefetched]
        return {"step": self._key[0], "examples": self._key[1], "rollouts": rollouts}

    def close(self) -> None:
        """Wait for the thread without looking at what it gave or raised, and end it; a later block begins another."""
        self._key = self._prefetched = self._future = None
        if self._executor is not None:
            self._executor.shutdown()
            self._executor = None

    def _start(self, batch: StepBatch) -> None:
        """Begin to draw in the thread."""
        if self._executor is None:
            self._executor = ThreadPoolExecutor(1, thread_name_prefix="lookahead")
        self._key, self._prefetched = _key(batch), None
        self._future = self._executor.submit(self._draw, batch)


def _key(batch: StepBatch) -> tuple[int, list[str]]:
    return batch.step, [example.id for example in batch.examples]


def source_of(module: "Estimator", ahead: Sequence[Mapping[str, Any] | None]) -> RolloutSource:
    """What draws for a run of ``module``; ``ahead`` is the :meth:`RolloutSource.state` of each rank of a checkpoint."""
    if not module.sampler_config.lookahead:
        return RolloutSource(module.draw)
    # Of as many ranks as now; with others, each has other examples.
    return Lookahead(module.draw, ahead[module.global_rank] if len(ahead) == module.trainer.world_size else None)


def check_loader(module: "Estimator") -> None:
    """Raise ConfigError where batches are to be drawn ahead and the training loader cannot show them."""
    loader = module.trainer.train_dataloader
    if module.sampler_config.lookahead and not hasattr(loader, "peek"):
        raise ConfigError(
            f"sampler.lookahead: given 1, allowed is 0 with {type(loader).__name__}: a training loader must have "
            "peek(), as jqlight.benchmarks.loaders.TrainLoader has"
        )


def following(module: "Estimator") -> StepBatch | None:
    """The next step, for a source that prefetches; None where this one is the last of its epoch or of the run."""
    step, trainer = module.global_step + 1, module.trainer
    if not module.sampler_config.lookahead or step == trainer.max_steps or trainer.should_stop:
        return None
    batch = trainer.train_dataloader.peek()  # type: ignore[union-attr]  # see check_loader
    return None if batch is None else StepBatch(step, batch)
