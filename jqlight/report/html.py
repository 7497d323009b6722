"""The report of a comparison: one HTML file that needs no network, and the same tables and figures one by one."""

import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from mlflow import MlflowClient
from mlflow.entities import Run

from jqlight.errors import ConfigError
from jqlight.escape import THRESHOLD, WINDOW
from jqlight.names import majority, pass_at
from jqlight.report.compare import Comparison, compare, metric_keys
from jqlight.report.figures import Picture, pictures
from jqlight.report.page import render
from jqlight.report.published import compare_with_published, read_published
from jqlight.report.runs import SWEEP_FILE, child_records, read_questions, read_records, single_records
from jqlight.report.sentences import LEGEND, pairing_note, sentence
from jqlight.report.tables import heading, markdown, plain, run_table, summary_table, verdict_table
from jqlight.report.verdicts import Verdict, check_judged, question_notes, verdicts
from jqlight.tracking.journal import read_record
from jqlight.tracking.mlflow import redacted, sqlite_path
from jqlight.tracking.run_folder import is_live

_NAMED = 3
"""Sweeps and runs that a report's title names."""

ARTIFACTS = "comparison"
"""Artifact folder of the parent run."""
_SUMMARY = f"{ARTIFACTS}/summary.json"
_NOTE, _NOTE_CHARACTERS = "mlflow.note.content", 5000  # servers refuse longer ones
_NOTES = (
    "Validation numbers are those of each run's best validation (largest maj@k, the earliest of equals), as means ± "
    "sample standard deviation over n runs, of two runs with both values instead; shares between 0 and 1. They "
    "describe these runs; what the runs can tell is in the verdicts.",
    f"Escape step: the first optimizer step at which the running mean of train/success over {WINDOW} steps reaches "
    f"{THRESHOLD:g}; shown is the median over runs (Kaplan-Meier), or > the last step where half of them never did.",
    f"Success and log success: means of train/success (a probability) and train/log_success (nats) over the last "
    f"{WINDOW} logged steps. Minutes: sampling, scoring, update and weight sync, without validation and start-up.",
)


@dataclass(frozen=True)
class Report:
    """What is reported, and where it comes from."""

    title: str
    store: str
    comparison: Comparison
    sweeps: Sequence[str] = ()
    """Name and run id of the sweeps that the runs belong to."""
    source: str = ""
    """Where the published numbers come from."""
    published: pd.DataFrame = field(default_factory=pd.DataFrame)
    """From :func:`jqlight.report.published.compare_with_published`; may be empty."""
    verdicts: Sequence[Verdict] = ()
    """From :func:`jqlight.report.verdicts.verdicts`."""
    remarks: Sequence[str] = ()
    """What to know of the questions that the verdicts are over."""
    metric: str = ""
    """The validation metric that verdicts are about."""
    figures: list[Picture] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "figures", pictures(self.comparison))

    def tables(self) -> dict[str, pd.DataFrame]:
        """File name without ending -> table of text."""
        found = {"summary": summary_table(self.comparison, self.verdicts, self.metric)}
        if any(verdict.reference for verdict in self.verdicts):
            found["verdicts"] = verdict_table(self.verdicts)
        found["runs"] = run_table(self.comparison)
        return found if self.published.empty else {**found, "published": self.published}

    def sentences(self) -> list[str]:
        """The verdicts in words, one a row."""
        several = len({verdict.setting.panel for verdict in self.verdicts}) > 1
        return [sentence(verdict, with_panel=several) for verdict in self.verdicts]

    def notes(self) -> list[str]:
        """What a reader of the numbers must know, one sentence or two each."""
        records = self.comparison.runs["record"]
        gone = _without_process(self.store)
        unfinished = [
            f"{run.name} ({run.status.lower()}{', with no process left' if run.run_id in gone else ''})"
            for run in records
            if run.status != "FINISHED"
        ]
        warning = f"Not finished, and counted with what they have so far: {', '.join(unfinished)}."
        pairing = pairing_note(self.verdicts)
        return [*([warning] if unfinished else []), *self.remarks, *([pairing] if pairing else []), *_NOTES]

    def write(self, folder: Path) -> Path:
        """Write report, tables and figures to ``folder``; the path of the report."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, table in self.tables().items():
            (folder / f"{name}.md").write_text(markdown(table), encoding="utf-8")
        for figure in self.figures:
            (folder / f"{figure.name}.png").write_bytes(figure.png)
        path = folder / "report.html"
        path.write_text(self.html(), encoding="utf-8")
        return path

    def log(self, client: MlflowClient, run_id: str, folder: Path) -> None:
        """Log what :meth:`write` wrote to ``folder`` as artifacts of a run, and the summary as a table of the UI."""
        for path in sorted(folder.iterdir()):
            if path.suffix in (".html", ".md", ".png"):
                client.log_artifact(run_id, str(path), ARTIFACTS)
        table = self.tables()["summary"].reset_index().to_dict(orient="split", index=False)
        # What MLflow's log_table writes; that one would append to the table of an earlier comparison.
        client.log_dict(run_id, table, _SUMMARY)
        client.set_tag(run_id, "mlflow.loggedArtifacts", json.dumps([{"path": _SUMMARY, "type": "table"}]))
        if len(self.sweeps) == 1:
            self._summarise(client, client.get_run(run_id))

    def _summarise(self, client: MlflowClient, parent: Run) -> None:
        """Put the best setting's scores and the table on the sweep's own page; a description of someone's own stays."""
        best, note = self.comparison.best(), parent.data.tags.get(_NOTE, "")
        head = f"Sweep {parent.info.run_name}: "
        if best is None or (note and not note.startswith(head)):
            return
        setting, means = best
        names = {"maj": majority(self.comparison.k or "k"), "pass_1": pass_at(1)}
        values = {f"best/{name}": float(means[column]) for column, name in names.items()}
        if setting.q_number is not None:
            values["best/q"] = setting.q_number
        for name, value in values.items():
            if parent.data.metrics.get(name) != value:
                client.log_metric(parent.info.run_id, name, value)
        scores = ", ".join(f"{name.removeprefix('best/')} {value:.3f}" for name, value in values.items())
        text = f"{head}{len(self.comparison.runs)} runs. Highest mean: {plain(setting.method)} ({scores})."
        table = f"{text}\n\n{markdown(self.tables()['summary'])}"
        client.set_tag(parent.info.run_id, _NOTE, table if len(table) <= _NOTE_CHARACTERS else text)

    def html(self) -> str:
        """The whole report as one HTML page with its figures inside."""
        sweeps = f"Sweeps: {', '.join(self.sweeps)}. " if self.sweeps else ""
        origin = f"{sweeps}{len(self.comparison.runs)} runs. Store: {redacted(self.store)}."
        return render(
            "report.html.j2",
            title=self.title,
            origin=f"{origin} Written {time.strftime('%Y-%m-%d %H:%M')}.",
            tables=self.tables(),
            sentences=self.sentences(),
            legend=LEGEND,
            judged=heading(self.metric),
            notes=self.notes(),
            source=self.source,
            figures=self.figures,
        )


def read_report(
    client: MlflowClient,
    store: str,
    *,
    parents: Sequence[Run] = (),
    runs: Sequence[Run] = (),
    experiment: str = "",
    metric: str | None = None,
    baseline: str | None = None,
) -> Report:
    """The report on some sweeps and single runs, or without any on the single runs of ``experiment``.

    Args:
        client: of the store.
        store: its URI, to be shown.
        parents: the sweeps' parent runs.
        runs: single runs.
        experiment: name of the experiment; the report's title.
        metric: validation metric that verdicts are about; None for maj@k.
        baseline: method that the others are compared with; None for the one with the highest mean.

    Raises:
        ConfigError: there is nothing to compare, no run has the metric, or no row is the baseline.
    """
    keys = partial(metric_keys, judged=metric)
    names = [run.info.run_name or run.info.run_id for run in [*parents, *runs]]
    if parents or runs:
        records = [*child_records(client, parents, keys), *read_records(client, runs, keys)]
    else:
        records = single_records(client, experiment, keys)
    if not records:
        raise ConfigError(f"sweep {', '.join(names)}: no point has started yet")
    comparison = compare(records)
    judged = metric or majority(comparison.k or "k")
    if metric is not None:
        check_judged(metric, records)
    best = zip(comparison.runs["record"], comparison.runs["best_step"], strict=True)
    questions = read_questions(client, {record.run_id: int(step) for record, step in best if pd.notna(step)})
    found = verdicts(comparison, judged, questions, baseline)
    published = [read_published(_published_section(client, parent), SWEEP_FILE) for parent in parents]
    return Report(
        title=experiment or _title(names),
        store=store,
        comparison=comparison,
        sweeps=[f"{name} ({run.info.run_id})" for name, run in zip(names, parents, strict=False)],
        source="; ".join(source for source, _ in published if source),
        published=compare_with_published(comparison, [entry for _, entries in published for entry in entries]),
        verdicts=found,
        remarks=question_notes(comparison, found, judged, questions),
        metric=judged,
    )


def _title(names: Sequence[str]) -> str:
    return ", ".join(names if len(names) <= _NAMED else [*names[:_NAMED], f"{len(names) - _NAMED} more"])


def _published_section(client: MlflowClient, parent: Run) -> Mapping[str, Any] | None:
    """The ``published`` section of the sweep file that the parent run carries; None where there is no such file."""
    if SWEEP_FILE not in [entry.path for entry in client.list_artifacts(parent.info.run_id)]:
        return None
    with tempfile.TemporaryDirectory() as folder:
        text = Path(client.download_artifacts(parent.info.run_id, SWEEP_FILE, folder)).read_text(encoding="utf-8")
    return (yaml.safe_load(text) or {}).get("published")


def _without_process(store: str) -> set[str]:
    """Ids of the runs beside a sqlite store, sweeps' points among them, that say they run while nothing does."""
    file, found = sqlite_path(store), set()
    for path in [*file.parent.glob("*/run.json"), *file.parent.glob("*/*/run.json")] if file else []:
        record = read_record(path.parent)
        if record.get("status") == "RUNNING" and not is_live(path.parent):
            found.add(str(record.get("run_id")))
    return found
