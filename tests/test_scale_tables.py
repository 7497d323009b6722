"""scripts/scale_tables.py on run folders made by hand."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pandas as pd

ROOT = Path(__file__).parents[1]


def write_run(folder, settings, score, escape, depth=1):
    folder.mkdir(parents=True)
    (folder / "finished.json").write_text("{}")
    (folder / "point.json").write_text(json.dumps({"settings": settings}))
    steps = [{"step": step, "train/log_success": -float(step) * depth} for step in range(1, 8)]
    steps[4] |= {"train/escape_step": escape} if escape else {}
    rows = [{"step": 0, "val/exact_pass_at_1": 1.0}, *steps]
    rows.append({"step": 7, "val/exact_pass_at_1": score, "val/exact_maj_at_16": 1.0})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def tables(sweep, out):
    command = [sys.executable, str(ROOT / "scripts" / "scale_tables.py"), str(sweep), str(out)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_scores_of_the_last_step_ranges_and_runs_that_never_escaped(tmp_path):
    batch, raw = {"model.scale": "batch", "q": 0.0}, {"model.scale": "raw", "q": 0.0}
    write_run(tmp_path / "sweep/a", {**batch, "seed": 0}, 0.25, 5.0)
    write_run(tmp_path / "sweep/b", {**batch, "seed": 1}, 0.75, None)
    write_run(tmp_path / "sweep/c", {**raw, "seed": 0}, 0.0, None)
    done = tables(tmp_path / "sweep", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "| batch | 0.0 | 2 | 5, 1 never | 0.500 (0.250–0.750) | 1.000 | -5.0 |" in done.stdout
    assert "| raw | 0.0 | 1 | never in 7 | 0.000 | 1.000 | -5.0 |" in done.stdout
    assert (tmp_path / "out" / "settings.md").read_text().strip() == done.stdout.strip()
    assert len(pd.read_csv(tmp_path / "out" / "runs.csv")) == 3
    assert (tmp_path / "out" / "scale.png").read_bytes().startswith(b"\x89PNG")


def test_depths_by_kind_of_step(tmp_path):
    shallow, deep = {"data.answer_format": "a"}, {"data.answer_format": "b"}
    raw = {"model.scale": "raw", "q": 0.25, "optimizer.eps": 1e-12}
    write_run(tmp_path / "sweep/a", {**raw, **shallow, "seed": 0}, 1.0, 3.0, depth=2)
    write_run(tmp_path / "sweep/b", {**raw, **deep, "seed": 0}, 0.0, None, depth=6)
    write_run(tmp_path / "sweep/c", {"model.scale": "batch", "q": 0.25, **deep, "seed": 0}, 0.0, 4.0, depth=6)
    done = tables(tmp_path / "sweep", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in done.stdout.splitlines() if line]
    assert rows[0] == ["depth", "q", "(1 − q) depth", "batch, ε 1e-08", "raw, ε 1e-12"]
    assert rows[2:] == [["2", "0.25", "2", "–", "3"], ["6", "0.25", "4", "4", "never"]]


def test_the_boundary_of_escape_is_where_the_runs_say(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "scripts")
    boundary = importlib.import_module("scale_tables").boundary
    runs = pd.DataFrame(
        {"scale": "raw", "answer format": str(depth), "depth": depth, "q": q, "eps": eps, "escape step": step}
        for eps, shift in ((1e-8, 0.0), (1e-12, 9.2))
        for depth in (10.0, 18.0, 24.0, 30.0, 37.0, 42.0)
        for q in (0.0, 0.25, 0.5, 0.75)
        for step in [50.0 if (1 - q) * depth < 20 + shift else None]
    )
    found = boundary(runs, resamples=20)
    start, shift = found["(1 - q) depth at epsilon 1e-8"], found["nats per decade"]
    assert 18 < start[0] < 22.5 and start[1] <= start[0] <= start[2]
    assert 1.8 < shift[0] < 3.2 and shift[1] <= shift[0] <= shift[2]


def test_a_folder_without_runs_is_said(tmp_path):
    done = tables(tmp_path, tmp_path / "out")
    assert done.returncode == 2 and "no finished run" in done.stderr
