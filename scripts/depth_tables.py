"""The table of docs/results/mixed_depth.md from the run folders of its sweep.

python scripts/depth_tables.py runs/mixed_depth docs/results/mixed_depth

Writes runs.csv and prints one row for each setting: the held-out exact pass@1 at the last validation of the questions
of each answer format, and of all, as mean over seeds with its range.
"""

import json
from pathlib import Path
from typing import Any

import pandas as pd
from scale_tables import read_sweep

from jqlight.benchmarks.twohop import RELATIONS, questions
from jqlight.report.tables import markdown

FORMATS = 3
ALL = "all"


def read_run(folder: Path) -> dict[str, Any]:
    """One run: its setting and seed, and the exact pass@1 of each of the formats and of all."""
    settings = json.loads((folder / "point.json").read_text(encoding="utf-8"))["settings"]
    last = max((folder / "artifacts" / "questions").glob("step_*.jsonl"))
    judged = pd.read_json(last, lines=True).set_index("id")["exact_pass_at_1"]
    relations = [question.chain[1][1] for question in questions("validation", len(judged))]
    which = {f"validation-{i}": RELATIONS.index(name) % FORMATS for i, name in enumerate(relations)}
    return {
        "estimator": settings["estimator"],
        "q": _label(settings.get("q", "")),
        "scale": settings.get("model.scale", ""),
        "seed": settings["seed"],
        **{f"format {i}": mean for i, mean in judged.groupby(judged.index.map(which)).mean().items()},
        ALL: judged.mean(),
    }


def _label(q: Any) -> str:
    if not isinstance(q, dict):
        return str(q)
    return " ".join([q["class_path"].rpartition(".")[2], *(f"{value:g}" for value in q["init_args"].values())])


def summarise(runs: pd.DataFrame) -> pd.DataFrame:
    """A row for each setting: number of seeds, mean and range over them of each score."""
    scores = [*(f"format {i}" for i in range(FORMATS)), ALL]
    groups = runs.groupby(["estimator", "scale", "q"], sort=False)
    table = groups[scores].agg(_spread)
    table.insert(0, "n", groups.size())
    return table.reset_index()


def _spread(values: pd.Series) -> str:
    low, high = f"{values.min():.3f}", f"{values.max():.3f}"
    return low if low == high else f"{values.mean():.3f} ({low}–{high})"


def main() -> None:
    runs, _, _ = read_sweep(__doc__, read_run, ["estimator", "scale", "q", "seed"])
    print(markdown(summarise(runs).astype(str).set_index("estimator")))


if __name__ == "__main__":
    main()
