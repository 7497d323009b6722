"""Which records of a split become examples, and how many do not, by reason."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from jqlight.benchmarks.records import Record, Split
from jqlight.files import stable_hash

T = TypeVar("T")


@dataclass(frozen=True)
class Unusable:
    """Why a record becomes no example."""

    reason: str
    """A few words, under which it is counted."""
    problem: str = ""
    """Where a setting is to blame, the sentence that says so, for when no record is left."""


@dataclass(frozen=True)
class SplitCounts:
    """What became of a split's records."""

    records: int
    """Records in the source."""
    asked: int | None
    """Size asked for; None for all."""
    used: int
    """Examples taken."""
    dropped: Mapping[str, int]
    """Records met and not used, by reason."""
    problem: str = ""
    """The first one's, see :class:`Unusable`."""

    @property
    def reasons(self) -> str:
        """The dropped records for people: ``2 empty gold, 1 prompt too long``."""
        return count_words(self.dropped)


def count_words(counts: Mapping[str, int]) -> str:
    """The counts that are not zero, for people, in the order of their names; ``none`` without any."""
    return ", ".join(f"{number} {name}" for name, number in sorted(counts.items()) if number) or "none"


def select(
    records: Iterable[Record], id_field: str, size: int | None, seed: int, build: Callable[[Record], T | Unusable]
) -> tuple[list[T], SplitCounts]:
    """The first ``size`` usable records in the order of a hash of (seed, id), built, and what became of the others.

    The order is the same on every machine and does not depend on the order of the records. ``build`` gives an example,
    or the reason why there is none. Of records with one id the first is kept.
    """
    dropped: Counter[str] = Counter()
    problem = ""
    unique: dict[str, Record] = {}
    for record in records:
        if record[id_field] in unique:
            dropped["duplicate id"] += 1
        unique.setdefault(record[id_field], record)
    total = len(unique) + dropped["duplicate id"]
    examples: list[T] = []
    for identity in sorted(unique, key=lambda i: (stable_hash("subset", seed, i), i)):
        if len(examples) == size:
            break
        built = build(unique[identity])
        if isinstance(built, Unusable):
            dropped[built.reason] += 1
            problem = problem or built.problem
        else:
            examples.append(built)
    return examples, SplitCounts(total, size, len(examples), dict(+dropped), problem)


def describe(counts: Mapping[Split, SplitCounts], remarks: Mapping[Split, Mapping[str, int]]) -> str:
    """A table for people: per split the records, the size asked for, the examples used, the dropped and the remarks.

    Args:
        counts: what became of each split's records.
        remarks: what else is to be known of a split's examples, and of how many.
    """
    rows: list[tuple[str, ...]] = [("split", "records", "asked", "used", "dropped", "remarks")]
    for split, count in counts.items():
        short = " (fewer than asked)" if count.asked is not None and count.used < count.asked else ""
        asked = "all" if count.asked is None else str(count.asked)
        cells = (str(count.records), asked, f"{count.used}{short}", count.reasons, count_words(remarks[split]))
        rows.append((split, *cells))
    if all(row[-1] == "none" for row in rows[1:]):
        rows = [row[:-1] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows)
