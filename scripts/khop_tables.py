"""Tables and the figure of docs/results/khop.md from the run folders of its sweep.

python scripts/khop_tables.py runs/khop docs/results/khop [--earlier docs/results/khop/runs.csv]

Writes runs.csv, settings.md, verdicts.md and, where the folders of all runs are there, khop.png. Scores are those of
the last validation. Intervals are 95 %, by the bootstrap over seeds. The comparisons of verdicts.md were chosen before
the first run, one family for Holm.
"""

import json
from itertools import product
from pathlib import Path
from typing import Any

import matplotlib
import pandas as pd
from scale_tables import read_sweep

from jqlight.report.statistics import ALPHA, Sample, difference, holm, interval
from jqlight.report.tables import markdown

matplotlib.use("Agg")
import matplotlib.pyplot as plt

ARMS = {
    "SFT": "answer-only SFT",
    "SFT-max_steps=1000-val_check_interval=1000": "answer-only SFT, 1000 steps",
    "SFT-rationale=gold": "gold-chain SFT",
    "GARL-q0": "GARL q = 0 (VeriFree)",
    "GARL-q0.5": "GARL q = 0.5",
    "GARL-q0.75": "GARL q = 0.75",
    "GARL-q1": "GARL q = 1",
    "GARL-qsplice-0.05": "GARL splice τ = 0.05",
    "GARL-q0-scale=raw": "GARL q = 0, raw",
    "GARL-q0-scale=running": "GARL q = 0, running scale",
    "GARL-q0.75-scale=raw": "GARL q = 0.75, raw",
    "GARL-q1-scale=raw": "GARL q = 1, raw",
    "GARL-q0.75-pathwise=false": "GARL q = 0.75, no pathwise part",
    "PAFT-q0.75": "PAFT q = 0.75",
    "RFT": "RFT",
    "GRPO": "GRPO",
    "RLOO": "RLOO",
    "MaxRL": "MaxRL",
    "GARL-rollouts=4-prompts_per_step=32": "GARL q = 0.75, M = 4 × 32 prompts",
    "GARL-rollouts=64-prompts_per_step=2": "GARL q = 0.75, M = 64 × 2 prompts",
    "GARL-q0.75-rollouts=4-prompts_per_step=32": "GARL q = 0.75, M = 4 × 32 prompts",
    "GARL-q1-rollouts=4-prompts_per_step=32": "GARL q = 1, M = 4 × 32 prompts",
    "PAFT-q0.75-rollouts=4-prompts_per_step=32": "PAFT q = 0.75, M = 4 × 32 prompts",
    "GRPO-rollouts=4-prompts_per_step=32": "GRPO, M = 4 × 32 prompts",
    "GRPO-rollouts=64-prompts_per_step=2": "GRPO, M = 64 × 2 prompts",
}
"""A point's name in the sweep without its seed and hops, and what it is, in the order of the table."""
HOPS = "-hops=4"
"""Part of the names of the points with four hops; all others have three."""
SCORES = {
    "exact pass@1": "val/exact_pass_at_1",
    "right chains": "val/right_chain",
    "valid chains": "val/chain",
    "necessity (swapped)": "val/exact_necessity_swapped",
    "necessity (empty)": "val/exact_necessity_empty",
    "gain, nats": "val/gain",
}
COMPARISONS = [
    ("GARL-q0.75", "SFT"),
    ("PAFT-q0.75", "SFT"),
    ("GRPO", "SFT"),
    ("GARL-q0.75", "GRPO"),
    ("PAFT-q0.75", "GARL-q0.75"),
    ("GARL-q0.75-pathwise=false", "GARL-q0.75"),
]
CURVES = {
    "SFT": ("#777777", ":"),
    "GARL-q0": ("#92c5de", "-"),
    "GARL-q0.75": ("#2166ac", "-"),
    "GARL-q1": ("#053061", "--"),
    "PAFT-q0.75": ("#4d9221", "-"),
    "GRPO": ("#b2182b", "-"),
}
EVERY = 5
"""Steps that one point of a curve is the mean of."""


def read_run(folder: Path) -> dict[str, Any]:
    """One run: its arm and seed, its last scores, its escape step (missing where it never escaped)."""
    name, _, seed = folder.name.rpartition("-seed")
    arm, hops = name.replace(HOPS, ""), 4 if HOPS in name else 3
    with (folder / "metrics.jsonl").open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    last = {key: value for row in rows for key, value in row.items()}
    scores = {name: last[key] for name, key in SCORES.items()}
    escape = last.get("train/escape_step")
    return {"hops": hops, "arm": arm, "seed": int(seed), "steps": last["step"], "escape": escape, **scores}


def summarise(runs: pd.DataFrame) -> pd.DataFrame:
    """A row for each number of hops and arm: runs, median escape step, means; pass@1's with its interval over seeds."""
    rows = []
    for hops, arm in product((3, 4), ARMS):
        group = runs[(runs["hops"] == hops) & (runs["arm"] == arm)]
        if group.empty:
            continue
        escape, score = group["escape"].dropna(), group["exact pass@1"]
        found = f"{escape.median():.0f}" if len(escape) else "–"
        missing = f" ({len(escape)} of {len(group)})" if 0 < len(escape) < len(group) else ""
        rows.append({"hops": hops, "arm": ARMS[arm], "n": len(group), "escape step": found + missing})
        rows[-1] |= {"exact pass@1": f"{score.mean():.3f}", "95 % interval": _interval(score)}
        rows[-1]["lowest, highest"] = f"{score.min():.3f}, {score.max():.3f}"
        rows[-1] |= {name: f"{group[name].mean():.{1 if 'nats' in name else 3}f}" for name in list(SCORES)[1:]}
    return pd.DataFrame(rows)


def _interval(shares: pd.Series) -> str:
    found = interval(shares.mean(), [shares.to_numpy()])
    return f"{max(0, found[0]):.3f} to {min(1, found[1]):.3f}" if found else "–"


def compare(runs: pd.DataFrame) -> pd.DataFrame:
    """The comparisons in exact pass@1 at three hops: difference, interval, p, and verdict after Holm's correction."""
    three = runs[runs["hops"] == 3]
    samples = {arm: Sample(group.set_index("seed")["exact pass@1"]) for arm, group in three.groupby("arm")}
    pairs = [(a, b) for a, b in COMPARISONS if a in samples and b in samples]
    found = [difference(samples[a], samples[b]) for a, b in pairs]
    tested = [i for i, one in enumerate(found) if one.p is not None]
    corrected = dict(zip(tested, holm([found[i].p for i in tested]), strict=True))
    rows = []
    for i, ((a, b), one) in enumerate(zip(pairs, found, strict=True)):
        told = i in corrected and corrected[i] <= ALPHA
        rows.append(
            {
                "comparison": f"{ARMS[a]} − {ARMS[b]}",
                "runs": f"{samples[a].n} and {samples[b].n}",
                "difference": f"{one.value:+.3f}",
                "95 % interval": f"{one.interval[0]:+.3f} to {one.interval[1]:+.3f}" if one.interval else "–",
                "p": "–" if one.p is None else f"{one.p:.3f}",
                "p, Holm": f"{corrected[i]:.3f}" if i in corrected else "–",
                "verdict": ("better" if one.value > 0 else "worse") if told else "cannot tell",
            }
        )
    return pd.DataFrame(rows)


def curve(folder: Path) -> pd.Series:
    """Mean of train/success (for GRPO the share of right answers) over each EVERY steps, by the last step of them."""
    with (folder / "metrics.jsonl").open(encoding="utf-8") as file:
        rows = [row for row in map(json.loads, file) if "train/success" in row]
    success = pd.Series([row["train/success"] for row in rows], index=[row["step"] for row in rows])
    return success.groupby((success.index - 1) // EVERY * EVERY + EVERY).mean()


def draw(runs: pd.DataFrame, folder: Path, path: Path) -> None:
    """At three hops: success in training against the step, a line a seed; each run's exact pass@1 and necessity."""
    runs = runs[runs["hops"] == 3]
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 5.2), width_ratios=(1, 1))
    for arm, (colour, line) in CURVES.items():
        for number, seed in enumerate(runs.loc[runs["arm"] == arm, "seed"]):
            values = curve(folder / f"{arm}-seed{seed}")
            label = ARMS[arm] if number == 0 else None
            left.plot(values.index, values, line, color=colour, lw=1.2, alpha=0.8, label=label)
    left.set(xlabel="step", ylabel="success in training", ylim=(-0.02, 1.02))
    left.legend(frameon=False, fontsize=8)
    shown = [arm for arm in ARMS if arm in set(runs["arm"])]
    for row, arm in enumerate(reversed(shown)):
        group = runs[runs["arm"] == arm]
        right.plot(group["exact pass@1"], [row] * len(group), "o", color="#2166ac", alpha=0.5, ms=5)
        right.plot(group["necessity (swapped)"], [row] * len(group), "x", color="#b2182b", alpha=0.6, ms=5)
    right.set_yticks(range(len(shown)), [ARMS[arm] for arm in reversed(shown)], fontsize=8)
    right.set(xlabel="exact pass@1 (dots) and necessity, swapped (crosses)", xlim=(-0.05, 1.02))
    right.grid(axis="x", alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, dpi=130)


def main() -> None:
    runs, sweep, out = read_sweep(__doc__, read_run, ["hops", "arm", "seed"])
    tables = {"settings": summarise(runs).set_index("hops")}
    if not (verdicts := compare(runs)).empty:
        tables["verdicts"] = verdicts.set_index("comparison")
    for name, table in tables.items():
        (out / f"{name}.md").write_text(markdown(table.astype(str)) + "\n", encoding="utf-8")
        print(markdown(table.astype(str)))
    if all((sweep / f"{arm}-seed{seed}").is_dir() for arm, seed in zip(runs["arm"], runs["seed"]) if arm in CURVES):
        draw(runs, sweep, out / "khop.png")


if __name__ == "__main__":
    main()
