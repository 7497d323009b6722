"""The runner with the stand-in for ``fit``, in this process and without MLflow."""

import errno
import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from jqlight.errors import ConfigError
from jqlight.sweep.command import point_command, stages
from jqlight.sweep.file import read_sweep
from jqlight.sweep.folder import PointFolder, State, SweepFolder, recorded_settings
from jqlight.sweep.launchers import LocalLauncher
from jqlight.sweep.runner import Runner, Status, prepare


class Events:
    """Records the calls that a view gets."""

    def __init__(self):
        self.seen = []
        self.most = 0

    def changed(self, run):
        self.seen.append((run.point.name, run.status))

    def refresh(self, runs):
        self.most = max(self.most, sum(run.status is Status.RUNNING for run in runs))


def go(path, *, resume=False, jobs=1, overrides=None, threads=None, devices=()):
    sweep = read_sweep(path, overrides)
    folder = SweepFolder(Path("runs") / sweep.name)
    lock = folder.lock()
    try:
        runs = prepare(sweep, folder, resume)

        def command(run):
            run.folder.begin(recorded_settings(sweep, run.point))
            words = stages(sweep, run.point, run.folder, resumes=run.resumes)[run.stages[0]]
            return point_command(words, run.folder, {"JQLIGHT_PARENT_RUN_ID": "p"}, threads)

        events = Events()
        Runner(runs, LocalLauncher(lock, devices), command, jobs).run(events)
    finally:
        os.close(lock)
    return runs, events


def calls(run):
    return [json.loads(line) for line in (run.folder.path / "calls.jsonl").read_text().splitlines()]


def test_every_point_runs_once_in_its_own_folder_with_its_own_settings(fake_fit, write_sweep):
    path = write_sweep("overrides: {model.rollouts: 4}\ngrid: {q: [0, 1], seed: [7]}\n")
    runs, events = go(path)
    assert [run.status for run in runs] == [Status.FINISHED] * 2
    assert [run.folder.path for run in runs] == [Path("runs/s/q0-seed7"), Path("runs/s/q1-seed7")]
    for run, q in zip(runs, ("0.0", "1.0")):
        (call,) = calls(run)
        given = dict(zip(call["argv"][1::2], call["argv"][2::2]))
        assert given["--config"] == str(path.parent / "base.yaml")
        assert (given["--model.q"], given["--seed_everything"], given["--model.rollouts"]) == (q, "7", "4")
        assert given["--run_dir"] == str(run.folder.path)
        assert call["env"]["JQLIGHT_PARENT_RUN_ID"] == "p"
        assert run.folder.state() is State.FINISHED
        assert (run.progress.step, run.progress.success, run.progress.majority) == (3, 0.3, 0.5)
    assert events.seen[0] == ("q0-seed7", Status.RUNNING)


def test_failed_point_is_reported_and_the_others_go_on(fake_fit, write_sweep):
    runs, _ = go(write_sweep("grid: {seed: [0]}\ninclude: [{fake.crash: 1}, {seed: 2}]\n"))
    assert [run.status for run in runs] == [Status.FINISHED, Status.FAILED, Status.FINISHED]
    assert runs[1].exit_code == 2
    assert runs[1].folder.tail(2) == ["progress 3", "jqlight fit: model.q: given 7, allowed is a number from 0 to 1"]
    assert runs[1].folder.state() is State.STARTED


def test_a_process_that_ends_with_0_before_its_run_has_finished_has_failed(fake_fit, write_sweep):
    path = write_sweep("grid: {seed: [0]}\ninclude: [{fake.leave: 1, seed: 1}]\n")
    runs, _ = go(path)
    assert [run.status for run in runs] == [Status.FINISHED, Status.FAILED]
    assert "exit code 0, but the run in runs/s/" in runs[1].problem and "is RUNNING" in runs[1].problem
    assert [run.status for run in go(path, resume=True)[0]] == [Status.KEPT, Status.FINISHED]


@pytest.mark.parametrize("moment", ["begin", "finish"])
def test_a_full_disk_fails_the_point_and_not_the_sweep(fake_fit, write_sweep, monkeypatch, moment):
    path, whole = write_sweep("grid: {seed: [0, 1]}\n"), getattr(PointFolder, moment)

    def full(folder, *args, **facts):
        if folder.path.name == "seed0":
            raise OSError(errno.ENOSPC, "No space left on device", str(folder.path / "point.json"))
        return whole(folder, *args, **facts)

    with monkeypatch.context() as patch:
        patch.setattr(PointFolder, moment, full)
        runs, _ = go(path)
    assert [run.status for run in runs] == [Status.FAILED, Status.FINISHED]
    assert "No space left on device" in runs[0].problem and "point.json" in runs[0].problem
    kept = Status.KEPT if moment == "finish" else Status.FINISHED
    assert [run.status for run in go(path, resume=True)[0]] == [kept, Status.KEPT]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_every_signal_that_ends_a_run_ends_a_sweep_in_order(fake_fit, write_sweep, number):
    path = write_sweep("overrides: {fake.seconds: 0.1, fake.steps: 1000}\ngrid: {seed: [0, 1]}\n")
    before = signal.signal(number, signal.SIG_DFL)  # `nohup` and background jobs ignore some
    timer = threading.Timer(1.5, os.kill, (os.getpid(), number))
    timer.start()
    try:
        runs, _ = go(path)
    finally:
        signal.signal(number, before)
    assert [run.status for run in runs] == [Status.STOPPED, Status.WAITING]


def test_resume_runs_what_is_missing_continues_from_checkpoints_and_repeats_nothing(fake_fit, write_sweep):
    path = write_sweep("overrides: {fake.steps: 4}\ngrid: {seed: [0]}\ninclude: [{fake.fail_at: 3, seed: 1}]\n")
    runs, _ = go(path)
    assert [run.status for run in runs] == [Status.FINISHED, Status.FAILED]
    runs, _ = go(path, resume=True)
    assert [run.status for run in runs] == [Status.KEPT, Status.FINISHED]
    assert len(calls(runs[0])) == 1
    first, second = calls(runs[1])
    assert (first["first"], second["first"]) == (0, 2)
    assert second["argv"][-2:] == ["--ckpt_path", str(runs[1].folder.checkpoint)]
    assert "--ckpt_path" not in first["argv"]
    steps = [json.loads(line)["step"] for line in runs[1].folder.metrics.read_text().splitlines()]
    assert steps == [1, 2, 3, 4, 4]


def test_test_stage_follows_fit_and_only_it_is_run_again_when_it_failed(fake_fit, write_sweep):
    path = write_sweep("test: true\noverrides: {fake.fail_test: once}\ngrid: {seed: [0]}\n")
    (run,), _ = go(path)
    assert run.status is Status.FAILED
    assert [call["argv"][0] for call in calls(run)] == ["fit", "test"]
    (run,), _ = go(path, resume=True)
    assert run.status is Status.FINISHED
    assert [call["argv"][0] for call in calls(run)] == ["fit", "test", "test"]
    assert calls(run)[-1]["argv"][-2:] == ["--ckpt_path", "best"]


def test_point_that_was_added_is_run_by_resume(fake_fit, write_sweep):
    go(write_sweep("grid: {seed: [0]}\n"))
    runs, _ = go(write_sweep("grid: {seed: [0, 1]}\n"), resume=True)
    assert [run.status for run in runs] == [Status.KEPT, Status.FINISHED]


def test_sweep_is_not_run_a_second_time_by_mistake(fake_fit, write_sweep):
    path = write_sweep("grid: {seed: [0]}\n")
    go(path)
    with pytest.raises(ConfigError, match="runs/s holds a sweep already; --resume"):
        go(path)


def test_point_with_other_settings_is_not_taken_for_finished(fake_fit, write_sweep):
    path = write_sweep("grid: {seed: [0]}\n")
    go(path)
    with pytest.raises(ConfigError, match=r"runs/s/seed0 was started with other settings \(trainer.max_steps\)"):
        go(path, resume=True, overrides={"trainer.max_steps": 9})
    (path.parent / "base.yaml").write_text("trainer: {max_steps: 4}\n")
    with pytest.raises(ConfigError, match=r"other settings \(base\)"):
        go(path, resume=True)


def test_jobs_run_side_by_side_and_never_more(fake_fit, write_sweep):
    path = write_sweep("overrides: {fake.steps: 1, fake.seconds: 0.6}\ngrid: {seed: [0, 1, 2, 3]}\n")
    runs, events = go(path, jobs=2, threads=1)
    assert events.most == 2
    assert all(run.status is Status.FINISHED for run in runs)
    assert calls(runs[0])[0]["env"]["OMP_NUM_THREADS"] == "1"


def test_devices_are_shared_out_one_each(fake_fit, write_sweep):
    path = write_sweep("overrides: {fake.steps: 1, fake.seconds: 0.6}\ngrid: {seed: [0, 1, 2]}\n")
    runs, _ = go(path, jobs=2, devices=("4", "7"))
    used = [calls(run)[0]["env"]["CUDA_VISIBLE_DEVICES"] for run in runs]
    assert set(used[:2]) == {"4", "7"}
    assert used[2] in ("4", "7")


def test_sweep_is_locked_while_one_of_its_points_lives_on(fake_fit, write_sweep):
    sweep = read_sweep(write_sweep("overrides: {fake.steps: 1, fake.seconds: 60}\ngrid: {seed: [0]}\n"))
    folder = SweepFolder(Path("runs/s"))
    lock = folder.lock()
    (run,) = prepare(sweep, folder, False)
    run.folder.begin(recorded_settings(sweep, run.point))
    command = point_command(stages(sweep, run.point, run.folder, resumes=False)["fit"], run.folder, {}, None)
    job = LocalLauncher(lock).start(command)
    os.close(lock)  # as when the sweep's process is killed
    with pytest.raises(ConfigError, match="still running here"):
        folder.lock()
    job.kill()
    while job.poll() is None:
        time.sleep(0.02)
    os.close(folder.lock())
