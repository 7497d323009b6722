"""The harness of `make gpu-check`, on stand-ins for its parts, and one part on the CPU."""

import json
import sys

import pytest

from perf import gpu_check, gpu_parts
from perf.gpu_check import PARTS, RESULT, Part, check, run_part, table, verdict


def script(tmp_path, code, limit_s=20.0):
    """Rows of a part whose process runs ``code``."""
    return run_part([sys.executable, "-c", code], limit_s, tmp_path / "part.log", {"GIVEN": "yes"})


def test_a_parts_rows_and_its_time(tmp_path):
    rows = [{"what": "gap", "value": 1e-6, "ok": True}]
    found = script(tmp_path, f"import os; print(os.environ['GIVEN']); print({RESULT + json.dumps(rows)!r})")
    assert found[:-1] == rows and found[-1]["what"] == "seconds of the whole part"


@pytest.mark.parametrize(
    ("code", "limit_s", "why"),
    [
        ("raise ValueError('no such kernel')", 20, "exit code 1: ValueError: no such kernel"),
        ("import time; print('begun', flush=True); time.sleep(60)", 1, "not at its end after 1 s"),
        ("import os; os.kill(os.getpid(), 9)", 20, "exit code -9: no output"),
        ("", 20, "exit code 0: no output"),
    ],
)
def test_a_part_that_does_not_end_well_is_a_row_that_says_why(tmp_path, code, limit_s, why):
    (row,) = script(tmp_path, code, limit_s)
    assert verdict(row) == "FAILED" and row["value"] == why


def test_rows_that_came_before_a_failure_are_kept(tmp_path):
    found = script(tmp_path, f"print('{RESULT}[{{}}]'.replace('{{}}', '{{\"what\": \"first\"}}')); raise SystemExit(3)")
    assert found[0]["what"] == "first" and verdict(found[1]) == "FAILED"


def test_parts_go_on_after_a_failure_and_stop_when_the_time_is_over(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_check, "run_part", lambda *_: [{"what": "x", "value": 0.123456, "ok": False}])
    rows = check([Part("one", "f", 5), Part("two", "f", 5)], "cpu", tmp_path)
    assert [row["part"] for row in rows] == ["one", "two"]
    kept = json.loads((tmp_path / "gpu_check.json").read_text())
    assert [row["verdict"] for row in kept["rows"]] == ["FAILED", "FAILED"] and kept["machine"]["device"] == "cpu"
    assert "| two | x | 0.1235 |  | FAILED |" in (tmp_path / "gpu_check.md").read_text()
    (late,) = check([Part("one", "f", 5)], "cpu", tmp_path, budget_s=5)
    assert verdict(late) == "not run" and "were over" in late["value"]


def test_a_table_cell_cannot_end_its_column():
    text = table([{"part": "p", "what": "a|b", "value": [1.23456, 1], "wanted": "", "ok": None}], {"cpu": "X"})
    assert text.endswith("| p | a/b | [1.235, 1] |  | measured |\n") and text.startswith("cpu X\n")


def test_every_part_exists_and_all_fit_in_eight_minutes():
    assert {part.function for part in PARTS} == gpu_parts.PARTS.keys()
    assert gpu_check.BUDGET_S < 480 and all(part.limit_s < gpu_check.BUDGET_S for part in PARTS)


def test_without_a_gpu_a_part_says_so(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["gpu_parts", "gradient", "--device", "cuda"])
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert gpu_parts.main() == 0
    (row,) = json.loads(capsys.readouterr().out.removeprefix(RESULT))
    assert verdict(row) == "not run" and row["value"] == "torch finds no GPU here"


def test_the_gradient_part_on_a_cpu(tmp_path, monkeypatch):
    monkeypatch.setattr("perf.workload.FOLDER", tmp_path)
    rows = {row["what"]: row for row in gpu_parts.gradient(gpu_parts.CPU)}
    assert verdict(rows["prompt shared: distance of its gradient from whole sequences'"]) == "ok"
    assert rows["prompt shared: seconds of a group"]["value"] > 0
