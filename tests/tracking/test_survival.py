"""A run that is killed or sent a signal, at any moment, and resumed ends like one that was not."""

import json
import os
import signal
import time

import pytest
import torch
from lightning.pytorch import Callback
from mlflow import MlflowClient

from jqlight.tracking.checkpoint_files import checkpoint_step
from jqlight.tracking.interrupts import SIGNALS, Stopped, ended_by_signals
from jqlight.tracking.mlflow import store_uri

EVERY_STEP = ["--checkpoint.every_n_steps", "1", "--trainer.max_steps", "10", "--trainer.val_check_interval", "2"]
EVERY_STEP += ["--trainer.num_sanity_val_steps", "-1", "--trainer.check_val_every_n_epoch", "null", "--data.size", "6"]


class At(Callback):
    """Sends its own process a signal in a hook of some step."""

    def __init__(self, hook: str, step: int, number: int) -> None:
        def send(trainer, *_):
            if trainer.global_step == step:
                os.kill(os.getpid(), number)

        setattr(self, hook, send)


@pytest.fixture(autouse=True)
def in_the_foreground():
    """Signals as in a terminal, also where the tests run in the background or under nohup."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def forked(function):
    """Exit code of ``function`` in a child of this process; negative for the signal that killed it."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            code = function()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def fit(shell, climber, *options):
    return shell("fit", "--config", climber, *EVERY_STEP, *options, "--run_dir", "runs/a")


def interrupted(shell, climber, hook, step, number, *more):
    options = [*more, "--trainer.callbacks+=test_survival.At", f"--trainer.callbacks.hook={hook}"]
    options += [f"--trainer.callbacks.step={step}", f"--trainer.callbacks.number={int(number)}"]
    return forked(lambda: fit(shell, climber, *options))


def outcome(folder):
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    points = [(row["step"], key, value) for row in rows for key, value in row.items() if key not in ("step", "time")]
    assert len({point[:2] for point in points}) == len(points), "each point once"
    found = [torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True) for name in ("last", "best")]
    states = [
        (c["global_step"], c["state_dict"], c["optimizer_states"], c["loops"]["fit_loop"]["state_dict"]) for c in found
    ]
    samples = {path.name: path.read_text() for path in (folder / "samples").iterdir()}
    return sorted(points), str(states), samples


@pytest.fixture
def unharmed(shell, climber, workplace, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert fit(shell, climber) == 0, shell.err
    (workplace / "runs/a").rename(workplace / "unharmed")
    return outcome(workplace / "unharmed")


MOMENTS = [
    ("on_sanity_check_end", 0),
    ("on_train_start", 0),
    *[("on_train_batch_start", step) for step in (1, 5, 6)],
    *[("on_train_batch_end", step) for step in (2, 5)],
    *[("on_save_checkpoint", step) for step in (2, 3, 6)],
    *[(hook, step) for hook in ("on_validation_start", "on_validation_batch_end") for step in (2, 6, 10)],
    ("on_validation_end", 10),
    ("on_train_epoch_end", 6),
    ("on_train_end", 10),
]
"""Epochs end behind steps 6 and 12; the run ends behind step 10; steps 2, 4, ... are validated."""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize(("hook", "step"), MOMENTS)
def test_it_is_as_if_nothing_had_happened(shell, climber, workplace, unharmed, hook, step, number):
    code = interrupted(shell, climber, hook, step, number)
    assert code == (-9 if number == signal.SIGKILL else 128 + number)
    if number == signal.SIGTERM and hook not in ("on_sanity_check_end", "on_train_start"):
        assert checkpoint_step(workplace / "runs/a/checkpoints/last.ckpt") in (step, step + 1)
        assert json.loads((workplace / "runs/a/run.json").read_text())["status"] == "KILLED"
    assert fit(shell, climber, "--ckpt_path", "last") == 0, shell.err
    for ours, theirs in zip(outcome(workplace / "runs/a"), unharmed, strict=True):
        assert ours == theirs


def test_a_run_killed_in_the_validation_in_front_of_its_last_step_still_takes_it(
    shell, climber, workplace, monkeypatch
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    odd = ["--trainer.max_steps", "9"]
    assert interrupted(shell, climber, "on_validation_batch_end", 8, signal.SIGTERM, *odd) == 128 + signal.SIGTERM
    assert checkpoint_step(workplace / "runs/a/checkpoints/last.ckpt") == 8
    assert fit(shell, climber, *odd, "--ckpt_path", "last") == 0, shell.err
    assert checkpoint_step(workplace / "runs/a/checkpoints/last.ckpt") == 9


def test_a_job_in_the_background_ends_with_a_checkpoint_of_the_very_step(shell, climber, workplace):
    for ignored in (signal.SIGINT, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    assert interrupted(shell, climber, "on_train_batch_end", 5, signal.SIGTERM) == 128 + signal.SIGTERM
    assert checkpoint_step(workplace / "runs/a/checkpoints/last.ckpt") in (5, 6)


@pytest.mark.parametrize("number", SIGNALS)
def test_every_signal_ends_a_run_in_order(shell, climber, workplace, number):
    assert interrupted(shell, climber, "on_train_batch_start", 3, number) == 128 + number
    record = json.loads((workplace / "runs/a/run.json").read_text())
    assert record["status"] == "KILLED"
    assert MlflowClient(store_uri()).get_run(record["run_id"]).info.status == "KILLED"


def test_two_signals_end_at_once(shell, climber):
    def twice():
        with ended_by_signals():
            Stopped.waits = True
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)  # from the group, as a terminal sends it
            assert Stopped.by == signal.SIGTERM
            time.sleep(0.4)
            os.kill(os.getpid(), signal.SIGHUP)
        return 0

    assert forked(twice) == 128 + signal.SIGHUP


def test_what_nohup_ignores_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with ended_by_signals():
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_time_alone_makes_checkpoints_too(shell, climber, workplace):
    options = ["--trainer.limit_val_batches", "0", "--checkpoint.every_minutes", "1e-6"]
    options += ["--trainer.callbacks+=test_survival.At", "--trainer.callbacks.hook=on_train_batch_start"]
    options += ["--trainer.callbacks.step=4", "--trainer.callbacks.number=9"]
    assert forked(lambda: shell("fit", "--config", climber, *options, "--run_dir", "runs/a")) == -9
    assert checkpoint_step(workplace / "runs/a/checkpoints/last.ckpt") == 3
