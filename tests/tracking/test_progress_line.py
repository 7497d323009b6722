import time
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import LightningModule

from jqlight.startup import Phases
from jqlight.tracking import progress as module
from jqlight.tracking.progress import Console, duration, headline, total_steps


def trainer(**fields):
    base = {
        "global_step": 3,
        "max_steps": 10,
        "max_epochs": -1,
        "num_training_batches": 100,
        "sanity_checking": False,
        "is_global_zero": True,
        "num_sanity_val_batches": [],
        "ckpt_path": None,
        "state": SimpleNamespace(fn="fit", stage=SimpleNamespace(value="validate")),
        "callback_metrics": {
            "train/success": torch.tensor(0.0123),
            "train/logprob_gap": torch.tensor(2e-6),
            "val/maj_at_16": torch.tensor(0.5),
            "val/exact_maj_at_16": torch.tensor(0.25),
            "val/pass_at_1": torch.tensor(0.125),
        },
    }
    return SimpleNamespace(**{**base, **fields})


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (41, "41 s"), (161, "2 min 41 s"), (11100, "3 h 05 min"), (3599.7, "1 h 00 min")],
)
def test_duration(seconds, text):
    assert duration(seconds) == text


ENDLESS = float("inf")


@pytest.mark.parametrize(
    ("max_steps", "max_epochs", "batches", "total"),
    [
        (10, -1, 100, 10),
        (-1, 2, 100, 200),
        (150, 2, 100, 150),
        (250, 2, 100, 200),
        (-1, -1, 100, None),
        (-1, 2, ENDLESS, None),
    ],
)
def test_total_steps(max_steps, max_epochs, batches, total):
    assert total_steps(trainer(max_steps=max_steps, max_epochs=max_epochs, num_training_batches=batches)) == total


def test_headline_puts_the_majority_vote_first():
    assert headline(trainer()) == {"val/maj_at_16": 0.5, "val/exact_maj_at_16": 0.25, "val/pass_at_1": 0.125}
    assert list(headline(trainer())) == ["val/maj_at_16", "val/exact_maj_at_16", "val/pass_at_1"]


def test_what_a_step_did_not_report_is_not_shown(capsys):
    shown = Console("title")
    shown.setup(trainer(), None, "fit")
    metrics = trainer().callback_metrics | {"train/logprob_gap": torch.tensor(float("nan"))}
    shown.on_train_start(trainer(global_step=0), None)
    shown.on_train_batch_start(trainer(), None)
    shown.on_train_batch_end(trainer(global_step=1, callback_metrics=metrics), None)
    line = capsys.readouterr().out.splitlines()[-1]
    assert "success 0.0123" in line and "gap" not in line and "nan" not in line


def test_plain_lines_where_there_is_no_terminal(capsys):
    shown = Console("title")
    shown.setup(trainer(), None, "fit")
    shown.on_train_start(trainer(global_step=0), None)
    for step in (1, 2, 3):
        shown.on_train_batch_start(trainer(), None)
        shown.on_train_batch_end(trainer(global_step=step), None)
    shown.on_validation_end(trainer(), None)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "title"
    assert lines[1].startswith("start-up ")
    assert lines[2].startswith("step 1/10  success 0.0123  gap 2e-06  maj_at_16 0.5  ")
    assert lines[3] == "validation at step 3: val/maj_at_16 0.5, val/exact_maj_at_16 0.25, val/pass_at_1 0.125"
    assert len(lines) == 4
    assert "\r" not in "".join(lines)


def test_pace_counts_training_and_time_left_counts_everything(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    shown = Console()
    shown.on_train_start(trainer(global_step=0), None)
    for _ in range(2):
        shown.on_train_batch_start(trainer(), None)
        now[0] += 2.0
        shown.on_train_batch_end(trainer(global_step=2), None)
        now[0] += 3.0  # a validation
    assert shown._training_line(trainer(global_step=2)).endswith("2 s/step  40 s left")


def test_a_terminal_line_is_redrawn_and_cleared(capsys):
    shown = Console()
    shown._live = True
    shown.on_train_start(trainer(global_step=0), None)
    shown.on_train_batch_start(trainer(), None)
    shown.on_train_batch_end(trainer(global_step=5), None)
    shown.print("a notice")
    out = capsys.readouterr().out
    bar = "█" * 10 + "░" * 10
    assert f"\r{bar} step 5/10" in out
    assert out.endswith("\ra notice\n")


def test_a_module_prints_through_the_console(capsys):
    shown = Console()
    shown._live = True
    module = LightningModule()
    module._trainer = trainer(global_step=5, is_global_zero=True, progress_bar_callback=shown)
    shown.on_train_start(module._trainer, None)
    shown._draw("the line")
    module.print("a notice")
    assert capsys.readouterr().out.endswith("\ra notice\n")
    shown.disable()
    module.print("another")
    assert capsys.readouterr().out == "another\n"


def test_a_disabled_console_is_silent(capsys):
    shown = Console("title")
    shown.disable()
    shown.setup(trainer(), None, "fit")
    shown.on_train_start(trainer(), None)
    shown.on_train_batch_end(trainer(), None)
    shown.on_validation_end(trainer(), None)
    assert capsys.readouterr().out == ""


def test_phases_are_consecutive_and_add_up():
    phases = Phases(time.time() - 5.0)
    phases.mark("imports")
    phases.mark("engine")
    phases._last -= 2.0
    phases.mark("engine")
    assert phases.seconds["imports"] == pytest.approx(5.0, abs=0.5)
    assert phases.seconds["engine"] == pytest.approx(2.0, abs=0.5)
    assert phases.line().startswith("start-up 5.0 s: imports 5.0, engine 2.0")
