import json

import pytest

from jqlight.sweep.progress import Progress


def add(path, *rows):
    with path.open("a") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def test_newest_figures_are_read_as_they_come(tmp_path):
    progress = Progress(tmp_path / "metrics.jsonl")
    progress.update()
    assert (progress.step, progress.success, progress.majority) == (0, None, None)
    add(progress.metrics, {"step": 1, "train/success": 0.1}, {"step": 2, "val/maj_at_16": 0.25, "val/tie_rate": 0.5})
    progress.update()
    assert (progress.step, progress.success, progress.majority) == (2, 0.1, 0.25)
    add(progress.metrics, {"step": 3, "train/success": 0.4})
    progress.update()
    assert (progress.step, progress.success, progress.majority) == (3, 0.4, 0.25)


def test_scores_of_an_earlier_checkpoint_are_no_step_back(tmp_path):
    progress = Progress(tmp_path / "metrics.jsonl")
    add(progress.metrics, {"step": 60, "train/success": 0.5}, {"step": 40, "test/maj_at_16": 0.9})
    progress.update()
    assert (progress.step, progress.majority) == (60, None)


def test_a_line_being_written_waits_and_a_broken_one_is_skipped(tmp_path):
    progress = Progress(tmp_path / "metrics.jsonl")
    progress.metrics.write_text('{"step": 1, "train/succ{"step": 2}\n{"step": 3}\n{"step": 4, "train')
    progress.update()
    assert progress.step == 3
    with progress.metrics.open("a") as file:
        file.write('/success": 0.5}\n')
    progress.update()
    assert (progress.step, progress.success) == (4, 0.5)


def test_time_left_counts_the_steps_of_this_process_only(tmp_path):
    progress = Progress(tmp_path / "metrics.jsonl")
    add(progress.metrics, {"step": 1, "time": 0.0}, {"step": 50, "time": 5.0})
    progress.skip_existing()
    assert progress.step == 50
    assert progress.seconds_left(100) is None
    add(progress.metrics, {"step": 51, "time": 1000.0})
    progress.update()
    assert progress.seconds_left(100) is None
    add(progress.metrics, {"step": 61, "time": 1020.0})
    progress.update()
    # 10 steps took 20 s; 39 are left.
    assert progress.seconds_left(100) == pytest.approx(78)
    assert progress.seconds_left(None) is None
