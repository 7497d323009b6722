"""The tables of a comparison as text: names in the index, numbers in the columns; for terminal, Markdown and report."""

import html
import re
from collections.abc import Mapping, Sequence

import pandas as pd
from rich.markup import escape
from rich.table import Table

from jqlight.names import inert
from jqlight.report.compare import Comparison
from jqlight.report.sentences import interval_text, p_text, seeds_text
from jqlight.report.verdicts import Verdict, escapes_of

_GAP = 2
_MARKDOWN = re.compile(r"([\\`*\[\]|])")
_TAG = re.compile(r"<(?=[a-z/!?])", re.IGNORECASE)


def summary_table(comparison: Comparison, verdicts: Sequence[Verdict] = (), metric: str = "") -> pd.DataFrame:
    """One row per setting: mean ± standard deviation over seeds, and the verdict on ``metric``.

    Columns that no run has anything for are left out. They come in the order of their importance, since a terminal
    shows those that fit.
    """
    k = comparison.k or "k"
    columns = [
        (f"maj@{k}", "maj", 3),
        (f"test maj@{k}", "test_maj", 3),
        (f"exact maj@{k}", "exact_maj", 3),
        ("escape step", "escape", 0),
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
    judged = {verdict.setting: verdict for verdict in verdicts}
    shown = [(title, column, digits) for title, column, digits in columns if logged[column]]
    first = 0 if heading(metric) != f"maj@{k}" else 1
    rows = [
        {"setting": setting.panel, "method": setting.method, "n": str(len(runs))}
        | {title: _cell(runs, column, digits) for title, column, digits in shown[:first]}
        | (_verdict_cells(judged.get(setting), metric, with_mean=not first) if judged else {})
        | {title: _cell(runs, column, digits) for title, column, digits in shown[first:]}
        for setting, runs in comparison.settings().items()
    ]
    return _by_setting(rows)


def _verdict_cells(verdict: Verdict | None, metric: str, *, with_mean: bool) -> dict[str, str]:
    mean = {heading(metric): spread_text(verdict.sample.scores, 3) if verdict else "–"} if with_mean else {}
    return mean | {
        "95 % interval": interval_text(verdict.interval if verdict else None),
        "verdict": verdict.word if verdict else "–",
        "seeds to tell": seeds_text(verdict) if verdict else "–",
    }


def verdict_table(verdicts: Sequence[Verdict]) -> pd.DataFrame:
    """One row per setting that was compared with another: the difference, its interval, p-values and escape steps."""
    rows = [
        {
            "setting": v.setting.panel,
            "method": v.setting.method,
            "against": v.reference.setting.method,
            "verdict": v.word,
            "difference": f"{v.difference.value:+.3f}",
            "95 % interval of it": interval_text(v.difference.interval),
            "p": p_text(v.difference.p),
            "corrected p": p_text(v.corrected),
            "comparisons": str(v.comparisons),
            "seeds to tell": seeds_text(v),
            "escape step": str(v.escapes),
            "log-rank p": p_text(v.escape_p),
        }
        for v in verdicts
        if v.reference is not None and v.difference is not None
    ]
    return _by_setting(rows)


def _by_setting(rows: Sequence[Mapping[str, str]]) -> pd.DataFrame:
    """The rows under their setting and method; under the method alone where there is one setting."""
    table = pd.DataFrame(rows).set_index(["setting", "method"])
    return table if table.index.get_level_values("setting").nunique() > 1 else table.droplevel("setting")


def heading(metric: str) -> str:
    """A metric as tables name it: ``maj@16``, ``exact pass@1``."""
    return metric.replace("_at_", "@").replace("_", " ")


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
    """``0.512 ± 0.031``: mean and sample standard deviation; both values of two in brackets; a dash for none."""
    if found.count() == 2:
        low, high = (number(value, digits) for value in sorted(found.dropna()))
        return f"{number(found.mean(), digits)} ({low}, {high})"
    deviation = f" ± {found.std():.{digits}f}" if found.count() > 1 else ""
    return f"{number(found.mean(), digits)}{deviation}"


def number(value: float, digits: int) -> str:
    """``value`` with so many digits, and without the sign of a zero; a dash for NaN."""
    return "–" if pd.isna(value) else f"{value:z.{digits}f}"


def _cell(runs: pd.DataFrame, column: str, digits: int) -> str:
    return str(escapes_of(runs)) if column == "escape" else spread_text(runs[column], digits)


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
