"""``jqlight compare``: the table, figures and report of sweeps or single runs, from MLflow alone."""

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from mlflow import MlflowClient
from rich.console import Console

from jqlight.cli.arguments import CommandParser
from jqlight.cli.ui import find_store
from jqlight.errors import ConfigError, JQLightError
from jqlight.files import read_json
from jqlight.report.html import Report, read_report
from jqlight.report.runs import find_parents, get_run
from jqlight.report.tables import heading, plain, terminal_table
from jqlight.tracking.mlflow import log, open_store, reason, redacted, store_errors, store_uri

_UNLIMITED = 1000


def main(argv: list[str]) -> int:
    """Exit code of ``jqlight compare``.

    Args:
        argv: what follows ``jqlight compare`` on the command line.

    Raises:
        ConfigError: no such store, experiment or run, or nothing in it to compare.
        JQLightError: the store cannot be used.
    """
    options = _parser().parse_args(argv)
    sweeps, runs = _recorded_runs(options.folders)
    uri = _common_store(options.folders, options.store) if options.folders else store_uri(options.store)
    client = open_store(uri, must_exist=True)
    try:
        if options.experiment:
            parents = find_parents(client, options.experiment)
        else:
            named = {**sweeps, **dict.fromkeys(options.parent or (), "--parent")}
            parents = [get_run(client, run_id, given) for run_id, given in named.items()]
        report = read_report(
            client,
            uri,
            parents=parents,
            runs=[get_run(client, run_id, given) for run_id, given in runs.items()],
            experiment=options.experiment or "",
            metric=options.metric,
            baseline=options.baseline,
        )
    except store_errors() as error:
        raise JQLightError(
            f"MLflow at {redacted(uri)} cannot be read ({reason(error)}); is its server running?"
        ) from error
    folder = options.out or Path("runs") / "comparisons" / re.sub(r"[^\w.-]+", "-", report.title)
    present(Console(), report, folder)
    if parents:
        log_report(client, report, parents[0].info.run_id, folder)
    return 0


def present(console: Console, report: Report, folder: Path) -> None:
    """Print the tables and write the report to ``folder``."""
    tables = report.tables()
    _print(console, tables["summary"])
    _say(console, report.sentences(), title=f"\nVerdicts on {heading(report.metric)}:")
    _say(console, report.notes(), style="dim")
    if "published" in tables:
        console.print(
            f"\nCompared with published numbers, in percent ({plain(report.source)}):", markup=False, highlight=False
        )
        _print(console, tables["published"])
    console.print(f"\nreport: {report.write(folder)}", markup=False, highlight=False, soft_wrap=True)


def _say(console: Console, texts: Sequence[str], *, title: str = "", style: str | None = None) -> None:
    for text in [title, *texts] if texts and title else texts:
        console.print(plain(text), markup=False, style=style, highlight=False, soft_wrap=not console.is_terminal)


def _print(console: Console, table: pd.DataFrame) -> None:
    if not console.is_terminal:  # a pipe has no width: everything is shown there
        console = Console(file=console.file, width=_UNLIMITED)
    shown, hidden = terminal_table(table, console.width)
    console.print(shown)
    if hidden:
        console.print(f"not shown for lack of room: {', '.join(hidden)}", style="dim", highlight=False)


def log_report(client: MlflowClient, report: Report, run_id: str, folder: Path) -> None:
    """Log the report in ``folder`` to a sweep's parent run; a store that has gone away meanwhile is only a warning."""
    try:
        report.log(client, run_id, folder)
    except store_errors() as error:
        log.warning("The report could not be logged to MLflow (%s); it is in %s.", reason(error), folder)


def _recorded_runs(folders: Sequence[Path]) -> tuple[dict[str, str], dict[str, str]]:
    """MLflow's ids of the sweeps' parent runs and of the single runs in ``folders``, each with its folder.

    Raises:
        ConfigError: a folder is neither a sweep's nor a run's, or was written without MLflow.
    """
    found: tuple[dict[str, str], dict[str, str]] = {}, {}
    for folder in folders:
        for kind, (file, key) in enumerate((("sweep.json", "parent_run_id"), ("run.json", "run_id"))):
            record = read_json(folder / file)
            if record is None:
                continue
            if not isinstance(record, dict) or not isinstance(record.get(key), str):
                raise ConfigError(f"{folder / file} names no run of MLflow; give --experiment NAME, or another folder")
            found[kind][record[key]] = str(folder)
            break
        else:
            raise ConfigError(
                f"{folder} is no folder of a sweep or a run (it has no sweep.json and no run.json); "
                f"give one, such as runs/quickstart, or --experiment NAME"
            )
    return found


def _common_store(folders: Sequence[Path], given: str | None) -> str:
    """The one store that all ``folders`` were logged to.

    Raises:
        ConfigError: they were logged to several, or there is none.
    """
    stores = {find_store(folder, given): folder for folder in folders}
    if len(stores) > 1:
        told = ", ".join(f"{folder} in {redacted(store)}" for store, folder in stores.items())
        raise ConfigError(f"one comparison reads one MLflow store, given {told}; bring them together by jqlight sync")
    return next(iter(stores))


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser("compare", "Table, figures and report over the runs of a sweep, read from MLflow alone.")
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("folders", nargs="*", type=Path, default=[], metavar="FOLDER", help="folders of sweeps or runs")
    which.add_argument("--experiment", help="MLflow experiment: its newest sweep of each name, else its single runs")
    which.add_argument("--parent", action="append", metavar="RUN_ID", help="parent run of a sweep; may be repeated")
    parser.add_argument(
        "--store", help="tracking URI or sqlite file (default: MLFLOW_TRACKING_URI, else runs/mlflow.db)"
    )
    parser.add_argument("--metric", help="validation metric that verdicts are about, such as exact_pass_at_1 (maj@k)")
    parser.add_argument(
        "--baseline", metavar="METHOD", help="row to compare with (default: that with the highest mean)"
    )
    parser.add_argument("--out", type=Path, help="folder of the report (default: runs/comparisons/NAME)")
    return parser
