"""The tables of a comparison: as rows of text, for the terminal and for the report alike."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.markup import escape
from rich.table import Table

from jqlight.report.compare import Comparison, Row, Spread
from jqlight.report.published import Beside


@dataclass(frozen=True)
class TextTable:
    """A table of strings; the first ``names`` columns are names, the rest numbers."""

    headings: list[str]
    rows: list[list[str]]
    names: int = 1

    def rich(self, width: int) -> Table:
        """The table for a terminal ``width`` characters wide: the columns that fit, from the left."""
        table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
        shown = self.fitting(width)
        for number, heading in enumerate(self.headings[:shown]):
            table.add_column(heading, justify="left" if number < self.names else "right", no_wrap=True)
        for row in self.rows:
            table.add_row(*map(escape, row[:shown]))
        return table

    def fitting(self, width: int) -> int:
        """How many columns fit into ``width`` characters; the names and one number are always shown."""
        widths = [max(len(row[number]) for row in [self.headings, *self.rows]) for number in range(len(self.headings))]
        fits = [number for number in range(1, len(widths) + 1) if sum(widths[:number]) + 2 * (number - 1) <= width]
        return max([self.names + 1, *fits])

    def markdown(self) -> str:
        """The table for a document."""
        rule = ["---"] * self.names + ["---:"] * (len(self.headings) - self.names)
        return "\n".join("| " + " | ".join(cells) + " |" for cells in [self.headings, rule, *self.rows]) + "\n"


def summary_table(comparison: Comparison) -> TextTable:
    """One row per setting: mean ± standard deviation over seeds. Columns that no run has anything for are left out.

    The columns come in the order of their importance, since a terminal shows those that fit.
    """
    k = comparison.k or "k"
    columns = [
        (f"maj@{k}", "maj", 3),
        (f"test maj@{k}", "test_maj", 3),
        (f"exact maj@{k}", "exact_maj", 3),
        ("escape step", "escape", 1),
        ("log success", "log_success", 1),
        ("pass@1", "pass_1", 3),
        ("test pass@1", "test_pass_1", 3),
        (f"pass@{k}", "pass_k", 3),
        (f"test pass@{k}", "test_pass_k", 3),
        ("best at step", "best_step", 0),
        ("success", "success", 2),
        ("minutes", "minutes", 1),
    ]
    # That no run escaped is a result: its column stays.
    asked = {"escape": "success"}
    columns = [
        column for column in columns if any(row.spread(asked.get(column[1], column[1])).n for row in comparison.rows)
    ]
    places = len(comparison.places()) > 1
    rows = []
    for row in comparison.rows:
        named = [row.setting.place] if places else []
        cells = [_cell(row, column, digits) for _, column, digits in columns]
        rows.append([*named, row.setting.method, str(len(row.outcomes)), *cells])
    headings = [*(["setting"] if places else []), "method", "n", *(heading for heading, _, _ in columns)]
    return TextTable(headings, rows, names=2 if places else 1)


def run_table(comparison: Comparison) -> TextTable:
    """One row per run: its seed, status and id, and the numbers that the summary is made of."""
    k = comparison.k or "k"
    columns = [(f"maj@{k}", "maj", 3), ("pass@1", "pass_1", 3), ("escape step", "escape", 0), ("success", "success", 2)]
    rows = [
        [
            outcome.record.name,
            outcome.record.seed or "–",
            outcome.record.status.lower(),
            *(number(outcome.values.get(column), digits) for _, column, digits in columns),
            outcome.record.run_id,
        ]
        for row in comparison.rows
        for outcome in row.outcomes
    ]
    return TextTable(["run", "seed", "status", *(heading for heading, _, _ in columns), "MLflow run id"], rows)


def published_table(table: Sequence[Beside]) -> TextTable:
    """Published numbers and ours, in percent, line by line."""
    rows = [
        [
            entry.published.setting.place,
            entry.published.setting.method,
            entry.metric.replace("_at_", "@"),
            f"{entry.published.percent[entry.metric]:.1f}",
            spread_text(_percent(entry.ours), 1),
            str(entry.ours.n) if entry.ours.n else "",
            entry.split,
        ]
        for entry in table
    ]
    return TextTable(["setting", "method", "metric", "published", "ours", "n", "our split"], rows, names=3)


def spread_text(spread: Spread, digits: int) -> str:
    """``0.512 ± 0.031``, the mean alone for one run, a dash for none."""
    if spread.mean is None:
        return "–"
    deviation = "" if spread.deviation is None else f" ± {spread.deviation:.{digits}f}"
    return f"{number(spread.mean, digits)}{deviation}"


def number(value: float | None, digits: int) -> str:
    """``value`` with so many digits, and without the sign of a zero; a dash for None."""
    return "–" if value is None else f"{value:z.{digits}f}"


def _cell(row: Row, column: str, digits: int) -> str:
    found = row.spread(column)
    if column != "escape":
        return spread_text(found, digits)
    total = len(row.outcomes)
    if not found.n:
        return "never"
    # The mean is over the runs that escaped: say so when not all did.
    return spread_text(found, digits) + ("" if found.n == total else f" ({found.n} of {total})")


def _percent(spread: Spread) -> Spread:
    scaled = [None if value is None else 100 * value for value in (spread.mean, spread.deviation)]
    return Spread(spread.n, *scaled)
