"""scripts/khop_tables.py on run folders made by hand."""

import importlib
import json
import sys
from pathlib import Path

import pandas as pd
import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "khop_tables.py"


@pytest.fixture
def tables(monkeypatch):
    """Runs the script on a sweep's folder."""
    monkeypatch.syspath_prepend(SCRIPT.parent)
    module = importlib.import_module("khop_tables")

    def run(sweep: Path, out: Path, *options: str) -> None:
        monkeypatch.setattr(sys, "argv", ["khop_tables.py", str(sweep), str(out), *options])
        module.main()

    return run


def write_run(folder: Path, score: float, escape: float | None = None) -> None:
    folder.mkdir(parents=True)
    (folder / "finished.json").write_text("{}")
    rows = [{"step": step, "train/success": score / 2} for step in range(1, 11)]
    rows[4] |= {"train/escape_step": escape} if escape else {}
    names = ("exact_pass_at_1", "right_chain", "chain", "exact_necessity_swapped", "exact_necessity_empty")
    rows.append({"step": 10, "val/gain": 12.0, **{f"val/{name}": score for name in names}})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_means_intervals_and_verdicts_over_seeds(tables, tmp_path, capsys):
    for seed, noise in enumerate((0.0, 0.01, 0.02, 0.03, 0.04)):
        write_run(tmp_path / f"sweep/SFT-seed{seed}", 0.01 + noise)
        write_run(tmp_path / f"sweep/GARL-q0.75-seed{seed}", 0.91 + noise, escape=5.0 if seed else None)
        write_run(tmp_path / f"sweep/GRPO-seed{seed}", 0.915 + noise, escape=4.0)
    write_run(tmp_path / "sweep/PAFT-q0.75-seed0", 0.5, escape=9.0)
    write_run(tmp_path / "sweep/PAFT-q0.75-hops=4-seed0", 0.25)
    tables(tmp_path / "sweep", tmp_path / "out")
    shown = capsys.readouterr().out
    assert "| 3 | GARL q = 0.75 | 5 | 5 (4 of 5) | 0.930 | 0.9" in shown
    assert "| 3 | answer-only SFT | 5 | – | 0.030 | 0.0" in shown
    assert "| 3 | PAFT q = 0.75 | 1 | 9 | 0.500 | – | 0.500, 0.500 | 0.500 |" in shown
    assert "| 4 | PAFT q = 0.75 | 1 | – | 0.250 | – |" in shown
    verdicts = (tmp_path / "out" / "verdicts.md").read_text().splitlines()
    # 2 / C(10, 5) = 0.008 is the least that five runs against five can give; three such comparisons.
    assert [line.split(" | ")[0] for line in verdicts if "better" in line] == [
        "| GARL q = 0.75 − answer-only SFT",
        "| GRPO − answer-only SFT",
    ]
    (close,) = (line for line in verdicts if "− GRPO" in line)
    assert "-0.005" in close and "cannot tell" in close
    assert "| 1 and 5 | +0.470 |" in next(line for line in verdicts if line.startswith("| PAFT q = 0.75 − answer"))
    assert len(pd.read_csv(tmp_path / "out" / "runs.csv")) == 17
    assert (tmp_path / "out" / "khop.png").read_bytes().startswith(b"\x89PNG")


def test_a_folder_without_runs_is_said(tables, tmp_path, capsys):
    with pytest.raises(SystemExit):
        tables(tmp_path, tmp_path / "out")
    assert "no finished run" in capsys.readouterr().err


def test_earlier_runs_count_beside_new_ones_and_are_replaced_by_them(tables, tmp_path, capsys):
    write_run(tmp_path / "first/RFT-seed0", 0.5)
    write_run(tmp_path / "first/RFT-seed1", 0.7)
    tables(tmp_path / "first", tmp_path / "out")
    write_run(tmp_path / "second/RFT-seed1", 0.9)
    write_run(tmp_path / "second/GRPO-seed0", 0.2)
    tables(tmp_path / "second", tmp_path / "out", "--earlier", str(tmp_path / "out/runs.csv"))
    runs = pd.read_csv(tmp_path / "out/runs.csv")
    assert runs[["arm", "seed", "exact pass@1"]].to_numpy().tolist() == [
        ["GRPO", 0, 0.2], ["RFT", 0, 0.5], ["RFT", 1, 0.9]
    ]  # fmt: skip
