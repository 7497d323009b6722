"""Tables and the figure of docs/results/scale.md from the run folders of its sweep.

python scripts/scale_tables.py runs/quickstart_scale docs/results/scale

Writes runs.csv, settings.md and scale.png; for a sweep over answer formats (sweeps/scale_phase.yaml) runs.csv and
phases.md, and prints by how many nats a decade of epsilon moves the boundary. Scores are those of the last validation,
a fixed step, and not of each run's best one, so that no setting profits from a choice made on the questions that it is
judged by.
"""

import argparse
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from scipy import optimize

from jqlight.report.tables import markdown

matplotlib.use("Agg")
import matplotlib.pyplot as plt

SCORES = {"exact pass@1": "val/exact_pass_at_1", "exact maj@16": "val/exact_maj_at_16"}
LOG_SUCCESS, LAST = "log w̄", 5
"""Mean over the last training steps, a batch of eight questions each."""


def read_run(folder: Path) -> dict[str, Any]:
    """One run: its settings, its escape step (missing where it never escaped) and its last values."""
    settings = json.loads((folder / "point.json").read_text(encoding="utf-8"))["settings"]
    with (folder / "metrics.jsonl").open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    last = {key: value for row in rows for key, value in row.items()}
    training = [row["train/log_success"] for row in rows if "train/log_success" in row]
    return {
        "scale": settings["model.scale"],
        "wrong labels": settings.get("data.label_noise", 0.0),
        "q": settings["q"],
        "eps": settings.get("optimizer.eps", 1e-8),
        "answer format": settings.get("data.answer_format", ""),
        "depth": -training[0],
        "seed": settings["seed"],
        "steps": last["step"],
        "escape step": last.get("train/escape_step"),
        **{name: last[key] for name, key in SCORES.items()},
        LOG_SUCCESS: statistics.mean(training[-LAST:]),
        "update size": last.get("train/update_size"),
    }


def summarise(runs: pd.DataFrame) -> pd.DataFrame:
    """A row for each setting: number of seeds, mean and range of each value over them; "never" is counted."""
    rows = []
    for (noise, scale, q), group in runs.groupby(["wrong labels", "scale", "q"], sort=False):
        escaped = group["escape step"].dropna()
        late = f", {len(group) - len(escaped)} never" if 0 < len(escaped) < len(group) else ""
        rows.append({"wrong labels": noise, "scale": scale, "q": q, "seeds": len(group)})
        rows[-1]["escape step"] = _spread(escaped, 0) + late if len(escaped) else f"never in {group['steps'].max():.0f}"
        rows[-1] |= {name: _spread(group[name], 3) for name in SCORES}
        rows[-1][LOG_SUCCESS] = _spread(group[LOG_SUCCESS], 1)
    return pd.DataFrame(rows).sort_values(["wrong labels", "scale", "q"])


def phases(runs: pd.DataFrame) -> pd.DataFrame:
    """Escape steps of a sweep over answer formats: a row for each depth and q, a column for each kind of step."""
    depths = runs.groupby("answer format")["depth"].mean()
    kinds = runs["scale"] + runs["eps"].map(", ε {:g}".format)
    steps = runs["escape step"].map("{:.0f}".format).where(runs["escape step"].notna(), "never")
    table = runs.assign(depth=runs["answer format"].map(depths).round(), kind=kinds, step=steps)
    table["(1 − q) depth"] = ((1 - table["q"]) * table["depth"]).map("{:.0f}".format)
    rows = table.sort_values("seed").groupby(["depth", "q", "(1 − q) depth", "kind"])["step"].agg(", ".join)
    return rows.unstack("kind").fillna("–").reset_index().astype({"depth": int})


def boundary(runs: pd.DataFrame, resamples: int = 500) -> dict[str, tuple[float, float, float]]:
    """Where raw runs stop to escape, by a logistic fit: two numbers, each with its 95 % interval.

    The chance to escape is logistic in ``start + shift * decades - (1 - q) depth``, with the decades of epsilon below
    1e-8. Intervals are bootstrapped over runs.
    """
    raw = runs[runs["scale"] == "raw"]
    depth = raw["answer format"].map(raw.groupby("answer format")["depth"].mean())
    size, escaped = ((1 - raw["q"]) * depth).to_numpy(), raw["escape step"].notna().to_numpy()
    decades = -8 - np.log10(raw["eps"].to_numpy())

    def fit(kept: np.ndarray) -> np.ndarray:
        def loss(found: np.ndarray) -> float:
            start, shift, log_steepness = found
            logit = np.exp(log_steepness) * (start + shift * decades[kept] - size[kept])
            # Runs that a line divides without a mistake would make it infinitely steep; a prior holds it at 1 a nat.
            return float(np.logaddexp(0, np.where(escaped[kept], -logit, logit)).sum() + log_steepness**2 / 2)

        return np.asarray(optimize.minimize(loss, [20.0, 2.0, 0.0], method="Nelder-Mead", options={"maxiter": 2000}).x)

    rng = np.random.default_rng(0)
    found = fit(np.arange(len(raw)))
    drawn = np.array([fit(rng.integers(len(raw), size=len(raw))) for _ in range(resamples)])
    low, high = np.percentile(drawn, [2.5, 97.5], axis=0)
    names = ("(1 - q) depth at epsilon 1e-8", "nats per decade")
    return {name: (float(found[i]), float(low[i]), float(high[i])) for i, name in enumerate(names)}


def _spread(values: pd.Series, digits: int) -> str:
    low, high = f"{values.min():.{digits}f}", f"{values.max():.{digits}f}"
    return low if low == high else f"{values.mean():.{digits}f} ({low}–{high})"


def draw(runs: pd.DataFrame, path: Path) -> None:
    """Escape step and exact pass@1 against q, a line for each scale, a column for each share of wrong labels."""
    noises = sorted(runs["wrong labels"].unique())
    figure, axes = plt.subplots(
        2, len(noises), figsize=(4.2 * len(noises), 5.6), sharex=True, sharey="row", squeeze=False
    )
    steps = runs["steps"].max()
    styles = {"raw": ("#b2182b", "o", "-"), "batch": ("#2166ac", "s", "-"), "running": ("#4d9221", "^", "--")}
    for column, noise in zip(axes.T, noises, strict=True):
        for scale, (colour, marker, line) in styles.items():
            part = runs[(runs["wrong labels"] == noise) & (runs["scale"] == scale)]
            escape = part.assign(escape=part["escape step"].fillna(steps)).groupby("q")["escape"].mean()
            score = part.groupby("q")["exact pass@1"].mean()
            for axis, means in zip(column, (escape, score), strict=True):
                axis.plot(means.index, means, line, color=colour, label=scale)
            column[0].plot(part["q"], part["escape step"].fillna(steps), marker, color=colour, alpha=0.6, ms=5)
            column[1].plot(part["q"], part["exact pass@1"], marker, color=colour, alpha=0.6, ms=5)
        column[0].set_title(f"{noise:.0%} wrong labels")
        column[1].set_xlabel("q")
    axes[0, 0].set_ylabel(f"escape step ({steps:.0f}: never)")
    axes[1, 0].set_ylabel(f"exact pass@1 at step {steps:.0f}")
    axes[0, 0].legend(title="model.scale", frameon=False)
    figure.tight_layout()
    figure.savefig(path, dpi=130)


def read_sweep(
    description: str | None, read: Callable[[Path], dict[str, Any]], order: list[str]
) -> tuple[pd.DataFrame, Path, Path]:
    """Finished runs of the sweep on the command line, written to runs.csv too; its folder and the one to write to.

    With ``--earlier runs.csv`` the runs in it count too, but for those that the sweep has made anew.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sweep", type=Path, help="folder of the sweep, such as runs/quickstart_scale")
    parser.add_argument("out", type=Path, help="folder to write to")
    parser.add_argument("--earlier", type=Path, metavar="CSV", help="runs.csv of earlier runs of the same sweep")
    options = parser.parse_args()
    folders = sorted(path.parent for path in options.sweep.glob("*/finished.json"))
    if not folders:
        parser.error(f"{options.sweep} has no finished run (RUN/finished.json)")
    runs = pd.DataFrame([read(folder) for folder in folders])
    if options.earlier:
        earlier = pd.read_csv(options.earlier).fillna({"answer format": ""})
        runs = pd.concat([runs, earlier]).drop_duplicates(order)
    runs = runs.sort_values(order)
    options.out.mkdir(parents=True, exist_ok=True)
    runs.to_csv(options.out / "runs.csv", index=False, float_format="%.6g")
    return runs, options.sweep, options.out


def main() -> None:
    runs, _, out = read_sweep(__doc__, read_run, ["wrong labels", "scale", "q", "eps", "answer format", "seed"])
    if runs["answer format"].nunique() > 1:
        found = phases(runs).astype(str).set_index("depth")
        (out / "phases.md").write_text(markdown(found) + "\n", encoding="utf-8")
        print(markdown(found))
        if runs.loc[runs["scale"] == "raw", "eps"].nunique() > 1:
            for name, (value, low, high) in boundary(runs).items():
                print(f"{name}: {value:.1f} (95 % {low:.1f} to {high:.1f})")
        return
    table = markdown(summarise(runs).astype(str).set_index("wrong labels"))
    (out / "settings.md").write_text(table + "\n", encoding="utf-8")
    draw(runs, out / "scale.png")
    print(table)


if __name__ == "__main__":
    main()
