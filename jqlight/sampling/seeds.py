"""Seeds of single rollouts, so that a rollout does not depend on batch order, ranks or resumption."""

from jqlight.files import stable_hash


def rollout_seed(run_seed: int, stage: str, step: int, example_id: str, m: int) -> int:
    """Seed in [0, 2**63) of rollout ``m`` of one example at one step: a hash, equal on every machine and rank.

    >>> rollout_seed(0, "train", 1, "a", 0) == rollout_seed(0, "train", 1, "a", 1)
    False
    """
    return _seed("rollout", run_seed, stage, step, example_id, m)


def answer_seed(seed: int) -> int:
    """Seed in [0, 2**63) of the answer that follows the rationale drawn with ``seed``."""
    return _seed("answer", seed)


def _seed(*parts: object) -> int:
    return stable_hash(*parts, separator="\x1f") >> 1
