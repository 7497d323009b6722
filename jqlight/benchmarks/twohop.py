"""TwoHop: generated questions whose answer lies two facts away, for a run that needs no files and no network.

A question shows five facts in random order and asks for the end of a chain of two of them::

    e3 r1 e7 . e7 r4 e20 . e3 r0 e9 . e7 r2 e12 . e9 r2 e5 . ? e3 r1 r2        answer: e12

The three other facts close every short cut: the first entity has two facts (``r1`` is needed), the second relation
has two facts (the bridge ``e7`` is needed), and the bridge has two facts (``r2`` is needed). Each (entity, relation)
pair occurs once, so there is exactly one answer.

The questions are a fixed data set, like a file: question number i of a split is the same for every seed and size.
A chain belongs to one split alone, decided by its hash; one split, ``base``, is what the bundled model was trained on.
"""

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Literal

ENTITIES: tuple[str, ...] = tuple(f"e{i}" for i in range(30))
RELATIONS: tuple[str, ...] = tuple(f"r{i}" for i in range(5))

Split = Literal["base", "train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("base", "train", "validation", "test")
Fact = tuple[str, str, str]


@dataclass(frozen=True)
class Question:
    """Five facts in the order shown, and the chain of two of them that is asked for."""

    facts: tuple[Fact, ...]
    chain: tuple[Fact, Fact]

    @property
    def text(self) -> str:
        """The facts, each ended by a full stop, then ``? entity relation relation``."""
        (start, first, _), (_, second, _) = self.chain
        return " ".join([*(f"{' '.join(fact)} ." for fact in self.facts), "?", start, first, second])

    @property
    def rationale(self) -> str:
        """The two facts that lead to the answer, as the bundled model writes them."""
        return " . ".join(" ".join(fact) for fact in self.chain)

    @property
    def answer(self) -> str:
        """The entity at the end of the chain."""
        return self.chain[1][2]


def draw(rng: random.Random) -> Question:
    """One question from the generator's own distribution, whichever split it belongs to."""
    start, bridge, end, decoy, decoy_end, other = rng.sample(ENTITIES, 6)
    first, wrong_first = rng.sample(RELATIONS, 2)
    second, wrong_second = rng.sample(RELATIONS, 2)
    chain = ((start, first, bridge), (bridge, second, end))
    facts = [*chain, (start, wrong_first, decoy), (decoy, second, decoy_end), (bridge, wrong_second, other)]
    rng.shuffle(facts)
    return Question(tuple(facts), chain)


def split_of(question: Question) -> Split:
    """The one split that a question's chain belongs to; the other facts and their order do not matter."""
    digest = hashlib.blake2b(question.rationale.encode(), digest_size=8).digest()
    return SPLITS[int.from_bytes(digest, "big") % len(SPLITS)]


def stream(split: Split, seed: int = 0) -> Iterator[Question]:
    """Questions of one split without end; a chain may come again with other facts around it."""
    rng = random.Random(f"twohop {split} {seed}")
    while True:
        question = draw(rng)
        if split_of(question) == split:
            yield question


def questions(split: Split, size: int) -> list[Question]:
    """The first ``size`` questions of a split, no two with the same chain."""
    seen: set[tuple[Fact, Fact]] = set()

    def unseen(question: Question) -> bool:
        known = question.chain in seen
        seen.add(question.chain)
        return not known

    return list(islice(filter(unseen, stream(split)), size))
