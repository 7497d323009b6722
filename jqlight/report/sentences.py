"""Verdicts in plain words, for readers who know no statistics."""

from collections.abc import Sequence

from jqlight.report.statistics import ALPHA, MOST_SEEDS, PAIRED_FROM, Interval
from jqlight.report.verdicts import ALONE, BASELINE, BETTER, HIGHEST, OPEN, WORSE, Verdict

LEGEND = (
    "A 95 % interval is the range of means that these runs leave open: other seeds and other questions of the same "
    "kind would have given another mean, and in 95 of 100 studies such a range holds the mean over all of them. The "
    "fewer runs, the wider it is.",
    "Better or worse is said where chance alone would give such a difference in fewer than 5 of 100 studies (p below "
    "0.05, corrected for the number of comparisons) and the difference holds for other questions too. Cannot tell does "
    "not mean equal.",
    "Escape step: the median, counting a run that never escaped as later than it was watched: > 60 (1 of 4) says that "
    "one of four runs escaped and half of them had not by step 60.",
)
"""What the words of a verdict mean."""
_ROLES = {
    HIGHEST: "has the highest mean",
    BASELINE: "is the baseline, with a mean",
    ALONE: "has nothing beside it to be compared with, and a mean",
}


def sentence(verdict: Verdict, *, with_panel: bool) -> str:
    """One row's verdict in words; ``with_panel`` where several panels have rows of the same name."""
    start = f"{verdict.setting.panel}: {verdict.setting.method}" if with_panel else verdict.setting.method
    if verdict.reference is None:
        return f"{start} {_ROLES[verdict.word]} of {_mean(verdict)}."
    return start + _compared(verdict) + _escape(verdict)


def interval_text(interval: Interval | None) -> str:
    """``0.51 to 0.79``; a dash for none."""
    return "–" if interval is None else f"{interval[0]:z.2f} to {interval[1]:z.2f}"


def seeds_text(verdict: Verdict) -> str:
    """How many seeds each would tell, for a table: ``9``, ``> 100``; a dash where nothing is open."""
    if verdict.reference is None or verdict.word != OPEN:
        return "–"
    if verdict.lacks_questions:
        return "more questions"
    return str(verdict.needed or f"> {MOST_SEEDS}")


def p_text(p: float | None) -> str:
    """A p-value with two digits; a dash for none."""
    return "–" if p is None else "< 0.001" if p < 0.001 else f"{p:.2g}"


def _mean(verdict: Verdict) -> str:
    sample = verdict.sample
    seeds = _count(sample.n, "seed")
    if verdict.interval is None:
        return f"{verdict.mean:.3f} (one seed, without an interval)"
    over = f"{seeds} alone" if sample.table is None else f"{seeds}, {_count(len(sample.table.columns), 'question')}"
    return f"{verdict.mean:.3f} (95 % interval {interval_text(verdict.interval)}; {over})"


def _compared(verdict: Verdict) -> str:
    gap, other = verdict.difference, verdict.reference
    assert gap is not None and other is not None
    size = f"{abs(gap.value):.3f} {_direction(gap.value)}"
    if verdict.word in (BETTER, WORSE):
        of = "" if verdict.comparisons == 1 else f", corrected for {verdict.comparisons} comparisons"
        return (
            f" is {verdict.word} than {other.setting.method}: {size} (95 % interval of the difference "
            f"{interval_text(gap.interval)}; p {_equals(verdict.corrected)}{of})."
        )
    seeds = f"{verdict.sample.n} and {_count(other.sample.n, 'seed')}"
    return f" cannot be told from {other.setting.method} with {seeds}: {size}{_range(gap.interval)}.{_way_on(verdict)}"


def _range(interval: Interval | None) -> str:
    if interval is None:
        return ""
    low, high = (f"{abs(end):.2f} {_direction(end)}" for end in interval)
    return f", while anything from {low} to {high} fits these runs"


def _way_on(verdict: Verdict) -> str:
    gap = verdict.difference
    assert gap is not None
    if verdict.lacks_questions:
        return f" p {_equals(verdict.corrected)} for these questions; more questions would tell, not more seeds."
    limit = ""
    if gap.p is not None and gap.smallest * verdict.comparisons > ALPHA:
        corrected = min(1.0, gap.smallest * verdict.comparisons)
        many = "" if verdict.comparisons == 1 else f", {corrected:.2g} corrected for {verdict.comparisons} comparisons"
        limit = f" No difference, however large, gives so few runs a p below {gap.smallest:.2g}{many}."
    if gap.p is None:
        return f" A single run says nothing about other seeds; run at least {verdict.needed or MOST_SEEDS} each."
    if verdict.needed is None:
        return f"{limit} More than {MOST_SEEDS} seeds each would be needed (an estimate)."
    return f"{limit} About {verdict.needed} seeds each would tell (an estimate from the spread of these runs)."


def _escape(verdict: Verdict) -> str:
    other = verdict.reference
    assert other is not None
    if not (verdict.escapes.escaped or other.escapes.escaped) or not (verdict.escapes.n and other.escapes.n):
        return ""
    tested = "" if verdict.escape_p is None else f" (log-rank p {_equals(verdict.escape_p)})"
    return f" Escape step: {verdict.escapes} against {other.escapes}{tested}."


def _equals(p: float | None) -> str:
    text = p_text(p)
    return text if text.startswith("<") else f"= {text}"


def _direction(value: float) -> str:
    return "lower" if value < 0 else "higher"


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"


def pairing_note(verdicts: Sequence[Verdict]) -> str:
    """How runs were permuted, and over what; empty where nothing was tested."""
    tested = [v.difference for v in verdicts if v.difference is not None and v.difference.p is not None]
    if not tested:
        return ""
    if all(gap.paired for gap in tested):
        return "Permutation tests pair runs by seed and, as all runs answer the same questions, by question."
    return (
        "Permutation tests exchange whole runs between two rows; with fewer than "
        f"{PAIRED_FROM} common seeds they are not paired by seed, since such a test could not reach 0.05."
    )
