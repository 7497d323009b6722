"""The report of a comparison: one HTML file that needs no network, and the same tables and figures one by one."""

import base64
import html
import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from mlflow import MlflowClient
from mlflow.entities import Run

from jqlight.errors import ConfigError
from jqlight.escape import THRESHOLD, WINDOW
from jqlight.report.compare import Comparison, compare, metric_keys
from jqlight.report.figures import Picture, pictures
from jqlight.report.published import Beside, beside, read_published
from jqlight.report.runs import SWEEP_FILE, child_records, single_records
from jqlight.report.tables import TextTable, published_table, run_table, summary_table
from jqlight.tracking.mlflow import redacted

ARTIFACTS = "comparison"
"""Artifact folder of the parent run."""
_SUMMARY = f"{ARTIFACTS}/summary.json"

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 84rem; padding: 0 1rem; color: #1a1a1a;
  background: #fff; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 0.9rem; }
th, td { padding: 0.25rem 0.55rem; border-bottom: 1px solid #ddd; text-align: right; white-space: nowrap; }
th.name, td.name { text-align: left; }
figure { margin: 1rem 0; } img { max-width: 100%; } figcaption, .note { color: #555; font-size: 0.9rem; }
"""

_NOTES = (
    "Validation numbers are those of each run's best validation (largest maj@k, the earliest of equals), as means ± "
    "sample standard deviation over n runs; shares between 0 and 1.",
    f"Escape step: the first optimizer step at which the running mean of train/success over {WINDOW} steps reaches "
    f"{THRESHOLD:g}; the mean is over the runs that got there.",
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
    published: Sequence[Beside] = ()
    figures: list[Picture] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "figures", pictures(self.comparison))

    def tables(self) -> dict[str, TextTable]:
        """File name without ending -> table."""
        found = {"summary": summary_table(self.comparison), "runs": run_table(self.comparison)}
        if self.published:
            found["published"] = published_table(self.published)
        return found

    def notes(self) -> list[str]:
        """What a reader of the numbers must know, one sentence or two each."""
        unfinished = [
            f"{outcome.record.name} ({outcome.record.status.lower()})"
            for row in self.comparison.rows
            for outcome in row.outcomes
            if outcome.record.status != "FINISHED"
        ]
        warning = f"Not finished, and counted with what they have so far: {', '.join(unfinished)}."
        return [*([warning] if unfinished else []), *_NOTES]

    def write(self, folder: Path) -> Path:
        """Write report, tables and figures to ``folder``; the path of the report."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, table in self.tables().items():
            (folder / f"{name}.md").write_text(table.markdown(), encoding="utf-8")
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
        table = summary_table(self.comparison)
        # What MLflow's log_table writes; that one would append to the table of an earlier comparison.
        client.log_dict(run_id, {"columns": table.headings, "data": table.rows}, _SUMMARY)
        client.set_tag(run_id, "mlflow.loggedArtifacts", json.dumps([{"path": _SUMMARY, "type": "table"}]))

    def html(self) -> str:
        """The whole report as one HTML page with its figures inside."""
        tables = self.tables()
        parts = [
            f"<h1>{html.escape(self.title)}</h1>",
            f'<p class="note">{html.escape(self._origin())}</p>',
            "<h2>Summary</h2>",
            _table(tables["summary"]),
            *(f'<p class="note">{html.escape(note)}</p>' for note in self.notes()),
        ]
        if "published" in tables:
            parts += ["<h2>Beside published numbers (percent)</h2>", _table(tables["published"])]
            parts.append(f'<p class="note">Published: {html.escape(self.source)}</p>')
        parts.append("<h2>Figures</h2>")
        parts += [_figure(picture) for picture in self.figures] or ["<p>The runs have logged nothing to draw yet.</p>"]
        parts += ["<h2>Runs</h2>", _table(tables["runs"])]
        title = html.escape(self.title)
        head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title>'
        return f'<!doctype html>\n<html lang="en"><head>{head}<style>{_STYLE}</style></head>\n<body>\n' + (
            "\n".join(parts) + "\n</body></html>\n"
        )

    def _origin(self) -> str:
        sweeps = f"Sweeps: {', '.join(self.sweeps)}. " if self.sweeps else ""
        runs = sum(len(row.outcomes) for row in self.comparison.rows)
        return f"{sweeps}{runs} runs. Store: {redacted(self.store)}. Written {time.strftime('%Y-%m-%d %H:%M')}."


def read_report(client: MlflowClient, store: str, *, parents: Sequence[Run] = (), experiment: str = "") -> Report:
    """The report on some sweeps, or without any on the single runs of ``experiment``.

    Args:
        client: of the store.
        store: its URI, to be shown.
        parents: the sweeps' parent runs.
        experiment: name of the experiment; the report's title.

    Raises:
        ConfigError: there is nothing to compare.
    """
    if not parents:
        return Report(experiment, store, compare(single_records(client, experiment, metric_keys)))
    records = child_records(client, parents, metric_keys)
    names = [run.info.run_name or run.info.run_id for run in parents]
    if not records:
        raise ConfigError(f"sweep {', '.join(names)}: no point has started yet")
    comparison = compare(records)
    sources, rows = zip(*(read_published(_published_section(client, parent), SWEEP_FILE) for parent in parents))
    return Report(
        title=experiment or ", ".join(names),
        store=store,
        comparison=comparison,
        sweeps=[f"{name} ({run.info.run_id})" for name, run in zip(names, parents, strict=True)],
        source="; ".join(source for source in sources if source),
        published=beside(comparison, [entry for found in rows for entry in found]),
    )


def _published_section(client: MlflowClient, parent: Run) -> Mapping[str, Any] | None:
    """The ``published`` section of the sweep file that the parent run carries; None where there is no such file."""
    if SWEEP_FILE not in [entry.path for entry in client.list_artifacts(parent.info.run_id)]:
        return None
    with tempfile.TemporaryDirectory() as folder:
        text = Path(client.download_artifacts(parent.info.run_id, SWEEP_FILE, folder)).read_text(encoding="utf-8")
    return (yaml.safe_load(text) or {}).get("published")


def _table(table: TextTable) -> str:
    def line(cells: list[str], tag: str) -> str:
        classes = [' class="name"' if number < table.names else "" for number in range(len(cells))]
        return "".join(f"<{tag}{name}>{html.escape(cell)}</{tag}>" for name, cell in zip(classes, cells, strict=True))

    body = "\n".join(f"<tr>{line(row, 'td')}</tr>" for row in table.rows)
    return f'<div class="wide"><table>\n<tr>{line(table.headings, "th")}</tr>\n{body}\n</table></div>'


def _figure(picture: Picture) -> str:
    data = base64.b64encode(picture.png).decode()
    caption = html.escape(picture.caption)
    return (
        f'<figure><img alt="{caption}" src="data:image/png;base64,{data}"><figcaption>{caption}</figcaption></figure>'
    )
