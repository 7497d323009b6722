"""From a sweep's runs to its answer: one outcome per run, one row per setting with its spread over seeds."""

import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jqlight.escape import WINDOW, escape_step
from jqlight.names import ESTIMATORS, k_of_majority, majority, pass_at
from jqlight.report.runs import Curve, RunRecord

TIMES = ("time/sample", "time/score", "time/update", "time/sync")
# Settings that differ from run to run without being what is compared.
_BOOKKEEPING = ("run_dir", "run_name", "experiment_name", "ckpt_path", "seed_everything", "trainer.logger", "config")
_ATTRIBUTES = ("estimator", "q", "benchmark", "scenario", "seed", "model.class_path", "data.class_path")
# What q says already, in other words; runs of earlier versions have no commitment.
_OF_Q = ("model.q", "commitment")


@dataclass(frozen=True)
class Setting:
    """What a run was run with, apart from its seed: one row of the table."""

    benchmark: str
    scenario: str
    estimator: str
    q: str
    others: tuple[tuple[str, str], ...] = ()
    """Further settings that distinguish the rows, such as the label noise."""

    @property
    def q_number(self) -> float | None:
        """q when it is a number."""
        return as_number(self.q)

    @property
    def place(self) -> str:
        """Everything but estimator and q: settings with the same place are drawn into one figure."""
        named = [f"{key.rsplit('.', 1)[-1]} {value}" for key, value in self.others]
        return ", ".join(part for part in (self.benchmark, self.scenario, *named) if part)

    @property
    def method(self) -> str:
        """Estimator and q, such as ``GARL q=0.75``, ``GARL splice(0.05)`` or ``GRPO``."""
        if not self.q:
            return self.estimator
        return f"{self.estimator} q={self.q_number:g}" if self.q_number is not None else f"{self.estimator} {self.q}"

    def sort_key(self) -> tuple[Any, ...]:
        """Place, then estimator in the order of the paper, then q ascending, then commitments by name."""
        order = ESTIMATORS.index(self.estimator) if self.estimator in ESTIMATORS else len(ESTIMATORS)
        number = self.q_number
        return (self.place, order, self.estimator, number is None, number if number is not None else 0.0, self.q)


@dataclass(frozen=True)
class Outcome:
    """What one run came to. Metric values are shares in [0, 1], steps are optimizer steps."""

    record: RunRecord
    values: Mapping[str, float]
    """Column -> value; a column that this run has nothing for is absent."""

    @property
    def escape_step(self) -> int | None:
        """First step at which the running success reached the threshold; None if it never did."""
        step = self.values.get("escape")
        return None if step is None else int(step)


@dataclass(frozen=True)
class Row:
    """One setting and its runs."""

    setting: Setting
    outcomes: list[Outcome] = field(repr=False)

    def spread(self, column: str) -> "Spread":
        """Mean and spread over the runs that have ``column``."""
        return Spread.of(outcome.values[column] for outcome in self.outcomes if column in outcome.values)

    def mean_curve(self, key: str) -> list[tuple[int, float, float, float]]:
        """(step, mean, least, largest) of metric ``key`` over the runs that logged that step."""
        at: dict[int, list[float]] = {}
        for outcome in self.outcomes:
            for step, value in outcome.record.curve(key):
                at.setdefault(step, []).append(value)
        return [(step, statistics.fmean(values), min(values), max(values)) for step, values in sorted(at.items())]


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation over runs."""

    n: int
    mean: float | None = None
    deviation: float | None = None
    """None for fewer than two runs."""

    @classmethod
    def of(cls, values: Iterable[float]) -> "Spread":
        """Of some numbers, possibly none."""
        given = list(values)
        if not given:
            return cls(0)
        return cls(len(given), statistics.fmean(given), statistics.stdev(given) if len(given) > 1 else None)


@dataclass(frozen=True)
class Comparison:
    """Rows in the order in which they are shown."""

    rows: list[Row]
    k: int | None
    """Samples in maj@k and pass@k; None before the first validation, or when runs differ."""

    def places(self) -> dict[str, list[Row]]:
        """Rows by benchmark, scenario and further settings."""
        found: dict[str, list[Row]] = {}
        for row in self.rows:
            found.setdefault(row.setting.place, []).append(row)
        return found


def compare(records: Sequence[RunRecord]) -> Comparison:
    """The comparison of some runs."""
    others = _distinguishing(records)
    rows: dict[Setting, list[Outcome]] = {}
    for record in records:
        setting = Setting(
            record.benchmark,
            record.scenario,
            record.estimator,
            record.q,
            tuple((key, record.params[key]) for key in others if key in record.params),
        )
        rows.setdefault(setting, []).append(outcome(record))
    sizes = {size for record in records if (size := samples(record)) is not None}
    ordered = sorted(rows, key=Setting.sort_key)
    return Comparison([Row(setting, rows[setting]) for setting in ordered], sizes.pop() if len(sizes) == 1 else None)


def metric_keys(record_keys: Iterable[str]) -> list[str]:
    """Of a run's metrics, those whose history a comparison needs."""
    wanted = ("train/success", "train/log_success", "train/max_amplified_advantage", "train/thinking_tokens", *TIMES)
    return [key for key in record_keys if key in wanted or re.fullmatch(r"val/(exact_)?(maj|pass)_at_\d+", key)]


def samples(record: RunRecord) -> int | None:
    """k of the run's maj@k, the largest if it logged several; None before its first validation."""
    sizes = [k for key in record.last if (k := k_of_majority(key))]
    return max(sizes, default=None)


def outcome(record: RunRecord) -> Outcome:
    """What the metrics of one run come to.

    Validation numbers are those of the first validation with the best maj@k, the checkpoint that is kept as the best.
    """
    values: dict[str, float] = {}
    k = samples(record)
    if k is not None:
        values |= _validation(record, k)
        tested = {f"test_{name}": f"test/{_key(name, k)}" for name in ("maj", "exact_maj", "pass_1", "pass_k")}
        values |= {column: record.last[key] for column, key in tested.items() if key in record.last}
    success = record.curve("train/success")
    escaped = escape_step(success)
    if escaped is not None:
        values["escape"] = float(escaped)
    if success:
        values["steps"] = float(success[-1][0])
        values["success"] = _last_mean(success)
    if log_success := record.curve("train/log_success"):
        values["log_success"] = _last_mean(log_success)
    seconds = [sum(value for _, value in record.curve(key)) for key in TIMES]
    if any(seconds):
        values["minutes"] = sum(seconds) / 60
    tokens = _tokens(record)
    if tokens is not None:
        values["tokens"] = tokens
    return Outcome(record, values)


def as_number(text: str) -> float | None:
    """The number that ``text`` spells; None if it spells none."""
    try:
        return float(text)
    except ValueError:
        return None


def _validation(record: RunRecord, k: int) -> dict[str, float]:
    majority = record.curve(f"val/{_key('maj', k)}")
    if not majority:
        return {}
    best, value = max(majority, key=lambda point: (point[1], -point[0]))
    found = {"maj": value, "best_step": float(best)}
    for name in ("exact_maj", "pass_1", "pass_k"):
        at_best = dict(record.curve(f"val/{_key(name, k)}")).get(best)
        if at_best is not None:
            found[name] = at_best
    return found


def _key(name: str, k: int) -> str:
    return {"maj": majority(k), "exact_maj": majority(k, "exact_"), "pass_1": pass_at(1), "pass_k": pass_at(k)}[name]


def _last_mean(curve: Curve) -> float:
    return statistics.fmean(value for _, value in curve[-WINDOW:])


def _tokens(record: RunRecord) -> float | None:
    """Thinking tokens sampled in training, over the whole run."""
    rollouts = as_number(record.params.get("model.rollouts", ""))
    prompts = as_number(record.params.get("data.prompts_per_step", ""))
    curve = record.curve("train/thinking_tokens")
    return sum(value for _, value in curve) * rollouts * prompts if rollouts and prompts and curve else None


def _distinguishing(records: Sequence[RunRecord]) -> list[str]:
    """Parameters that differ between runs which agree in seed, estimator, q, benchmark and scenario."""
    same: dict[tuple[str, ...], list[RunRecord]] = {}
    for record in records:
        key = (record.benchmark, record.scenario, record.estimator, record.q, record.seed)
        same.setdefault(key, []).append(record)
    found: dict[str, None] = {}
    for alike in same.values():
        for name in dict.fromkeys(name for record in alike for name in record.params):
            if len({record.params.get(name) for record in alike}) > 1 and not _ignored(name):
                found[name] = None
    return list(found)


def _ignored(name: str) -> bool:
    of_q = any(name == key or name.startswith(f"{key}.") for key in _OF_Q)
    return name in _ATTRIBUTES or of_q or name.startswith(_BOOKKEEPING)
