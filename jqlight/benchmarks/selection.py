"""Which records of a split become examples, and how many do not, by reason."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from jqlight.benchmarks.records import Record, Split
from jqlight.files import stable_hash

T = TypeVar("T")


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


def select(
    records: Iterable[Record], id_field: str, size: int | None, seed: int, build: Callable[[Record], T | str]
) -> tuple[list[T], SplitCounts]:
    """The first ``size`` usable records in the order of a hash of (seed, id), built, and what became of the others.

    The order is the same on every machine and does not depend on the order of the records. ``build`` gives an example,
    or the reason why there is none. Of records with one id the first is kept.
    """
    dropped: Counter[str] = Counter()
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
        if isinstance(built, str):
            dropped[built] += 1
        else:
            examples.append(built)
    return examples, SplitCounts(total, size, len(examples), dict(+dropped))


def describe(counts: Mapping[Split, SplitCounts]) -> str:
    """A table for people: per split the records, the size asked for, the examples used and the dropped by reason."""
    rows = [("split", "records", "asked", "used", "dropped")]
    for split, count in counts.items():
        dropped = ", ".join(f"{number} {reason}" for reason, number in sorted(count.dropped.items())) or "none"
        short = " (fewer than asked)" if count.asked is not None and count.used < count.asked else ""
        asked = "all" if count.asked is None else str(count.asked)
        rows.append((split, str(count.records), asked, f"{count.used}{short}", dropped))
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows)
