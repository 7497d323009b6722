"""scripts/depth_tables.py on run folders made by hand."""

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from jqlight.benchmarks.twohop import questions

SCRIPT = Path(__file__).parents[1] / "scripts" / "depth_tables.py"


def write_run(folder: Path, settings: dict[str, Any], by_relation: dict[str, float]) -> None:
    (folder / "artifacts/questions").mkdir(parents=True)
    (folder / "finished.json").write_text("{}")
    (folder / "point.json").write_text(json.dumps({"settings": settings}))
    relations = [question.chain[1][1] for question in questions("validation", 64)]
    rows = [{"id": f"validation-{i}", "exact_pass_at_1": by_relation[name]} for i, name in enumerate(relations)]
    text = "".join(json.dumps(row) + "\n" for row in reversed(rows))
    (folder / "artifacts/questions/step_000200.jsonl").write_text(text)
    (folder / "artifacts/questions/step_000100.jsonl").write_text("")


def test_each_answer_format_has_its_own_score(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.syspath_prepend(SCRIPT.parent)
    module = importlib.import_module("depth_tables")
    garl = {"estimator": "GARL", "q": 0.5, "model.scale": "batch"}
    right = {"r0": 1.0, "r1": 0.5, "r2": 0.25, "r3": 1.0, "r4": 0.5}
    write_run(tmp_path / "s/a", garl | {"seed": 0}, right)
    write_run(tmp_path / "s/b", garl | {"seed": 1}, right | {"r0": 0.0, "r3": 0.0})
    splice = {"class_path": "jqlight.objective.Splice", "init_args": {"tau": 0.05}}
    write_run(tmp_path / "s/d", garl | {"q": splice, "seed": 0}, dict.fromkeys(right, 1.0))
    write_run(tmp_path / "s/c", {"estimator": "GRPO", "seed": 0}, dict.fromkeys(right, 0.0))
    monkeypatch.setattr(sys, "argv", ["depth_tables.py", str(tmp_path / "s"), str(tmp_path / "out")])
    module.main()
    table = capsys.readouterr().out
    assert "| GARL | batch | 0.5 | 2 | 0.500 (0.000–1.000) | 0.500 | 0.250 |" in table
    assert "| GARL | batch | Splice 0.05 | 1 | 1.000 |" in table
    assert "| GRPO |  |  | 1 | 0.000 | 0.000 | 0.000 | 0.000 |" in table
    runs = pd.read_csv(tmp_path / "out/runs.csv")
    shares = [
        sum(q.chain[1][1] in names for q in questions("validation", 64)) / 64
        for names in (("r0", "r3"), ("r1", "r4"), ("r2",))
    ]
    assert runs["all"].tolist() == pytest.approx(
        [sum(a * b for a, b in zip(shares, (1, 0.5, 0.25))), sum(a * b for a, b in zip(shares, (0, 0.5, 0.25))), 1, 0],
        abs=1e-5,
    )
