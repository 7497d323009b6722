"""A verdict per row of a comparison: better, worse, or that so few runs cannot tell."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

import pandas as pd

from jqlight.errors import ConfigError
from jqlight.report.compare import Comparison, Setting
from jqlight.report.runs import RunRecord
from jqlight.report.statistics import (
    ALPHA,
    Difference,
    Escapes,
    Interval,
    Sample,
    difference,
    holm,
    permutation_p,
    seeds_that_would_tell,
)

BETTER, WORSE, OPEN = "better", "worse", "cannot tell"
HIGHEST, BASELINE, ALONE = "highest", "baseline", "alone"
_NEITHER = {"tie_rate", "unanswered_rate", "empty_rationales", "thinking_tokens"}
# Validation metrics of which more is neither better nor worse.
Questions = Mapping[str, pd.DataFrame]
"""Run id -> results by question of the validation that counts: a row per question id, a column per metric."""


Pair = frozenset[Setting]


@dataclass(frozen=True)
class Verdict:
    """One setting set against the reference of its panel."""

    setting: Setting
    sample: Sample
    word: str
    """better, worse or cannot tell; highest or baseline for the reference itself, alone where nothing is beside it."""
    escapes: Escapes
    reference: "Verdict | None" = None
    """The row that this one is compared with; None for that row itself."""
    difference: Difference | None = None
    """From the reference's score to this one's."""
    corrected: float | None = None
    """p-value of the difference after Holm's correction; None where a side has one run."""
    comparisons: int = 1
    """Comparisons of the family that was corrected for."""
    escape_p: float | None = None
    """p-value of the log-rank test of escape steps, corrected likewise; None where there is nothing to test."""

    @property
    def mean(self) -> float:
        """Mean score over runs."""
        return float(self.sample.values.mean())

    @cached_property
    def interval(self) -> Interval | None:
        """95 % interval of the mean; None for one run without results by question."""
        return self.sample.interval()

    @property
    def lacks_questions(self) -> bool:
        """Whether runs differ, but not beyond what other questions might have given: more seeds would not tell."""
        return self.word == OPEN and self.corrected is not None and self.corrected <= ALPHA

    @cached_property
    def needed(self) -> int | None:
        """Seeds each that would tell, an estimate; None where nothing is open, or where there would be too many."""
        if self.reference is None or self.word != OPEN or self.lacks_questions:
            return None
        return seeds_that_would_tell(self.sample, self.reference.sample, self.comparisons)


def verdicts(comparison: Comparison, metric: str, questions: Questions, baseline: str | None = None) -> list[Verdict]:
    """A verdict per setting that has the metric, panel by panel.

    A panel's rows are compared with ``baseline``, the method of one of them; without one with the highest mean, and
    then p-values are corrected for all pairs, since it is the data that chose it. Better or worse is said where the
    corrected p-value is below 0.05 and the interval of the difference leaves out 0.

    Args:
        comparison: the runs.
        metric: a validation metric's name without its stage.
        questions: of the runs that kept them.
        baseline: a method, as the table names it.

    Raises:
        ConfigError: no row has the baseline's name.
    """
    methods = list(dict.fromkeys(setting.method for setting in comparison.settings()))
    if baseline is not None and baseline not in methods:
        raise ConfigError(f"--baseline: given {baseline}, allowed are the table's methods: {', '.join(methods)}")
    found: list[Verdict] = []
    for settings in comparison.panels().values():
        samples = _samples(settings, metric, questions)
        escapes = {setting: escapes_of(settings[setting]) for setting in samples}
        found += _panel(samples, escapes, baseline)
    return found


def check_judged(metric: str, records: Sequence[RunRecord]) -> None:
    """Refuse a metric of which more is not better, or that no run has logged.

    Raises:
        ConfigError: that.
    """
    logged = {key.removeprefix("val/") for record in records for key in record.last if key.startswith("val/")}
    allowed = sorted(logged - _NEITHER)
    if metric not in allowed:
        raise ConfigError(f"--metric: given {metric}, allowed are {', '.join(allowed) or 'none, as nothing is logged'}")


def _samples(settings: Mapping[Setting, pd.DataFrame], metric: str, questions: Questions) -> dict[Setting, Sample]:
    """Each setting's runs that have the metric, all scored on the questions that the panel's runs have in common."""
    samples = {setting: _sample(runs, metric, questions) for setting, runs in settings.items()}
    samples = {setting: sample for setting, sample in samples.items() if sample.n}
    tables = [sample.table for sample in samples.values() if sample.table is not None]
    common = sorted(set.intersection(*(set(table.columns) for table in tables))) if tables else []
    return {setting: sample.on(common or None) for setting, sample in samples.items()}


def _sample(runs: pd.DataFrame, metric: str, questions: Questions) -> Sample:
    share = re.search(r"(maj|pass)_at_\d+$|accuracy$", metric) is not None
    scores, rows = {}, {}
    for record, step in zip(runs["record"], runs["best_step"], strict=True):
        score = dict(record.curve(f"val/{metric}")).get(int(step)) if pd.notna(step) else None
        if score is not None:
            scores[record.run_id] = (record.seed, score)
            if metric in questions.get(record.run_id, ()):
                rows[record.run_id] = questions[record.run_id][metric]
    seeds = [seed for seed, _ in scores.values()]
    series = pd.Series([score for _, score in scores.values()], index=seeds, dtype=float)
    if not scores or len(rows) < len(scores):
        return Sample(series, share=share)
    table = pd.DataFrame(rows).T.dropna(axis=1).set_axis(seeds, axis=0)
    return Sample(series, table if len(table.columns) else None, share)


def escapes_of(runs: pd.DataFrame) -> Escapes:
    """Escape steps of some runs, and of those that never escaped how long they were watched."""
    watched = [record.curve("train/success") for record in runs["record"]]
    ends = [(curve[-1][0], step) for curve, step in zip(watched, runs["escape"], strict=True) if curve]
    return Escapes([s for _, s in ends if pd.notna(s)], [float(end) for end, s in ends if pd.isna(s)])


def _panel(
    samples: Mapping[Setting, Sample], escapes: Mapping[Setting, Escapes], baseline: str | None
) -> list[Verdict]:
    if not samples:
        return []
    named = [setting for setting in samples if setting.method == baseline]
    reference = named[0] if named else max(samples, key=lambda setting: samples[setting].values.mean())
    pairs = [(s, reference) for s in samples if s != reference] if named else list(combinations(samples, 2))
    p_values = _corrected({frozenset(pair): permutation_p(*(samples[s] for s in pair)) for pair in pairs})
    ranks = _corrected({frozenset((a, b)): escapes[a].log_rank(escapes[b]) for a, b in pairs})
    word = ALONE if len(samples) == 1 else BASELINE if named else HIGHEST
    own = Verdict(reference, samples[reference], word, escapes[reference])
    found = []
    for setting, sample in samples.items():
        if setting == reference:
            found.append(own)
            continue
        gap, pair = difference(sample, own.sample), frozenset((setting, reference))
        word = _word(gap, p_values[pair])
        found.append(
            Verdict(setting, sample, word, escapes[setting], own, gap, p_values[pair], len(pairs), ranks[pair])
        )
    return found


def _corrected(p_values: Mapping[Pair, float | None]) -> dict[Pair, float | None]:
    """Holm's correction; what could not be tested is one of the family all the same, and stays None."""
    corrected = holm([1.0 if p is None else p for p in p_values.values()])
    return {pair: None if p is None else q for (pair, p), q in zip(p_values.items(), corrected, strict=True)}


def _word(gap: Difference, corrected: float | None) -> str:
    if corrected is None or corrected > ALPHA or gap.interval is None or gap.interval[0] <= 0 <= gap.interval[1]:
        return OPEN
    return BETTER if gap.value > 0 else WORSE


def question_notes(comparison: Comparison, found: Sequence[Verdict], metric: str, questions: Questions) -> list[str]:
    """What to know of the questions that verdicts are over: runs without results by question, and different ones."""
    ids = [record.run_id for record in comparison.runs["record"]]
    without = [run_id for run_id in ids if metric not in questions.get(run_id, ())]
    notes = []
    if without:
        notes.append(
            f"{len(without)} of {len(ids)} runs kept no results by question (an earlier version's, or without its "
            "artifacts): intervals of their rows are over seeds alone."
        )
    by_panel: dict[str, list[Verdict]] = {}
    for verdict in found:
        by_panel.setdefault(verdict.setting.panel, []).append(verdict)
    for panel, rows in by_panel.items():
        runs = pd.concat([comparison.settings()[row.setting] for row in rows])
        asked = {frozenset(questions[r.run_id].index) for r in runs["record"] if metric in questions.get(r.run_id, ())}
        if len(asked) > 1:
            common = len(frozenset.intersection(*asked))
            over = f"the {common} questions that all of them answered" if common else "seeds alone, as none is common"
            notes.append(f"{panel}: runs were validated on different questions; verdicts are over {over}.")
    return notes
