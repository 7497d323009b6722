"""KHop: questions about a graph that the bundled model knows by heart, one edge at a time; the way is the rationale.

A question gives an entity and the relations to follow from it, and the answer is where they lead::

    ? e3 r1 r0 r2          e3 r1 e7 r0 e9 r2 e41 </think> ans e41

Each relation is a permutation of the entities, so every entity is as likely an answer as any other. The graph is one
and the same for every seed, and no part of it is in a prompt.

A chain, that is an entity with its relations, belongs to one split alone, decided by its hash. The bundled model has
seen the questions of the split ``base``, each in front of a walk of the right length along edges of the graph. Which
relation the walk takes is nearly chance (docs/benchmarks.md has the figures). Behind a walk it writes the walk's end in
the format of the gold answer. So p(y*|x*, z) is nearly 1 for a right z and nearly 0 for a wrong one: what is to be
learnt is to find z, not a format. Nor can a model of two layers look up three edges one after the other in one pass.
"""

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, ClassVar, Literal

from jqlight.benchmarks.examples import Item
from jqlight.benchmarks.generated import Generated
from jqlight.benchmarks.records import Record, Split
from jqlight.errors import ConfigError
from jqlight.files import stable_hash
from jqlight.metrics.verifiers import Verifier

ENTITIES: tuple[str, ...] = tuple(f"e{i}" for i in range(64))
RELATIONS: tuple[str, ...] = ("r0", "r1", "r2", "r3")
MOST_HOPS = 4

Source = Literal["base", "train", "validation", "test"]
SHARES: tuple[Source, ...] = ("base", "base", "base", "train", "train", "train", "validation", "test")
"""Which split each eighth of the chains belongs to."""
Edge = tuple[str, str, str]


def _graph() -> dict[tuple[str, str], str]:
    """(Entity, relation) to entity: permutations, no two of which, nor the identity, agree on an entity."""
    rng, graph = random.Random("khop"), {}
    taken = {entity: {entity} for entity in ENTITIES}
    for relation in RELATIONS:
        ends = list(ENTITIES)
        while any(end in taken[start] for start, end in zip(ENTITIES, ends, strict=True)):
            rng.shuffle(ends)
        for start, end in zip(ENTITIES, ends, strict=True):
            taken[start].add(end)
            graph[start, relation] = end
    return graph


GRAPH: Mapping[tuple[str, str], str] = _graph()
"""Where each relation leads from each entity."""


@dataclass(frozen=True)
class Chain:
    """An entity and the relations to follow from it."""

    start: str
    relations: tuple[str, ...]

    @property
    def edges(self) -> tuple[Edge, ...]:
        """The edges of the graph that it leads along."""
        edges, here = [], self.start
        for relation in self.relations:
            edges.append((here, relation, GRAPH[here, relation]))
            here = edges[-1][2]
        return tuple(edges)

    @property
    def text(self) -> str:
        """``?``, the entity and the relations: the question."""
        return " ".join(("?", self.start, *self.relations))

    @property
    def rationale(self) -> str:
        """The way from entity to entity, as the bundled model writes it."""
        return " ".join((self.start, *(f"{relation} {end}" for _, relation, end in self.edges)))

    @property
    def end(self) -> str:
        """The entity at the end."""
        return self.edges[-1][2]


def source_of(chain: Chain) -> Source:
    """The one split that a chain belongs to."""
    return SHARES[stable_hash("khop", chain.text) % len(SHARES)]


def chains(source: Source, hops: int) -> Iterator[Chain]:
    """All chains of that many hops that belong to a split."""
    for start, *relations in product(ENTITIES, *[RELATIONS] * hops):
        chain = Chain(start, tuple(relations))
        if source_of(chain) == source:
            yield chain


def is_chain(rationale: str, references: Sequence[str]) -> float:
    """1 if the rationale is a way along edges of the graph from the question's entity to its answer, else 0.

    Which relations it takes and how many does not matter.

    Args:
        rationale: as the model wrote it, with or without its end of thinking.
        references: the question and the gold answer.
    """
    question, answer = references[:2]
    words = rationale.removesuffix("</think>").split()
    edges = zip(words[::2], words[1::2], words[2::2], strict=False)
    return float(
        len(words) >= 3
        and len(words) % 2 == 1
        and all(GRAPH.get((start, relation)) == end for start, relation, end in edges)
        and words[0] == question.split()[1]
        and words[-1] == answer.split()[-1]
    )


def is_right(rationale: str, references: Sequence[str]) -> float:
    """1 if it is the way that the question names, else 0; see :func:`is_chain`."""
    _, start, *relations = references[0].split()
    return float(rationale.removesuffix("</think>").split() == Chain(start, tuple(relations)).rationale.split())


class KHop(Generated):
    """The bundled benchmark that cannot be answered without its rationale; no file and no network.

    Made for the bundled model (``policy.name_or_path: khop``) with ``thinking: {start: "", end: "</think>",
    separator: ""}``. There is one scenario, the cold one, as the model knows no instructions.

    Args:
        hops: relations to follow, 1 to 4.
        **kwargs: see :class:`jqlight.benchmarks.Benchmark`; ``path`` is not taken.

    Raises:
        ConfigError: a setting out of its range.
    """

    sizes: ClassVar[Mapping[Split, int]] = {"validation": 256, "test": 256}
    rationale_verifiers: ClassVar[Mapping[str, Verifier]] = {"chain": is_chain, "right_chain": is_right}

    def __init__(self, hops: int = 3, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if hops not in range(1, MOST_HOPS + 1):
            raise ConfigError(f"data.hops: given {hops}, allowed is 1 to {MOST_HOPS}")
        self.hops = hops

    def read(self, split: Split) -> Iterable[Record]:
        """All chains of the split, each with its id, question, rationale and answer."""
        for chain in chains(split, self.hops):
            name = chain.text.removeprefix("? ").replace(" ", "-")
            fields = {"id": name, "question": chain.text, "rationale": chain.rationale, "answer": f"ans {chain.end}"}
            yield Record(fields, f"KHop question {name}")

    def item(self, record: Record) -> Item:
        """The question, its answer as the bundled model writes it, and the way there."""
        return Item(record.text("question"), record.text("answer"), rationale=record.text("rationale"))
