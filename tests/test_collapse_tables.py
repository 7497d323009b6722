"""scripts/collapse_tables.py on run folders made by hand."""

import importlib
import json
import sys
from pathlib import Path

import pandas as pd
import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "collapse_tables.py"


def write_run(folder: Path, success: list[float], scores: list[float], collapsed_at: int | None = None) -> None:
    folder.mkdir(parents=True)
    (folder / "finished.json").write_text("{}")
    rows = [
        {"step": i + 1, "train/success": one, "train/collapsed": float(i + 1 == collapsed_at)}
        for i, one in enumerate(success)
    ]
    rows += [{"step": i, "val/exact_pass_at_1": one} for i, one in enumerate(scores)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_a_setting_has_its_scores_and_counts_runs_that_collapsed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.syspath_prepend(SCRIPT.parent)
    module = importlib.import_module("collapse_tables")
    steady = [0.1] * 40 + [0.9] * 60
    write_run(tmp_path / "s/GARL-q0.25-scale=raw-lr=0.0005-pathwise=false-seed0", steady, [0.5, 1.0, 0.8])
    write_run(tmp_path / "s/GARL-q0.25-scale=raw-lr=0.0005-pathwise=false-seed1", steady, [0.5, 0.8, 0.4])
    write_run(
        tmp_path / "s/GRPO-lr=0.005-seed0", [0.9] * 60 + [0.0] * 10 + [0.9] * 30, [0.5, 0.7, 0.0], collapsed_at=65
    )
    monkeypatch.setattr(sys, "argv", ["collapse_tables.py", str(tmp_path / "s"), str(tmp_path / "out")])
    module.main()
    runs = pd.read_csv(tmp_path / "out/runs.csv").set_index("arm")
    assert runs.loc["GRPO", ["learning rate", "lowest success", "collapsed"]].tolist() == [0.005, 0.0, True]
    assert runs.loc["GARL-q0.25-scale=raw-pathwise=false", "lowest success"].tolist() == [0.9, 0.9]
    table = capsys.readouterr().out
    assert "| GARL-q0.25-scale=raw-pathwise=false | 0.0005 | 2 | 0.500 | 0.900 | 0.600 | 0.900 | 0 |" in table
    assert "| GRPO | 0.005 | 1 | 0.500 | 0.700 | 0.000 | 0.000 | 1 |" in table
