"""The samples and rollouts that a run has kept, read back from its folder."""

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

from jqlight.errors import ConfigError, DataError

SPLITS: Mapping[str, str] = {"train": "train", "validation": "", "test": "test"}
"""Name of a split -> what its files are called in front of ``step_000040.jsonl``."""
_FILE = re.compile(r"(?:(train|test)_)?step_(\d+)\.jsonl")


@dataclass(frozen=True)
class Sample:
    """One rationale of a model; what the run did not keep (an earlier version kept less) is None."""

    split: str
    step: int
    id: str
    """The question's: samples of one split, step and id are a group."""
    number: int
    prompt: str
    rationale: str
    references: tuple[str, ...]
    """Gold answers, the trained one first."""
    answer: str | None = None
    verdicts: Mapping[str, float] = field(default_factory=dict)
    """Verifier to score in [0, 1], the paper's rule first; empty where no answer was sampled."""
    weight: float | None = None
    """Share of the group's coefficients, in [-1, 1]; of training rollouts."""
    log_likelihood: float | None = None
    """log p(gold answer | prompt, rationale), nats."""
    reward: float | None = None
    truncated: bool | None = None
    empty: bool | None = None
    length: int | None = None
    """Tokens of the rationale."""

    @property
    def right(self) -> bool | None:
        """Whether the paper's rule, the first verdict, takes the answer; None where there is no verdict."""
        return next((score >= 1 for score in self.verdicts.values()), None)


@dataclass(frozen=True)
class Filter:
    """Which samples are wanted; each condition narrows the choice."""

    wrong: bool = False
    empty: bool = False
    truncated: bool = False
    question: str | None = None
    """A question's id; where no question has it, a part of its id or text in any case."""

    def __call__(self, samples: Iterable[Sample]) -> list[Sample]:
        """The wanted ones among ``samples``, in their order."""
        found = list(samples)
        if self.question is not None:
            asked = self.question.casefold()
            exact = [s for s in found if s.id == self.question]
            found = exact or [s for s in found if asked in s.id.casefold() or asked in s.prompt.casefold()]
        flags = [name for name in ("empty", "truncated") if getattr(self, name)]
        found = [sample for sample in found if all(getattr(sample, name) for name in flags)]
        return [sample for sample in found if sample.right is False] if self.wrong else found


def kept_steps(run_dir: Path) -> dict[str, dict[int, Path]]:
    """Split -> step -> file of the samples that a run has kept, in the order of ``SPLITS`` and of steps.

    Raises:
        ConfigError: the folder is not there, or is none of a run that has kept samples.
    """
    if not run_dir.is_dir():
        raise ConfigError(f"RUN: given {run_dir}, which is no folder; give a run's, such as runs/quickstart")
    matches = [(found, path) for path in run_dir.glob("samples/*.jsonl") if (found := _FILE.fullmatch(path.name))]
    if not matches:
        raise ConfigError(
            f"RUN: {run_dir} has no samples (samples/*.jsonl); give the folder of a run that has validated or trained"
        )
    files = {(found[1] or "", int(found[2])): path for found, path in sorted(matches, key=lambda m: int(m[0][2]))}
    steps = {split: {s: path for (p, s), path in files.items() if p == prefix} for split, prefix in SPLITS.items()}
    return {split: found for split, found in steps.items() if found}


def read_samples(
    run_dir: Path, split: str | None = None, step: str | int = "all", most: int | None = None
) -> list[Sample]:
    """A run's samples, split by split and step by step, each question's sorted by weight.

    Args:
        run_dir: the run's folder.
        split: one of ``SPLITS``; None for all.
        step: a step, ``last`` for the last that each split has, or ``all``.
        most: samples of a file after which no further question is read; None for all.

    Raises:
        ConfigError: as :func:`kept_steps`; or the split or step was not kept.
        DataError: a line that is no sample; names file and line.
    """
    kept = kept_steps(run_dir)
    if split is not None and split not in kept:
        raise ConfigError(f"--split: given {split}, but {run_dir} has kept {' and '.join(kept)} samples only")
    chosen = [
        (name, number, path)
        for name, files in kept.items()
        if split in (None, name)
        for number, path in files.items()
        if step == "all" or str(number) == str(max(files) if step == "last" else step)
    ]
    if not chosen:
        there = sorted({number for name, files in kept.items() if split in (None, name) for number in files})
        raise ConfigError(
            f"--step: given {step}, but samples were kept at {', '.join(map(str, there))}; also: last, all"
        )
    samples: list[Sample] = []
    for name, number, path in chosen:
        before = len(samples)
        for group in grouped(_read(path, name, number)):
            if most is not None and len(samples) - before >= most:
                break
            samples += sorted(group, key=lambda sample: (-(sample.weight or 0.0), sample.number))
    return samples


def grouped(samples: Iterable[Sample]) -> Iterator[list[Sample]]:
    """Groups of samples: neighbours of one split, step and question."""
    for _, group in groupby(samples, key=lambda sample: (sample.split, sample.step, sample.id)):
        yield list(group)


def _read(path: Path, split: str, step: int) -> Iterator[Sample]:
    # Line by line of the file: `splitlines` would also cut at U+2028 and its like, which models do write.
    with path.open(encoding="utf-8", newline="\n") as file:
        for number, line in enumerate(file, 1):
            try:
                yield _sample(json.loads(line, parse_constant=lambda _: None), split, step)
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
                raise DataError(
                    f"{path} line {number}: no sample as jqlight writes them ({type(error).__name__}: {error}); "
                    "restore the file or take it out of the folder"
                ) from error


def _sample(row: Mapping[str, Any], split: str, step: int) -> Sample:
    number = partial(_finite, row)
    return Sample(
        split=split,
        step=step,
        id=str(row["id"]),
        number=int(row.get("sample", 0)),
        prompt=str(row.get("prompt", "")),
        rationale=str(row.get("rationale") or ""),
        references=tuple(map(str, row.get("references") or [row.get("reference", "")])),
        answer=None if row.get("answer") is None else str(row["answer"]),
        verdicts={str(name): float(score) for name, score in (row.get("verdicts") or {}).items()},
        weight=number("weight"),
        log_likelihood=number("log_likelihood"),
        reward=number("reward"),
        truncated=row.get("truncated"),
        empty=row.get("empty", not str(row.get("rationale") or "").strip()),
        length=row.get("length"),
    )


def _finite(row: Mapping[str, Any], key: str) -> float | None:
    value = row.get(key)
    return None if value is None or not math.isfinite(float(value)) else float(value)
