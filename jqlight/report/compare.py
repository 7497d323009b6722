"""From runs to what they say: a row per run, grouped by setting for means and spreads over seeds."""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from jqlight.escape import WINDOW, escape_step
from jqlight.names import ESTIMATORS, SCORE, k_of_majority, majority, pass_at
from jqlight.report.runs import Curve, RunRecord

TIMES = ("time/sample", "time/score", "time/update", "time/sync")
SCORES = ("maj", "exact_maj", "pass_1", "pass_k")
NECESSITY = ("gain", "necessity_swapped", "necessity_empty", "empty_rationales")
"""What ``data.necessity`` measures, of which a comparison shows; columns are named like the metrics."""
COLUMNS = (
    *SCORES,
    *NECESSITY,
    *(f"test_{name}" for name in SCORES),
    *("best_step", "escape", "success", "log_success", "minutes", "tokens"),
)
"""Values of a run: shares in [0, 1], steps in optimizer steps, log success in nats; a run has NaN for what it lacks."""
_CURVES = ("train/success", "train/log_success", "train/max_amplified_advantage", "train/thinking_tokens", *TIMES)
# Settings that differ from run to run without being what is compared.
_BOOKKEEPING = (
    "run_dir",
    "run_name",
    "experiment_name",
    "ckpt_path",
    "seed_everything",
    "trainer.logger",
    "config",
    "checkpoint",
    "data.necessity",
)
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
    def panel(self) -> str:
        """Everything but estimator and q: settings that agree in it are drawn into one panel of a figure."""
        named = [f"{key.rsplit('.', 1)[-1]} {value}" for key, value in self.others]
        return ", ".join(part for part in (self.benchmark, self.scenario, *named) if part)

    @property
    def method(self) -> str:
        """Estimator and q, such as ``GARL q=0.75``, ``GARL splice(0.05)`` or ``GRPO``."""
        if not self.q:
            return self.estimator
        return f"{self.estimator} q={self.q_number:g}" if self.q_number is not None else f"{self.estimator} {self.q}"

    def sort_key(self) -> tuple[Any, ...]:
        """Panel, then estimator in the order of the paper, then q ascending, then commitments by name."""
        order = ESTIMATORS.index(self.estimator) if self.estimator in ESTIMATORS else len(ESTIMATORS)
        number = self.q_number
        return (self.panel, order, self.estimator, number is None, number if number is not None else 0.0, self.q)


@dataclass(frozen=True)
class Comparison:
    """Runs side by side."""

    runs: pd.DataFrame
    """A row per run, as they are shown: ``setting`` (:class:`Setting`), ``record`` (RunRecord) and :data:`COLUMNS`."""
    k: int | None
    """Samples in maj@k and pass@k; None before the first validation, or when runs differ."""

    def settings(self) -> dict[Setting, pd.DataFrame]:
        """The runs of each setting."""
        # pandas-stubs takes a key for any scalar.
        return dict(iter(self.runs.groupby("setting", sort=False)))  # type: ignore[arg-type]

    def best(self) -> tuple[Setting, "pd.Series[float]"] | None:
        """The setting with the largest mean maj@k, then pass@1, over its runs, and its means; None without scores."""
        means = [(setting, runs[list(SCORES)].mean()) for setting, runs in self.settings().items()]
        scored = [entry for entry in means if not math.isnan(entry[1]["maj"])]
        return max(scored, key=lambda entry: (entry[1]["maj"], entry[1]["pass_1"])) if scored else None

    def panels(self) -> dict[str, dict[Setting, pd.DataFrame]]:
        """The settings of each panel, with their runs."""
        found: dict[str, dict[Setting, pd.DataFrame]] = {}
        for setting, runs in self.settings().items():
            found.setdefault(setting.panel, {})[setting] = runs
        return found


def compare(records: Sequence[RunRecord]) -> Comparison:
    """The comparison of some runs."""
    others = _distinguishing(records)
    rows: list[dict[str, Any]] = []
    for record in records:
        rest = tuple((key, record.params[key]) for key in others if key in record.params)
        setting = Setting(record.benchmark, record.scenario, record.estimator, record.q, rest)
        rows.append({"setting": setting, "record": record, **values(record)})
    rows.sort(key=lambda row: row["setting"].sort_key())
    sizes = {size for record in records if (size := samples(record)) is not None}
    runs = pd.DataFrame(rows, columns=["setting", "record", *COLUMNS])
    return Comparison(runs.astype(dict.fromkeys(COLUMNS, float)), sizes.pop() if len(sizes) == 1 else None)


def mean_curve(runs: pd.DataFrame, key: str) -> pd.DataFrame:
    """``mean``, ``min`` and ``max`` of metric ``key`` by step, over those runs that logged the step."""
    curves = [pd.Series(dict(record.curve(key)), dtype=float) for record in runs["record"]]
    return pd.concat(curves, axis=1).sort_index().agg(["mean", "min", "max"], axis=1)


def metric_keys(record_keys: Iterable[str], judged: str | None = None) -> list[str]:
    """Of a run's metrics, those whose history a comparison needs; ``judged`` is one more, of validation."""
    wanted = {*_CURVES, f"val/{judged}"}
    return [key for key in record_keys if key in wanted or (key.startswith("val/") and _is_shown(key))]


def _is_shown(key: str) -> bool:
    found = SCORE.fullmatch(key)
    return key.removeprefix("val/") in NECESSITY or (found is not None and found["verifier"] in ("", "exact_"))


def samples(record: RunRecord) -> int | None:
    """k of the run's maj@k, the largest if it logged several; None before its first validation."""
    return max((k for key in record.last if (k := k_of_majority(key))), default=None)


def values(record: RunRecord) -> dict[str, float]:
    """What the metrics of one run come to: those of :data:`COLUMNS` that it has.

    Validation numbers are those of the first validation with the best maj@k, the checkpoint that is kept as the best.
    """
    success, log_success = record.curve("train/success"), record.curve("train/log_success")
    seconds = sum(value for key in TIMES for _, value in record.curve(key))
    found = {
        **_scores(record),
        "escape": escape_step(success),
        "success": _last_mean(success),
        "log_success": _last_mean(log_success),
        "minutes": seconds / 60 or None,
        "tokens": _tokens(record),
    }
    return {column: float(value) for column, value in found.items() if value is not None}


def as_number(text: str) -> float | None:
    """The number that ``text`` spells; None if it spells none."""
    try:
        return float(text)
    except ValueError:
        return None


def _scores(record: RunRecord) -> dict[str, float | None]:
    k = samples(record)
    if k is None:
        return {}
    names = dict(zip(SCORES, (majority(k), majority(k, "exact_"), pass_at(1), pass_at(k)), strict=True))
    found = {f"test_{column}": record.last.get(f"test/{name}") for column, name in names.items()}
    if curve := record.curve(f"val/{names['maj']}"):
        best, _ = max(curve, key=lambda point: (point[1], -point[0]))
        names |= {name: name for name in NECESSITY}
        found |= {column: dict(record.curve(f"val/{name}")).get(best) for column, name in names.items()}
        found["best_step"] = float(best)
    return found


def _last_mean(curve: Curve) -> float | None:
    last = [value for _, value in curve[-WINDOW:]]
    return sum(last) / len(last) if last else None


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
    of_q = any(re.match(rf"{re.escape(key)}(\.|$)", name) for key in _OF_Q)
    return name in _ATTRIBUTES or of_q or name.startswith(_BOOKKEEPING)
