import fcntl
import os
import re
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from cli_standins import Climber, Numbers
from lightning.pytorch import Callback, Trainer

from jqlight.startup import Phases
from jqlight.tracking import progress as module
from jqlight.tracking.progress import ProgressLine, fitting, folded, headline, total_steps


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
    ("options", "total"),
    [
        ({"max_steps": 10, "max_epochs": -1}, 10),
        ({"max_epochs": 2}, 16),
        ({"max_steps": 12, "max_epochs": 2}, 12),
        ({"max_steps": 20, "max_epochs": 2}, 16),
        ({"max_epochs": -1}, None),
    ],
)
def test_total_steps(options, total):
    trainer = Trainer(accelerator="cpu", logger=False, **options)
    trainer.fit_loop.setup_data = lambda: None
    trainer.fit_loop.max_batches = 8
    assert total_steps(trainer) == total


def test_headline_puts_the_majority_vote_first():
    assert headline(trainer()) == {"val/maj_at_16": 0.5, "val/exact_maj_at_16": 0.25, "val/pass_at_1": 0.125}
    assert list(headline(trainer())) == ["val/maj_at_16", "val/exact_maj_at_16", "val/pass_at_1"]


class Told(Callback):
    """Prints through the module in the third step."""

    def on_train_batch_end(self, trainer, pl_module, *_):
        if trainer.global_step == 3:
            pl_module.print("a notice")


class Run(Climber):
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.5)

    def training_step(self, batch, batch_idx):
        super().training_step(batch, batch_idx)
        self.log("train/logprob_gap", float("nan") if self.global_step > 1 else 2e-6)


def fit(shown, **options):
    trainer = Trainer(
        max_steps=6, accelerator="cpu", logger=False, enable_checkpointing=False, enable_model_summary=False,
        val_check_interval=2, num_sanity_val_steps=0, log_every_n_steps=1, callbacks=[shown, Told()],
    )  # fmt: skip
    trainer.fit(Run(**options), Numbers())


def test_plain_lines_where_there_is_no_terminal(capsys):
    fit(ProgressLine("title"))
    out = capsys.readouterr().out
    lines = out.splitlines()
    assert lines[0] == "title"
    assert lines[1].startswith("start-up ")
    assert re.fullmatch(r"step 1/6  success 0\.5  gap 2e-06  \S+ s/step  [\d:]+ left", lines[2])
    assert lines[3] == "validation at step 2: val/maj_at_2 0.75"
    assert lines[4] == "a notice"
    assert lines[5:7] == ["validation at step 4: val/maj_at_2 1", "validation at step 6: val/maj_at_2 0.75"]
    assert re.fullmatch(r"step 6/6  success 3  maj_at_2 0\.75  \S+ s/step  [\d:]+ in all", lines[7])
    assert len(lines) == 8
    assert "\r" not in out


def test_a_plain_line_comes_when_15_seconds_have_passed(capsys, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(Told, "on_train_batch_start", lambda *_: now.__setitem__(0, now[0] + 8.0), raising=False)
    monkeypatch.setattr(Run, "on_validation_epoch_start", lambda *_: now.__setitem__(0, now[0] + 1.0))
    fit(ProgressLine())
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("step")]
    # Steps take 8 s and validations 1 s: the pace counts the steps alone, the time left counts both.
    assert [line.split()[1] for line in lines] == ["1/6", "3/6", "5/6", "6/6"]
    assert lines[1].endswith("8 s/step  00:25 left")
    assert lines[3].endswith("8 s/step  00:51 in all")


def on_a_terminal(code, columns=100):
    """What a program writes to a terminal of this width."""
    controller, terminal = os.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    folders = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*folders, *sys.path])}
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", code], stdout=terminal, stderr=subprocess.DEVNULL, env=environment
    ) as program:
        os.close(terminal)
        shown = b""
        while True:
            try:
                part = os.read(controller, 65536)
            except OSError:  # the other end is closed
                break
            shown += part
    os.close(controller)
    return program.returncode, shown.decode()


THREE_RUNS = """
from test_progress_line import *
fit(ProgressLine('title'))
print('narrow')
fcntl.ioctl(1, termios.TIOCSWINSZ, struct.pack('HHHH', 40, 50, 0, 0))
fit(ProgressLine())
print('failing')
try: fit(ProgressLine(), fail_at=3)
except Exception as error: print('error:', error)
"""


def test_a_terminal_has_one_line_that_is_redrawn():
    code, shown = on_a_terminal(THREE_RUNS)
    assert code == 0
    whole, narrow, failing = re.split("narrow|failing", shown)
    assert whole.startswith("title\r\nstart-up ")
    states = re.findall(r"\r([█▏▎▍▌▋▊▉ ]{20}) step (\d)/6 ", whole)
    assert {step: bar.count("█") for bar, step in states} == {"1": 3, "2": 6, "3": 10, "4": 13, "5": 16, "6": 20}
    lines = [line.rstrip("\r").rpartition("\r")[2].strip() for line in whole.split("\n")]
    standing = [re.sub(r"\x1b\[\w", "", line) for line in lines if line]
    assert standing[2:-1] == [
        "validation at step 2: val/maj_at_2 0.75",
        "a notice",
        "validation at step 4: val/maj_at_2 1",
        "validation at step 6: val/maj_at_2 0.75",
    ]
    assert re.fullmatch(r"█{20} step 6/6  success 3  maj_at_2 0\.75  \S+ s/step  [\d:]+ in all", standing[-1])
    # Cut off rather than wrapped.
    cut = [state for state in re.split(r"[\r\n]", narrow) if "step 5/6" in state]
    assert cut and max(map(len, cut)) <= 50
    assert "\nerror: record 7" in failing


LINE = ["step 100/120", "success 2.22e-18", "log w -43.2", "gap 5e-06", "maj_at_16 0.953", "1.2 s/step", "03:10 left"]


@pytest.mark.parametrize(("columns", "left_out"), [(120, ()), (93, (3,)), (80, (3, 5)), (40, (2, 3, 5))])
def test_a_narrow_terminal_has_what_counts_most(columns, left_out):
    line = fitting(LINE, columns)
    assert line == "  ".join(part for i, part in enumerate(LINE) if i not in left_out)
    assert len(line) < columns or columns == 40


def test_long_lines_are_broken_between_words(monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    assert folded("a table   of columns\nstart-up 3 s: imports 1.0, sync 2.0\n" + "x" * 30) == (
        "a table   of columns\nstart-up 3 s:\n  imports 1.0, sync\n  2.0\n" + "x" * 30
    )


def test_a_disabled_line_is_silent(capsys):
    shown = ProgressLine("title")
    shown.disable()
    fit(shown)
    assert capsys.readouterr().out == "a notice\n"


def test_phases_are_consecutive_and_add_up():
    phases = Phases(time.time() - 5.0)
    phases.mark("imports")
    phases.mark("engine")
    phases._last -= 2.0
    phases.mark("engine")
    assert phases.seconds["imports"] == pytest.approx(5.0, abs=0.5)
    assert phases.seconds["engine"] == pytest.approx(2.0, abs=0.5)
    assert phases.line().startswith("start-up 5.0 s: imports 5.0, engine 2.0")
