"""Tables of docs/results/smollm2 from the run folders of its sweep.

python scripts/smollm2_tables.py runs/smollm2_hotpotqa docs/results/smollm2

Writes tables.md, methods.csv and runs.csv, and each run's config.yaml under configs/. What `jqlight compare` shows
comes from MLflow; this adds what the sampled outputs of the last validation look like.
"""

import argparse
import csv
import json
import shutil
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jqlight.names import format_value

SCORES = {
    "maj@16": "val/maj_at_16",
    "exact maj@16": "val/exact_maj_at_16",
    "official EM maj@16": "val/em_maj_at_16",
    "pass@1": "val/pass_at_1",
    "pass@16": "val/pass_at_16",
}
ESCAPE, TOKENS, EMPTY, YES_NO = "escape step", "thinking tokens", "empty rationales", "answers yes or no"
COLUMNS = (ESCAPE, *SCORES, TOKENS, EMPTY, YES_NO)
LAST = 5
"""Training steps that the thinking tokens are averaged over."""


def json_lines(path: Path) -> list[dict[str, Any]]:
    with path.open(encoding="utf-8", newline="\n") as file:  # `splitlines` also cuts at U+2028, which models do write
        return [json.loads(line) for line in file]


def read_run(folder: Path) -> dict[str, Any]:
    """One validated run: what it was and its values; a value that it does not have is missing."""
    settings = json.loads((folder / "point.json").read_text(encoding="utf-8"))["settings"]
    tags = json.loads((folder / "run.json").read_text(encoding="utf-8"))["tags"]
    rows = json_lines(folder / "metrics.jsonl")
    scored = [row for row in rows if SCORES["maj@16"] in row][-1]
    tokens = [row["train/thinking_tokens"] for row in rows if "train/thinking_tokens" in row][-LAST:]
    escape = [row["train/escape_step"] for row in rows if "train/escape_step" in row]
    outputs = json_lines(max((folder / "samples").glob("step_*.jsonl")))
    q = format_value(settings["q"]) if "q" in settings else ""
    return {
        "run": folder.name,
        "method": " ".join(
            filter(None, (settings["scenario"], settings["estimator"], f"q = {q}" if q[:1].isdigit() else q))
        ),
        "seed": settings["seed"],
        "commit": tags.get("mlflow.source.git.commit", "")[:7],
        **{name: round(scored[key], 6) for name, key in SCORES.items()},
        **({ESCAPE: escape[-1]} if escape else {}),
        TOKENS: statistics.mean(tokens),
        EMPTY: statistics.mean(_written(output["rationale"]) == "" for output in outputs),
        YES_NO: statistics.mean(output["answer"].strip().lower() in ("yes", "no") for output in outputs),
    }


def _written(rationale: str) -> str:
    return rationale.replace("<|im_end|>", "").strip()


def summarise(runs: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """A row for each method: n, and each value as mean ± sample standard deviation over the seeds that have it."""
    methods = dict.fromkeys(run["method"] for run in runs)
    return [_row(method, [run for run in runs if run["method"] == method]) for method in methods]


def _row(method: str, runs: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    row = {"method": method, "n": str(len(runs))}
    for column in COLUMNS:
        values = [run[column] for run in runs if column in run]
        digits = 1 if column in (ESCAPE, TOKENS) else 3
        spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
        some = f" ({len(values)} of {len(runs)})" if values and len(values) < len(runs) else ""
        row[column] = f"{statistics.mean(values):.{digits}f}{spread}{some}" if values else "never"
    return row


def markdown(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
    body = [[_text(row.get(column, "never")) for column in columns] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in [columns, ["---"] * len(columns), *body]) + "\n"


def _text(value: Any) -> str:
    return f"{value:.3f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]], columns: Iterable[str]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(columns), restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sweep", type=Path, help="folder of the sweep, such as runs/smollm2_hotpotqa")
    parser.add_argument("out", type=Path, help="folder to write to")
    options = parser.parse_args()
    folders = sorted({path.parent.parent for path in options.sweep.glob("*/samples/step_*.jsonl")})
    if not folders:
        parser.error(f"{options.sweep} has no validated run (RUN/samples/step_*.jsonl)")
    runs = [read_run(folder) for folder in folders]
    methods = summarise(runs)
    (options.out / "configs").mkdir(parents=True, exist_ok=True)
    for folder in folders:
        shutil.copy(folder / "config.yaml", options.out / "configs" / f"{folder.name}.yaml")
    write_csv(options.out / "methods.csv", methods, ("method", "n", *COLUMNS))
    write_csv(options.out / "runs.csv", runs, ("run", "method", "seed", "commit", *COLUMNS))
    tables = [markdown(methods, ("method", "n", *COLUMNS)), markdown(runs, ("run", *COLUMNS))]
    (options.out / "tables.md").write_text("\n".join(tables), encoding="utf-8")
    print(tables[0])


if __name__ == "__main__":
    main()
