"""The tables of a comparison as text: names in the index, numbers in the columns; for terminal, Markdown and report."""

import html
import re

import pandas as pd
from rich.markup import escape
from rich.table import Table

from jqlight.names import inert
from jqlight.report.compare import Comparison

_GAP = 2
_MARKDOWN = re.compile(r"([\\`*\[\]|])")
_TAG = re.compile(r"<(?=[a-z/!?])", re.IGNORECASE)


def summary_table(comparison: Comparison) -> pd.DataFrame:
    """One row per setting: mean ± standard deviation over seeds. Columns that no run has anything for are left out.

    The columns come in the order of their importance, since a terminal shows those that fit.
    """
    k = comparison.k or "k"
    columns = [
        (f"maj@{k}", "maj", 3),
        (f"test maj@{k}", "test_maj", 3),
        (f"exact maj@{k}", "exact_maj", 3),
        ("escape step", "escape", 1),
        ("necessity swapped", "necessity_swapped", 3),
        ("necessity empty", "necessity_empty", 3),
        ("gain", "gain", 2),
        ("empty z", "empty_rationales", 2),
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
    logged = comparison.runs.assign(escape=comparison.runs["success"]).notna().any()
    rows = [
        {"setting": setting.panel, "method": setting.method, "n": str(len(runs))}
        | {heading: _cell(runs[column], digits) for heading, column, digits in columns if logged[column]}
        for setting, runs in comparison.settings().items()
    ]
    table = pd.DataFrame(rows).set_index(["setting", "method"])
    return table if len(comparison.panels()) > 1 else table.droplevel("setting")


def run_table(comparison: Comparison) -> pd.DataFrame:
    """One row per run: its seed, status and id, and the numbers that the summary is made of."""
    k = comparison.k or "k"
    columns = {f"maj@{k}": ("maj", 3), "pass@1": ("pass_1", 3), "escape step": ("escape", 0), "success": ("success", 2)}
    rows = [
        {"run": run["record"].name, "seed": run["record"].seed or "–", "status": run["record"].status.lower()}
        | {heading: number(run[column], digits) for heading, (column, digits) in columns.items()}
        | {"MLflow run id": run["record"].run_id}
        for _, run in comparison.runs.iterrows()
    ]
    return pd.DataFrame(rows).set_index("run")


def spread_text(found: pd.Series, digits: int) -> str:
    """``0.512 ± 0.031``: mean and sample standard deviation, the mean alone for one value, a dash for none."""
    deviation = f" ± {found.std():.{digits}f}" if found.count() > 1 else ""
    return f"{number(found.mean(), digits)}{deviation}"


def number(value: float, digits: int) -> str:
    """``value`` with so many digits, and without the sign of a zero; a dash for NaN."""
    return "–" if pd.isna(value) else f"{value:z.{digits}f}"


def _cell(found: pd.Series, digits: int) -> str:
    if found.name != "escape" or found.notna().all():
        return spread_text(found, digits)
    # The mean is over the runs that escaped: say so when not all did.
    return f"{spread_text(found, digits)} ({found.count()} of {len(found)})" if found.count() else "never"


def terminal_table(table: pd.DataFrame, width: int) -> tuple[Table, list[str]]:
    """The table for a terminal ``width`` characters wide: the columns that fit, from the left, and those left out.

    The names and one number are always shown.
    """
    names, flat = table.index.nlevels, table.reset_index().map(plain)
    widths = [max(map(len, [heading, *flat[heading]])) + _GAP for heading in flat.columns]
    fits = [count for count in range(1, len(widths) + 1) if sum(widths[:count]) - _GAP <= width]
    shown = max([names + 1, *fits])
    found = Table(box=None, pad_edge=False, header_style="bold", padding=(0, _GAP, 0, 0))
    for i, heading in enumerate(flat.columns[:shown]):
        found.add_column(escape(heading), justify="left" if i < names else "right", no_wrap=True)
    for row in flat.to_numpy():
        found.add_row(*map(escape, row[:shown]))
    return found, list(flat.columns[shown:])


def plain(text: str) -> str:
    r"""``text`` from a store for a terminal, or for a page that shows what a program printed: no escapes, no tags."""
    return _TAG.sub(r"\\x3c", inert(text))


def markdown(table: pd.DataFrame) -> str:
    """The table for a document; what a name holds of HTML and Markdown is shown as it is."""
    names, flat = table.index.nlevels, table.reset_index()
    rule = ["---"] * names + ["---:"] * (len(flat.columns) - names)
    cells = [[_MARKDOWN.sub(r"\\\1", html.escape(cell, quote=False)) for cell in row] for row in _lines(flat)]
    return "\n".join(f"| {' | '.join(row)} |" for row in [cells[0], rule, *cells[1:]]) + "\n"


def _lines(flat: pd.DataFrame) -> list[list[str]]:
    return [[" ".join(str(cell).splitlines()) for cell in row] for row in [flat.columns, *flat.to_numpy()]]
