"""Files of predictions: one JSON object per sample, and the metrics of all of them."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from jqlight.benchmarks.examples import Example
from jqlight.benchmarks.records import open_text, parse_json
from jqlight.errors import DataError


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]], *, append: bool = False) -> None:
    """Write one JSON object a line."""
    with path.open("a" if append else "w", encoding="utf-8") as stream:
        stream.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def read_predictions(path: Path) -> list[tuple[Example, list[str], list[str]]]:
    """Each question of a predictions file with its sampled answers and rationales, in the order of first appearance.

    A line holds one sample (``answer``, ``rationale``) or all of a question (``answers``, ``rationales``), with ``id``
    and ``references`` (or ``reference``) in any case.

    Raises:
        DataError: a line that is not such an object; names file, line and field.
    """
    questions: dict[str, tuple[Example, list[str], list[str]]] = {}
    with open_text(path) as stream:
        for number, line in enumerate(stream, 1):
            if not line.strip():
                continue
            row = _row(line, f"{path} line {number}")
            references = tuple(row["references"])
            example = Example(row["id"], row.get("prompt", ""), (), references[0], (), references)
            known, answers, rationales = questions.setdefault(row["id"], (example, [], []))
            if known.references != references:
                raise DataError(f"{path} line {number}: id {row['id']} came before with other references")
            answers.extend(row["answers"])
            rationales.extend(row["rationales"])
    if not questions:
        raise DataError(f"{path}: holds no predictions")
    return list(questions.values())


def _row(line: str, location: str) -> dict[str, Any]:
    row = parse_json(line, location)
    if not isinstance(row, dict) or not isinstance(row.get("id"), str | int):
        raise DataError(f"{location}: must be an object with an id")
    answers = row.get("answers", [row["answer"]] if "answer" in row else None)
    rationales = row.get("rationales", [row.get("rationale", "")] * len(answers if isinstance(answers, list) else ()))
    references = row.get("references", [row["reference"]] if "reference" in row else None)
    for name, texts in {"answers": answers, "references": references, "rationales": rationales}.items():
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise DataError(f"{location}: field '{name}' (or its singular) must hold strings, given {texts!r:.60}")
    if not references or not answers or len(answers) != len(rationales):
        raise DataError(f"{location}: needs a reference, an answer and as many rationales as answers")
    return {**row, "id": str(row["id"]), "answers": answers, "rationales": rationales, "references": references}


def metrics_table(metrics: Mapping[str, float]) -> str:
    """The metrics, one a line."""
    return "\n".join(f"{name:<24}{value:>8.3f}" for name, value in metrics.items())
