"""What a handful of runs can tell: intervals over seeds and questions, permutation tests, escape times.

Numbers in, numbers out; docs/howto/compare.md says how to read them. The resampling, the log-rank test and the
Kaplan-Meier estimate are scipy's.
"""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

ALPHA, POWER = 0.05, 0.8
"""Chance of telling a difference that is not there, over all comparisons; chance of telling one that is."""
MOST_SEEDS = 100
"""Beyond so many seeds each, "how many would tell" is not said."""
PAIRED_FROM = 6
"""Common seeds from which runs are paired by seed: with fewer a paired test cannot reach 0.05 (2/2^5 = 0.06)."""
_RESAMPLES = 9999
_BOOTSTRAPS = 2000

Floats = NDArray[np.float64]
Interval = tuple[float, float]


@dataclass(frozen=True)
class Sample:
    """One setting's results: a score per run and, where the runs kept them, a table of runs × questions."""

    scores: pd.Series
    """Score of each run by its seed; a seed may come twice."""
    table: pd.DataFrame | None = None
    """Each run's score on each question, rows as ``scores``, columns by question id."""
    share: bool = False
    """Whether scores are shares, so that an interval ends at 0 and 1."""

    def on(self, questions: Sequence[str] | None) -> "Sample":
        """The same runs scored on these questions alone; None leaves the table out."""
        if questions is None or self.table is None:
            return replace(self, table=None)
        table = self.table[list(questions)]
        return replace(self, scores=table.mean(axis=1), table=table)

    def at(self, seeds: Sequence[str]) -> "Sample":
        """The runs with these seeds, in this order."""
        table = None if self.table is None else self.table.loc[list(seeds)]
        return replace(self, scores=self.scores.loc[list(seeds)], table=table)

    @property
    def n(self) -> int:
        """Number of runs."""
        return len(self.scores)

    @property
    def values(self) -> Floats:
        """Score of each run, (n,)."""
        return self.scores.to_numpy(dtype=float)

    @property
    def by_question(self) -> list[Floats]:
        """Mean over runs of each question's score, (questions,), in a list; empty without the table."""
        return [] if self.table is None else [self.table.to_numpy(dtype=float).mean(axis=0)]

    def interval(self) -> Interval | None:
        """95 % interval of the mean over seeds and questions; None for one run without the table."""
        found = interval(float(self.values.mean()), [self.values, *self.by_question])
        return (max(0.0, found[0]), min(1.0, found[1])) if found and self.share else found


def interval(mean: float, levels: Sequence[Floats]) -> Interval | None:
    """95 % interval of a mean to which each of ``levels`` contributes its own chance; None without levels of two.

    Each level (seeds of a setting, questions) is resampled by the bootstrap, its standard error enlarged by
    sqrt(n / (n - 1)), without which few seeds look too sure. Variances add up; the interval is Student's t with
    Satterthwaite's degrees of freedom.
    """
    levels = [level for level in levels if len(level) > 1]
    parts = [_standard_error(level) ** 2 * len(level) / (len(level) - 1) for level in levels]
    if not parts:
        return None
    total = sum(parts)
    if total == 0:
        return mean, mean
    freedom = total**2 / sum(part**2 / (len(level) - 1) for part, level in zip(parts, levels, strict=True))
    half = float(stats.t.ppf(1 - ALPHA / 2, freedom)) * math.sqrt(total)
    return mean - half, mean + half


def _standard_error(level: Floats) -> float:
    if np.ptp(level) == 0:
        return 0.0
    found = stats.bootstrap((level,), np.mean, n_resamples=_BOOTSTRAPS, method="percentile", rng=0)
    return float(found.standard_error)


@dataclass(frozen=True)
class Difference:
    """One setting's mean score minus another's."""

    value: float
    interval: Interval | None
    """95 %, over seeds and, where both kept them, questions; not corrected for several comparisons."""
    p: float | None
    """Two-sided p-value of a permutation test over runs; None where a side has one run."""
    smallest: float
    """The smallest p-value that this number of runs can give."""
    paired: bool
    """Whether runs were paired by seed."""


def difference(a: Sample, b: Sample) -> Difference:
    """``a`` minus ``b``: paired by question where both have the same ones, and by seed from PAIRED_FROM of them on."""
    x, y, paired = _matched(a, b)
    value = float(x.values.mean() - y.values.mean())
    runs = [x.values - y.values] if paired else [x.values, y.values]
    questions = [p - q for p, q in zip(x.by_question, y.by_question)]
    return Difference(
        value, interval(value, [*runs, *questions]), permutation_p(a, b), smallest_p(x.n, y.n, paired=paired), paired
    )


def permutation_p(a: Sample, b: Sample) -> float | None:
    """Two-sided p-value of a permutation test over runs (by sign where they are paired); None with a single run."""
    x, y, paired = _matched(a, b)
    if min(x.n, y.n) < 2:
        return None

    def statistic(x: Floats, y: Floats, axis: int) -> Floats:
        return cast(Floats, x.mean(axis=axis) - y.mean(axis=axis))

    kind = "samples" if paired else "independent"
    test = stats.permutation_test(
        (x.values, y.values), statistic, permutation_type=kind, vectorized=True, n_resamples=_RESAMPLES, rng=0
    )
    return float(test.pvalue)


def smallest_p(n: int, m: int, *, paired: bool = False) -> float:
    """Smallest two-sided p of a permutation test of n runs against m; of n pairs where ``paired``."""
    return min(1.0, 2 / (2**n if paired else math.comb(n + m, n)))


def _matched(a: Sample, b: Sample) -> tuple[Sample, Sample, bool]:
    """Both samples at their common seeds, if these are enough to be paired; else as they are."""
    unique = a.scores.index.is_unique and b.scores.index.is_unique
    common = sorted(set(a.scores.index) & set(b.scores.index) - {""}) if unique else []
    return (a.at(common), b.at(common), True) if len(common) >= PAIRED_FROM else (a, b, False)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's correction: p-values of one family, each as large as its rank among them makes it, at most 1."""
    order = np.argsort(p_values, kind="stable")
    factors = len(p_values) - np.arange(len(p_values))
    raised = np.minimum(1.0, np.maximum.accumulate(np.asarray(p_values, dtype=float)[order] * factors))
    found = np.empty(len(p_values))
    found[order] = raised
    return [float(p) for p in found]


def seeds_that_would_tell(a: Sample, b: Sample, comparisons: int) -> int | None:
    """Seeds each with which a difference as large as the observed one is told with 80 % probability, an estimate.

    From the spread over seeds seen so far, by Student's t at 0.05 over the number of comparisons, more than there are
    and no fewer than a permutation test needs to get there; None above MOST_SEEDS. Where a side has one run no spread
    is known: the fewest with which anything can be told.
    """
    known = min(a.n, b.n) > 1
    gap = abs(float(a.values.mean() - b.values.mean()))
    spread = math.sqrt((float(a.values.var(ddof=1)) + float(b.values.var(ddof=1))) / 2) if known else 0.0
    level = ALPHA / comparisons
    for n in range(max(2, min(a.n, b.n) + 1), MOST_SEEDS + 1):
        if smallest_p(n, n) <= level and (not known or _power(gap, spread, n, level) >= POWER):
            return n
    return None


def _power(gap: float, spread: float, n: int, level: float) -> float:
    if spread == 0 or gap == 0:
        return float(gap > 0)
    freedom, shift = 2 * n - 2, gap / spread * math.sqrt(n / 2)
    return float(stats.nct.sf(stats.t.ppf(1 - level / 2, freedom), freedom, shift))


# -- escape times ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Escapes:
    """Escape steps of some runs; of a run that has not escaped, the last step at which it was watched."""

    escaped: list[float] = field(default_factory=list)
    never: list[float] = field(default_factory=list)

    @property
    def n(self) -> int:
        """Number of runs."""
        return len(self.escaped) + len(self.never)

    @property
    def median(self) -> float | None:
        """Kaplan-Meier median; None where half of the runs have not escaped while they were watched."""
        if not self.escaped:
            return None
        survival = stats.ecdf(self._censored()).sf
        reached = survival.quantiles[survival.probabilities <= 0.5 + 1e-12]
        return float(reached[0]) if len(reached) else None

    def __str__(self) -> str:
        """``25 (3 of 4)``, or ``> 60 (1 of 4)`` where the median is not reached; a dash without runs."""
        if not self.n:
            return "–"
        median = self.median
        shown = f"> {max(self.escaped + self.never):g}" if median is None else f"{median:g}"
        return f"{shown} ({len(self.escaped)} of {self.n})"

    def _censored(self) -> "stats.CensoredData":
        return stats.CensoredData(uncensored=self.escaped, right=self.never)

    def log_rank(self, other: "Escapes") -> float | None:
        """Two-sided p-value of the log-rank test (asymptotic); None where nothing escaped or a side has one run."""
        if min(self.n, other.n) < 2 or not (self.escaped or other.escaped):
            return None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # 0/0 where all escaped at once: no difference
            p = float(stats.logrank(self._censored(), other._censored()).pvalue)
        return 1.0 if math.isnan(p) else p
