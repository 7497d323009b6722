import io
import time
from pathlib import Path

from rich.console import Console

from jqlight.sweep.file import Point, Sweep
from jqlight.sweep.folder import PointFolder, SweepFolder
from jqlight.sweep.runner import Run, Status
from jqlight.sweep.view import (
    PlainView,
    _sweep_seconds_left,
    count_line,
    duration,
    point_table,
    progress_table,
    report_failures,
    shortened,
)


def make(name, status, *, first=None, newest=None, seconds=None, folder=Path("nowhere"), max_steps=100):
    run = Run(Point(name, {}), PointFolder(folder), status, resumes=False, stages=["fit"], max_steps=max_steps)
    run.progress.first, run.progress.newest, run.seconds = first, newest, seconds
    run.progress.step = newest[0] if newest else 0
    return run


def shown(table, width=120):
    console = Console(file=io.StringIO(), width=width)
    console.print(table)
    return console.file.getvalue()


def test_duration_reads_as_a_clock():
    assert [duration(seconds) for seconds in (None, 5, 65, 3600, 3725.4)] == ["", "0:05", "1:05", "1:00:00", "1:02:05"]


def test_row_shows_step_of_how_many_and_time_left():
    text = shown(progress_table([make("a", Status.RUNNING, first=(10, 0.0), newest=(40, 60.0))], 10, 120))
    assert "40/100" in text
    assert "2:00" in text  # 60 steps at 2 s


def test_small_terminal_shows_what_runs_and_what_failed_first():
    runs = [make(f"w{i}", Status.WAITING) for i in range(8)]
    runs += [make("runs", Status.RUNNING), make("failed", Status.FAILED)]
    text = shown(progress_table(runs, 4, 120))
    assert "runs" in text
    assert "failed" in text
    assert sum(line.startswith("w") for line in text.splitlines()) == 2


def test_long_names_leave_the_figures_their_room():
    names = [f"warm-{kind}-q0.75-max_prompt_tokens=340-and=so-on-seed0" for kind in ("GARL", "PAFT")]
    runs = [make(name, Status.RUNNING, first=(10, 0.0), newest=(40, 60.0)) for name in names]
    lines = shown(progress_table(runs, 10, 80), 80).splitlines()
    assert [line.split()[0].partition("…")[0] for line in lines[1:]] == [name[:18] for name in names]
    assert all(line.split()[0].endswith("seed0") for line in lines[1:])
    assert all(line.split()[1:] == ["running", "40/100", "2:00"] for line in lines[1:])


def test_shortened_keeps_both_ends():
    assert shortened("abcdefgh", 8) == "abcdefgh"
    assert shortened("abcdefgh", 5) == "ab…gh"
    assert shortened("abcdefgh", 6) == "abc…gh"


def test_points_are_shown_whole_and_with_the_settings_that_fit():
    settings = {"scenario": "warm", "estimator": "GARL", "data.max_prompt_tokens": 340, "seed": 0}
    sweep = Sweep("s", Path("s.yaml"), (), "e", (Point("x" * 43, settings), Point("y" * 90, settings)))
    whole, left_out = point_table(sweep, SweepFolder(Path("nowhere")))
    assert left_out == []
    text = shown(whole, 1000)
    assert [line.split() for line in text.splitlines()] == [
        ["point", "state", "scenario", "estimator", "max_prompt_tokens", "seed"],
        ["1", "x" * 43, "missing", "warm", "GARL", "340", "0"],
        ["2", "y" * 90, "missing", "warm", "GARL", "340", "0"],
    ]
    short = Sweep("s", Path("s.yaml"), (), "e", (Point("x" * 43, settings),))
    narrow, left_out = point_table(short, SweepFolder(Path("nowhere")), 80)
    assert left_out == ["max_prompt_tokens", "seed"]
    assert [line.split() for line in shown(narrow, 80).splitlines()] == [
        ["point", "state", "scenario", "estimator"],
        ["1", "x" * 43, "missing", "warm", "GARL"],
    ]
    names_only, _ = point_table(sweep, SweepFolder(Path("nowhere")), 80)
    assert shown(names_only, 80).count("y") == 90  # on two lines


def test_sweeps_time_left_adds_what_waits_at_the_pace_of_what_ended():
    done = make("done", Status.FINISHED, seconds=50.0)
    running = make("running", Status.RUNNING, first=(0, 0.0), newest=(50, 100.0))  # 100 s left
    waiting = make("waiting", Status.WAITING)
    assert _sweep_seconds_left([done, running, waiting], jobs=1) == 150
    assert _sweep_seconds_left([done, running, waiting], jobs=2) == 100  # the running one takes longest
    assert _sweep_seconds_left([running, waiting], jobs=1) is None
    assert _sweep_seconds_left([done, make("stopped", Status.STOPPED), waiting], jobs=1) is None


def test_validation_is_told_once():
    console = Console(file=io.StringIO(), width=120)
    run = make("a", Status.RUNNING, newest=(40, 1.0))
    view = PlainView(console, [run])
    run.progress.majority = 0.25
    view.refresh([run])
    view.refresh([run])
    assert console.file.getvalue() == "a: step 40, maj@k 0.250\n"


def test_failures_show_the_end_of_their_log(tmp_path):
    (tmp_path / "output.log").write_text("\n".join(f"line {i}" for i in range(40)) + "\n[bold]not markup[/bold]\n")
    console = Console(file=io.StringIO(), width=200)
    failed = make("a", Status.FAILED, folder=tmp_path)
    failed.exit_code = -9
    report_failures(console, [failed, make("b", Status.FINISHED)])
    text = console.file.getvalue()
    assert "a failed (ended by signal 9)" in text
    assert "  | [bold]not markup[/bold]" in text
    assert "line 39" in text
    assert "line 10" not in text


def test_counts_are_in_order_of_status():
    runs = [make("a", Status.FAILED), make("b", Status.KEPT), make("c", Status.FAILED)]
    assert count_line(runs) == "1 finished before, 2 failed"


def test_a_point_that_is_silent_for_long_is_told_once(monkeypatch):
    console = Console(file=io.StringIO(), width=200)
    run = make("a", Status.RUNNING)
    view = PlainView(console, [run])
    for ago in (599, 660, 720, 5, 601):
        run.heard = time.monotonic() - ago
        view.refresh([run])
    lines = console.file.getvalue().splitlines()
    assert lines == [f"a: no new step for {m} minutes; log: {run.folder.log}" for m in (11, 10)]
    assert "no step for 10 min" in shown(progress_table([run], 10, 120))


def test_what_kept_a_point_from_starting_is_told():
    run = make("a", Status.FAILED)
    run.problem = "[Errno 28] No space left on device: 'runs/s/a/point.json'"
    console = Console(file=io.StringIO(), width=200)
    report_failures(console, [run])
    assert console.file.getvalue() == f"\na failed: {run.problem}\n"
