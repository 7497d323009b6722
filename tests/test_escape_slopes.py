"""scripts/escape_slopes.py: the regression on times that are known, some of them censored."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd

ROOT = Path(__file__).parents[1]


def test_the_slope_is_found_under_censoring(tmp_path):
    generator = np.random.default_rng(1)
    rows = []
    for q in (0.0, 0.5):
        for seed in range(5):
            for p0 in (1e-1, 1e-2, 1e-3, 1e-4):
                steps = 3 * p0 ** -(1 - q) * np.exp(0.05 * generator.standard_normal())
                rows.append((q, p0, p0, seed, min(steps, 1000), int(steps < 1000)))
    file = tmp_path / "runs.csv"
    pd.DataFrame(rows, columns=["q", "asked", "p0", "seed", "steps", "escaped"]).to_csv(file, index=False)
    command = [
        sys.executable,
        str(ROOT / "scripts" / "escape_slopes.py"),
        "fit",
        str(file),
        str(tmp_path / "out"),
        "--draws",
        "30",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    table = [row.split("|")[1:-1] for row in (tmp_path / "out" / "slopes.md").read_text().splitlines()[2:]]
    found = {float(row[0]): (float(row[3]), [float(x) for x in row[4].split(" to ")], int(row[2])) for row in table}
    for q, escaped in ((0.0, 10), (0.5, 20)):
        slope, (low, high), count = found[q]
        assert abs(slope - (1 - q)) < 0.03 and low <= slope <= high and count <= escaped
