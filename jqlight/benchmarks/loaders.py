"""Loaders of examples: a training stream that can be resumed exactly, and an evaluation pass without duplicates."""

from collections.abc import Iterator, Sequence
from typing import Any, Generic, TypeVar

from jqlight.errors import ConfigError
from jqlight.files import stable_hash

T = TypeVar("T")


class TrainLoader(Generic[T]):
    """Training batches as lists; the order depends on (seed, epoch) only.

    One epoch is one pass over the examples in a new order. The last batch of an epoch is smaller when the number of
    examples is no multiple of ``prompts_per_step``; with several ranks it is cut to a multiple of their number, and
    :attr:`left_out` examples sit the epoch out (other ones in each epoch).

    Lightning stores :meth:`state_dict` in its checkpoints and gives it back before the first batch. Iterating continues
    at the loader's position, so a resumed loader delivers the rest of its epoch.

    Args:
        examples: what to draw from; each needs an ``id``.
        prompts_per_step: batch size over all ranks.
        seed: of the order.
        rank: this process.
        world_size: number of processes; each gets an equal slice of every batch.

    Raises:
        ConfigError: fewer examples than ``prompts_per_step``, or prompts that do not divide evenly between ranks.
    """

    def __init__(
        self,
        examples: Sequence[T],
        prompts_per_step: int,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if len(examples) < prompts_per_step:
            raise ConfigError(
                f"data.prompts_per_step: given {prompts_per_step}, but the training set has {len(examples)} usable "
                "examples; lower prompts_per_step or raise train_size"
            )
        if prompts_per_step % world_size:
            raise ConfigError(
                f"data.prompts_per_step: given {prompts_per_step}, allowed is a multiple of the {world_size} "
                "processes, which share each step's prompts"
            )
        self.examples = examples
        self.prompts_per_step = prompts_per_step
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.left_out = len(examples) % prompts_per_step % world_size
        self.epoch = 0
        self.position = 0
        self._limit = len(self)
        self._ordered: tuple[int, list[int]] = (-1, [])

    def __len__(self) -> int:
        """Batches of one pass."""
        return -(-(len(self.examples) - self.left_out) // self.prompts_per_step)

    def __iter__(self) -> Iterator[list[T]]:
        """Batches of this rank, from the loader's position to the end of the epoch."""
        if self.position >= self._limit:
            self.epoch, self.position = self.epoch + 1, 0
        while self.position < self._limit:
            self.position += 1
            yield self._batch(self.position - 1)

    def peek(self) -> list[T] | None:
        """The next batch of this rank, without moving on; None at the end of the epoch."""
        return self._batch(self.position) if self.position < self._limit else None

    def limit_epoch(self, steps: int) -> None:
        """Begin the next epoch after ``steps`` batches: a trainer that stops early must not see a pass's rest later."""
        self._limit = min(steps, len(self))

    def order(self, epoch: int) -> list[int]:
        """Indices of the examples in the order of ``epoch``, a function of (seed, epoch, number of examples)."""
        return sorted(range(len(self.examples)), key=lambda i: stable_hash("order", self.seed, epoch, i))

    def state_dict(self) -> dict[str, Any]:
        """The loader's position, and the settings under which it means the same."""
        return {"epoch": self.epoch, "position": self.position, "settings": self._settings()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up the position of ``state`` and its order, whatever this loader's seed.

        Raises:
            ConfigError: the state is of another training set or batch size.
        """
        self.seed = state["settings"]["seed"]
        if state["settings"] != self._settings():
            raise ConfigError(
                f"data: the checkpoint was trained with {state['settings']}, this run has {self._settings()}; resume "
                "with the same data settings, or start a new run"
            )
        self.epoch, self.position = state["epoch"], state["position"]

    def _batch(self, position: int) -> list[T]:
        if self._ordered[0] != self.epoch:
            self._ordered = (self.epoch, self.order(self.epoch))
        start = position * self.prompts_per_step
        step = self._ordered[1][start : start + self.prompts_per_step]
        size = len(step) // self.world_size  # leaves out what does not divide
        return [self.examples[i] for i in step[self.rank * size : (self.rank + 1) * size]]

    def _settings(self) -> dict[str, int]:
        # Independent of the number of ranks, so that a run may continue with more or fewer of them.
        ids = stable_hash(*(getattr(example, "id", i) for i, example in enumerate(self.examples)))
        return {
            "train_examples": len(self.examples),
            "train_fingerprint": ids,
            "prompts_per_step": self.prompts_per_step,
            "seed": self.seed,
        }


class EvaluationLoader(Generic[T]):
    """Batches of one rank's share of the examples, in order, each example on exactly one rank.

    Ranks may have different numbers of batches, and the last one may be smaller.
    """

    def __init__(self, examples: Sequence[T], batch_size: int, rank: int = 0, world_size: int = 1) -> None:
        self.examples = examples[rank::world_size]
        self.batch_size = batch_size

    def __len__(self) -> int:
        """Batches of this rank."""
        return -(-len(self.examples) // self.batch_size)

    def __iter__(self) -> Iterator[list[T]]:
        """Batches of this rank."""
        for start in range(0, len(self.examples), self.batch_size):
            yield list(self.examples[start : start + self.batch_size])
