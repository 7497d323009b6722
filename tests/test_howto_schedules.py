"""docs/howto/schedules.md: its commands and its file do what it says."""

import json
import re
import shlex
from pathlib import Path

import pytest
import torch
import yaml
from cli_fixtures import climber, empty_store, shell, workplace
from torch.optim import lr_scheduler

from jqlight.cli.build import parse

__all__ = ["climber", "empty_store", "shell", "workplace"]
ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "howto" / "schedules.md").read_text()
COMMANDS = [shlex.split(line)[2:] for line in re.findall(r"^    (jqlight fit .*)$", TEXT, re.MULTILINE)]
SMALL = shlex.split(
    "--model.sampler.engine transformers --model.rollouts 2 --model.samples 16 --data.prompts_per_step 1 "
    "--data.validation_size 2 --trainer.num_sanity_val_steps 0 --trainer.val_check_interval 1 --trainer.max_steps 6"
)


def with_option(*words):
    return [command for command in COMMANDS if set(words) <= {*command}]


def logged(folder, key):
    rows = [json.loads(line) for line in Path(folder, "metrics.jsonl").read_text().splitlines()]
    return [row[key] for row in rows if key in row]


def rates(schedule, lr, steps):
    """The rate of each step under a schedule, as torch itself has it."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr)
    moving, found = schedule(optimizer), []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        moving.step()
    return found


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_is_one(command, workplace):
    (workplace / "stop.yaml").write_text(re.search(r"```yaml\n(.*?)```", TEXT, re.DOTALL).group(1))
    parse([str(ROOT / word) if word.startswith("conf/") else word for word in command])


@pytest.mark.parametrize("name", ["CosineAnnealingLR", "StepLR", "LinearLR", "OneCycleLR"])
def test_the_rate_follows_the_schedule(name, shell, climber, workplace):
    (command,) = with_option("--lr_scheduler", name)
    given = command[command.index("--lr_scheduler") :]
    given[3::2] = ["2" if key.endswith("step_size") else value for key, value in zip(given[2::2], given[3::2])]
    assert shell("fit", "--config", climber, *given, "--run_dir", "runs/a", "--trainer.max_steps", 6) == 0, shell.err
    settings = {key.rpartition(".")[2]: yaml.safe_load(value) for key, value in zip(given[2::2], given[3::2])}
    settings = {key: float(value) if key == "max_lr" else value for key, value in settings.items()}
    expected = rates(lambda optimizer: getattr(lr_scheduler, name)(optimizer, **settings), 0.5, 6)
    assert len(set(expected)) > 1
    assert logged("runs/a", "train/lr") == pytest.approx(expected, rel=1e-5)


def test_the_file_stops_early_and_goes_on_without_the_callback(shell, workplace):
    (workplace / "stop.yaml").write_text(re.search(r"```yaml\n(.*?)```", TEXT, re.DOTALL).group(1))
    files = ["--config", ROOT / "conf" / "quickstart.yaml", "--config", "stop.yaml", "--run_dir", "runs/a", *SMALL]
    assert shell("fit", *files) == 0, shell.err
    # The first validation is the best so far; three more are not better than its 0.
    assert (
        "stopped at step 4 by EarlyStopping: Monitored metric val/maj_at_16 did not improve in the last 3" in shell.out
    )
    expected = rates(lambda optimizer: lr_scheduler.OneCycleLR(optimizer, 1e-3, 120), 5e-4, 6)
    assert logged("runs/a", "train/lr") == pytest.approx(expected[:4], rel=1e-5)
    assert logged("runs/a", "lr-AdamW") == pytest.approx(expected[:4], rel=1e-5)
    assert shell("fit", *files, "--ckpt_path", "last", "--trainer.callbacks", "null") == 0, shell.err
    assert "EarlyStopping" not in shell.out
    assert logged("runs/a", "train/lr") == pytest.approx(expected, rel=1e-5)


def test_a_plateau_halves_the_rate(shell, workplace):
    (command,) = with_option("ReduceLROnPlateau")
    command = [str(ROOT / word) if word.startswith("conf/") else word for word in command]
    options = ["--run_dir", "runs/a", "--lr_scheduler.patience", "0", *SMALL, "--trainer.max_steps", "4"]
    assert shell("fit", *command, *options) == 0, shell.err
    # Each validation behind the first one is no better than its 0.
    assert logged("runs/a", "train/lr") == pytest.approx([5e-4, 5e-4, 2.5e-4, 1.25e-4])
    assert "mode" not in shell.err


def test_what_takes_lower_scores_for_better_is_told(shell, climber):
    options = shlex.split(
        "--lr_scheduler ReduceLROnPlateau --lr_scheduler.monitor val/maj_at_2 "
        "--trainer.callbacks+=EarlyStopping --trainer.callbacks.monitor val/maj_at_2"
    )
    assert shell("fit", "--config", climber, *options) == 0, shell.err
    assert "lr_scheduler.mode: min takes a lower val/maj_at_2 for better; give max." in shell.err
    assert "EarlyStopping.mode: min takes a lower val/maj_at_2 for better; give max." in shell.err
