"""The table of docs/results/collapse.md from the run folders of its sweep.

python scripts/collapse_tables.py runs/collapse docs/results/collapse

Writes runs.csv and prints one row for each setting: the held-out exact pass@1 before the first step, its highest and
its last, the lowest mean of train/success over five steps after the first 50, and how many runs raised the alarm
`train/collapsed`.
"""

import json
from pathlib import Path
from typing import Any

import pandas as pd
from scale_tables import read_sweep

from jqlight.report.tables import markdown

SCORE, SUCCESS, BEGUN = "val/exact_pass_at_1", "train/success", 50


def read_run(folder: Path) -> dict[str, Any]:
    """One run: its setting and seed, held-out scores, the worst of its training, whether it collapsed."""
    with (folder / "metrics.jsonl").open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    setting, _, seed = folder.name.rpartition("-seed")
    arm, _, rate = setting.partition("-lr=")
    rate, _, rest = rate.partition("-")
    scores = [row[SCORE] for row in rows if SCORE in row]
    success = pd.Series([row[SUCCESS] for row in rows if SUCCESS in row])
    return {
        "arm": f"{arm}-{rest}" if rest else arm,
        "learning rate": float(rate),
        "seed": int(seed),
        "steps": len(success),
        "before": scores[0],
        "highest": max(scores),
        "last": scores[-1],
        "lowest success": success.rolling(5).mean()[BEGUN:].min(),
        "collapsed": any(row.get("train/collapsed", 0) for row in rows),
    }


def summarise(runs: pd.DataFrame) -> pd.DataFrame:
    """A row for each arm and learning rate: number of runs, means over seeds, and how many collapsed."""
    groups = runs.groupby(["arm", "learning rate"])
    table = groups[["before", "highest", "last", "lowest success"]].mean().map("{:.3f}".format)
    table.insert(0, "n", groups.size())
    return table.assign(collapsed=groups["collapsed"].sum()).reset_index()


def main() -> None:
    runs, _, _ = read_sweep(__doc__, read_run, ["arm", "learning rate", "seed"])
    print(markdown(summarise(runs).astype(str).set_index("arm")))


if __name__ == "__main__":
    main()
