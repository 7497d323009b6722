"""The model card of an exported folder: what was trained from what, how it scores, and how to do it again."""

import html
import json
import re
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

import pandas as pd

import jqlight
from jqlight.names import QUESTIONS, SCORE, evaluation_name, format_value, inert
from jqlight.report.tables import markdown
from jqlight.tracking.journal import Journal, read_record
from jqlight.tracking.mlflow import redacted
from jqlight.tracking.params import flatten

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)


def write_card(folder: Path, settings: Mapping[str, Any], run: Path | None, step: int | None) -> None:
    """Write ``README.md`` into an exported folder; text that a user or a data set wrote is shown and does nothing.

    Args:
        folder: the exported folder.
        settings: hyper-parameters of the module, as in a checkpoint.
        run: folder of the run; None where it is not known, which leaves data, scores and the command out.
        step: optimizer steps behind the weights.
    """
    record = read_record(run) if run else {}
    facts = {**flatten(settings), **{k.removeprefix("model."): v for k, v in record.get("params", {}).items()}}
    base = str(facts.get("policy.name_or_path", ""))
    public = _HUB_ID.fullmatch(base) is not None and not Path(base).exists()
    estimator = inert(str(facts.get("estimator") or settings.get("estimator") or "jqlight")).rsplit(".", 1)[-1]
    q = record.get("tags", {}).get("q", settings.get("q"))
    rows = {
        "base model": base if public else PurePath(base).name,
        "estimator": estimator,
        "q": None if q is None else format_value(q),
        "scale": facts.get("scale"),
        "data": " ".join(str(facts[name]) for name in ("benchmark", "scenario") if name in facts) or None,
        "data file": PurePath(str(facts["data.path"])).name if "data.path" in facts else None,
        "rollouts per question": facts.get("rollouts"),
        "optimizer steps": step,
        "seed": facts.get("seed"),
        "jqlight": record.get("tags", {}).get("version.jqlight", jqlight.__version__),
    }
    head = ["library_name: transformers", "pipeline_tag: text-generation", "tags: [jqlight]"]
    head += [f"base_model: {json.dumps(base)}"] if public else []
    parts = [
        "\n".join(["---", *head, "# license: to be stated by whoever publishes this; mind the base model's", "---"]),
        f"# {_plain(record.get('run_name') or estimator)}",
        f"Trained with jqlight on the Tsallis loss family J_Q.\n\n{_table(rows, ('setting', 'value'))}",
        *(_of_run(run, step, facts) if run else []),
        "## License\n\nTo be stated by whoever publishes this model. The base model's and the data's licenses apply.",
    ]
    (folder / "README.md").write_text("\n\n".join(part.strip() for part in parts) + "\n", encoding="utf-8")


def _of_run(run: Path, step: int | None, facts: Mapping[str, Any]) -> list[str]:
    parts = []
    scores = {
        name: f"{value:.4f}"
        for row in Journal(run).metrics_from(0)[0]
        if row["step"] == step
        for name, value in row.items()
        if SCORE.fullmatch(name)
    }
    questions = {stage: _questions(run, stage, step) for stage in ("val", "test")}
    if scores:
        counts = "; ".join(f"{stage}: {n} questions" for stage, n in questions.items() if n and _has(scores, stage))
        samples = f" × {facts['samples']} samples" if "samples" in facts else ""
        parts.append(f"## Scores\n\n{_table(scores, ('score', 'value'))}\n{counts or 'questions: not noted'}{samples}.")
    command = "jqlight fit --config config.yaml"
    if (run / "config.yaml").is_file():
        parts.append(f"## Command\n\n    {command}\n\nwith the `config.yaml` that the run has saved beside its model.")
    return parts


def _has(scores: Mapping[str, str], stage: str) -> bool:
    return any(name.startswith(f"{stage}/") for name in scores)


def _questions(run: Path, stage: str, step: int | None) -> int | None:
    """Number of questions behind the scores of a step; None where their results were not kept."""
    path = run / "artifacts" / QUESTIONS / f"{evaluation_name(stage, step or 0)}.jsonl"
    return path.read_bytes().count(b"\n") if path.is_file() else None


def _table(rows: Mapping[str, Any], header: tuple[str, str]) -> str:
    shown = {name: redacted(inert(str(value))) for name, value in rows.items() if value not in (None, "")}
    return markdown(pd.DataFrame({header[1]: shown.values()}, index=pd.Index(list(shown), name=header[0])))


def _plain(text: str) -> str:
    """One line of a document that is shown as it is."""
    line = html.escape(" ".join(inert(text).split()), quote=False)
    return re.sub(r"([\\`*_\[\]|#!])", r"\\\1", line)
