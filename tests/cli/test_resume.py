"""A run that goes on: the optimizer's settings, and which run, model and data a checkpoint belongs to."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
import yaml

LAST = "runs/climber/checkpoints/last.ckpt"
STEP_LR = ["--lr_scheduler", "StepLR", "--lr_scheduler.step_size", "2"]


def column(name: str) -> list[float]:
    rows = map(json.loads, Path("runs/climber/metrics.jsonl").read_text().splitlines())
    return [row[name] for row in rows if name in row]


def lr_of_config() -> float:
    return yaml.safe_load(Path("runs/climber/config.yaml").read_text())["optimizer"]["init_args"]["lr"]


@pytest.fixture
def stopped(shell, climber):
    """A run of four of its six steps."""

    def run(*options: str) -> None:
        assert shell("fit", "--config", climber, "--trainer.max_steps", "4", *options) == 0, shell.err

    return run


def test_a_learning_rate_given_on_resume_is_followed_told_and_recorded(shell, stopped):
    stopped()
    assert shell("fit", "--ckpt_path", LAST, "--optimizer.lr", "0.25", "--trainer.max_steps", "6") == 0, shell.err
    assert column("train/lr") == [0.5] * 4 + [0.25] * 2
    assert column("train/success") == [0.5, 1.0, 1.5, 2.0, 2.25, 2.5]
    assert lr_of_config() == 0.25
    assert "optimizer.lr: 0.25 from step 4 on, 0.5 before" in shell.err
    tags = json.loads(Path("runs/climber/run.json").read_text())["tags"]
    assert tags["resumed.optimizer.lr"] == "0.25 from step 4 on, 0.5 before"


def test_what_is_resumed_as_it_was_says_nothing(shell, stopped):
    stopped(*STEP_LR)
    assert shell("fit", "--ckpt_path", LAST, "--trainer.max_steps", "6", "--trainer.log_every_n_steps", "1") == 0
    assert shell.err == ""
    assert column("train/lr") == pytest.approx([0.5, 0.5, 0.05, 0.05, 0.005, 0.005])


@pytest.mark.parametrize(
    ("before", "given", "message"),
    [
        ([], ["--optimizer", "AdamW", "--optimizer.lr", "0.1"], r"optimizer: given torch.optim.*AdamW, but .*SGD"),
        ([], STEP_LR, "lr_scheduler: given torch.optim.lr_scheduler.StepLR, but .* was trained with None"),
        (
            STEP_LR,
            ["--lr_scheduler.step_size", "3"],
            "lr_scheduler.step_size: given 3, but .* trained with 2 and a sched",
        ),
        (
            STEP_LR,
            ["--optimizer.lr", "0.1"],
            "optimizer.lr: given 0.1, but .* was trained with 0.5 and a schedule goes",
        ),
        (
            STEP_LR,
            ["--lr_scheduler", "ExponentialLR", "--lr_scheduler.gamma", "0.9"],
            "given .*ExponentialLR, but .*StepLR",
        ),
    ],
)
def test_what_the_checkpoint_cannot_go_on_with_is_refused_with_both(shell, stopped, before, given, message):
    stopped(*before)
    assert shell("fit", "--ckpt_path", LAST, "--trainer.max_steps", "6", *given) == 2
    assert re.search(message, shell.err), shell.err
    assert shell.err.count("\n") == 1
    assert lr_of_config() == 0.5
    assert len(column("train/lr")) == 4


@pytest.mark.parametrize("damaged", [b"model: {class_pa", b"\xff\xfe{", b"", b"- 1\n"])
def test_a_damaged_config_of_the_run_is_told_and_made_again(shell, stopped, climber, damaged):
    stopped()
    Path("runs/climber/config.yaml").write_bytes(damaged)
    assert shell("fit", "--config", climber, "--ckpt_path", "last", "--trainer.max_steps", "6") == 0, shell.err
    assert "runs/climber/config.yaml is damaged: whether the optimizer's settings are still" in shell.err
    assert lr_of_config() == 0.5 and column("train/success") == [0.5, 1.0, 1.5, 2.0, 2.5, 3.0]


def test_a_checkpoint_without_the_optimizers_state_is_no_way_to_go_on(shell, stopped, climber):
    stopped()
    content = torch.load(LAST, weights_only=True)
    del content["optimizer_states"]
    torch.save(content, LAST)
    assert shell("fit", "--config", climber, "--ckpt_path", LAST, "--trainer.max_steps", "6") == 2
    assert "last.ckpt holds weights alone, without the optimizer's state" in shell.err and shell.err.count("\n") == 1


def test_a_checkpoint_taken_out_of_its_run_tells_its_kind_of_optimizer_itself(shell, stopped, climber):
    stopped()
    shutil.copy(LAST, "away.ckpt")
    adam = ["--optimizer", "AdamW", "--optimizer.lr", "0.1"]
    assert shell("fit", "--config", climber, "--ckpt_path", "away.ckpt", "--run_name", "b", *adam) == 2
    assert "optimizer: given AdamW, but the checkpoint is of one that has" in shell.err
    assert shell("fit", "--config", climber, "--ckpt_path", "away.ckpt", "--run_name", "c", "--optimizer.lr", "2") == 0
    rows = map(json.loads, Path("runs/c/metrics.jsonl").read_text().splitlines())
    assert [row["train/lr"] for row in rows if "train/lr" in row] == [2.0, 2.0]


@pytest.mark.parametrize("options", [[], ["--run_dir", "runs/elsewhere"], ["--data.size", "4"]])
def test_a_link_to_a_checkpoint_is_the_checkpoint(shell, stopped, options):
    stopped()
    Path("latest.ckpt").symlink_to(LAST)
    for path in ("latest.ckpt", LAST):
        assert shell("validate", "--ckpt_path", path, *options) == 0, shell.err
    assert ("runs/elsewhere" if options[:1] == ["--run_dir"] else "runs/climber") in shell.out


def test_a_run_goes_on_through_a_link_in_its_own_folder(shell, stopped):
    stopped()
    Path("latest.ckpt").symlink_to(Path(LAST).absolute())
    assert shell("fit", "--ckpt_path", "latest.ckpt", "--trainer.max_steps", "6") == 0, shell.err
    assert column("train/success") == [0.5, 1.0, 1.5, 2.0, 2.5, 3.0]


@pytest.mark.parametrize("folder", ["runs/climber", "far/away/from/here/run"])
def test_relative_paths_of_a_run_mean_what_they_meant(shell, stopped, workplace, monkeypatch, folder):
    (workplace / "numbers").mkdir()
    stopped("--data.path", "numbers", "--run_dir", folder)
    (workplace / "other").mkdir()
    monkeypatch.chdir(workplace / "other")
    assert shell("validate", "--ckpt_path", f"../{folder}/checkpoints/last.ckpt") == 0, shell.err
    assert yaml.safe_load((workplace / folder / "config.yaml").read_text())["data"]["init_args"]["path"] == str(
        workplace / "numbers"
    )
