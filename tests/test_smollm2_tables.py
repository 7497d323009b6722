"""scripts/smollm2_tables.py on run folders made by hand."""

import csv
import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
SCORES = ("maj_at_16", "exact_maj_at_16", "em_maj_at_16", "pass_at_1", "pass_at_16")


def write_run(folder, settings, score, escape, outputs, validated=True):
    (folder / "samples").mkdir(parents=True)
    (folder / "config.yaml").write_text(f"model: {folder.name}\n")
    (folder / "point.json").write_text(json.dumps({"settings": settings}))
    (folder / "run.json").write_text(json.dumps({"tags": {"mlflow.source.git.commit": "0123456789abcdef"}}))
    steps = [{"step": step, "train/thinking_tokens": float(step)} for step in range(1, 8)]
    steps[-1] |= {"train/escape_step": escape} if escape else {}
    rows = [*steps, {"step": 7, **{f"val/{name}": score for name in SCORES}}]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    lines = [json.dumps({"rationale": rationale, "answer": answer}) for rationale, answer in outputs]
    if validated:
        (folder / "samples" / "step_000007.jsonl").write_text("\n".join(lines))


def tables(sweep, out):
    command = [sys.executable, str(ROOT / "scripts" / "smollm2_tables.py"), str(sweep), str(out)]
    return subprocess.run(command, capture_output=True, text=True)


def test_tables_hold_means_spreads_and_what_was_written(tmp_path):
    cold = {"scenario": "cold", "estimator": "GARL", "q": 0.75}
    outputs = [("<|im_end|>", "no"), ("a thought", "Paris"), (" <|im_end|>", "Yes"), ("b", "Rome")]
    write_run(tmp_path / "sweep/a", {**cold, "seed": 0}, 0.25, 10.0, outputs)
    write_run(tmp_path / "sweep/b", {**cold, "seed": 1}, 0.75, None, outputs[1:2])
    write_run(tmp_path / "sweep/c", {"scenario": "cold", "estimator": "GRPO", "seed": 0}, 0.0, None, outputs)
    write_run(tmp_path / "sweep/d", {**cold, "seed": 2}, 1.0, 1.0, outputs, validated=False)
    done = tables(tmp_path / "sweep", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    garl, grpo = csv.DictReader((tmp_path / "out/methods.csv").open())
    assert (garl["method"], garl["n"]) == ("cold GARL q = 0.75", "2")
    assert garl["maj@16"] == "0.500 ± 0.354"
    assert garl["escape step"] == "10.0 (1 of 2)"
    assert garl["thinking tokens"] == "5.0 ± 0.0"  # of steps 3 to 7
    assert garl["empty rationales"] == "0.250 ± 0.354"
    assert (grpo["method"], grpo["escape step"], grpo["answers yes or no"]) == ("cold GRPO", "never", "0.500")
    assert sorted(path.name for path in (tmp_path / "out/configs").iterdir()) == ["a.yaml", "b.yaml", "c.yaml"]
    runs = list(csv.DictReader((tmp_path / "out/runs.csv").open()))
    assert [(row["run"], row["commit"]) for row in runs] == [(name, "0123456") for name in "abc"]
    assert done.stdout in (tmp_path / "out/tables.md").read_text()


def test_folder_without_validated_runs_is_refused(tmp_path):
    refused = tables(tmp_path, tmp_path / "out")
    assert refused.returncode == 2
    assert "has no validated run" in refused.stderr
