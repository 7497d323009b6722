"""Seeds of single rollouts, so that a rollout does not depend on batch order, ranks or resumption."""

from hashlib import blake2b


def _hash(*parts: object) -> int:
    text = "\x1f".join(map(str, parts))
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def rollout_seed(run_seed: int, stage: str, step: int, example_id: str, m: int) -> int:
    """Seed in [0, 2**63) of rollout ``m`` of one example at one step: a hash, equal on every machine and rank.

    >>> rollout_seed(0, "train", 1, "a", 0) == rollout_seed(0, "train", 1, "a", 1)
    False
    """
    return _hash("rollout", run_seed, stage, step, example_id, m)


def answer_seed(seed: int) -> int:
    """Seed in [0, 2**63) of the answer that follows the rationale drawn with ``seed``."""
    return _hash("answer", seed)
