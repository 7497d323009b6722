"""Values of the right type that cannot work are refused before anything is built."""

import json

import pytest

OPTIMIZER = [
    ("--optimizer.lr=-1", "optimizer.lr: given -1.0, allowed is a number from 0"),
    ("--optimizer AdamW --optimizer.lr=1e38", "optimizer.lr: given 1e+38, allowed is a number from 0"),
    ("--optimizer.lr=inf", "optimizer.lr: given inf"),
    ("--optimizer.lr=nan", "optimizer.lr: given nan"),
    ("--optimizer.momentum=-0.5", "optimizer.momentum: given -0.5, allowed is a number from 0"),
    ("--optimizer AdamW --optimizer.betas=[1.5,0.95]", "optimizer.betas: given (1.5, 0.95), allowed is two numbers"),
    ("--optimizer AdamW --optimizer.eps=.nan", "optimizer.eps: given nan, allowed is a number from 0"),
    ("--optimizer AdamW --optimizer.weight_decay=-1", "optimizer.weight_decay: given -1.0, allowed is a number from 0"),
    ("--optimizer Adam --optimizer.fused=true --optimizer.foreach=true", "which Adam refuses"),
    ("--optimizer LBFGS", "optimizer: given LBFGS with "),
    ("--optimizer SparseAdam", "optimizer: given SparseAdam with "),
]
SCHEDULER = [
    ("StepLR --lr_scheduler.step_size=0", "lr_scheduler.step_size: given 0, which StepLR refuses"),
    ("CosineAnnealingLR --lr_scheduler.T_max=0", "lr_scheduler.T_max: given 0, which CosineAnnealingLR refuses"),
    ("CosineAnnealingWarmRestarts --lr_scheduler.T_0=-2", "lr_scheduler.T_0: given -2"),
    (
        "OneCycleLR --lr_scheduler.max_lr=1e-3 --lr_scheduler.total_steps=2",
        "it ends after 2 steps, trainer.max_steps is",
    ),
    ("ExponentialLR --lr_scheduler.gamma=-3", "sets the learning rate to -"),
    ("ReduceLROnPlateau --lr_scheduler.monitor=val/weight --lr_scheduler.factor=2", "lr_scheduler.factor: given 2.0"),
    ("ReduceLROnPlateau --lr_scheduler.monitor=x --trainer.limit_val_batches=0", "there is no validation"),
]
REST = [
    ("--seed_everything=-1", "seed_everything: given -1, allowed is a whole number from 0 to 4294967295"),
    ("--seed_everything=4294967296", "seed_everything: given 4294967296"),
    ("--trainer.max_steps=0", "trainer.max_steps: given 0, allowed is a whole number from 1, or -1"),
    ("--trainer.max_epochs=-2", "trainer.max_epochs: given -2"),
    ("--trainer.val_check_interval=0", "trainer.val_check_interval: given 0, allowed"),
    ("--trainer.val_check_interval=-3", "trainer.val_check_interval: given -3, allowed"),
    ("--trainer.val_check_interval=2.5", "trainer.val_check_interval: given 2.5, allowed"),
    ("--trainer.val_check_interval=.nan", "trainer.val_check_interval: given nan, allowed"),
    ("--trainer.check_val_every_n_epoch=0", "trainer.check_val_every_n_epoch: given 0, allowed"),
    ("--trainer.accelerator=tpu", "trainer.accelerator: given tpu, which Trainer refuses"),
    ("--trainer=true", "trainer"),
    ("--model=../x.GARL", "model: given ../x.GARL"),
    ("--data=.TwoHop", "data: given .TwoHop"),
    ("--trainer.devices=0", "trainer.devices: given 0, which Trainer refuses"),
    ("--trainer.devices=-7", "trainer.devices: given -7, which Trainer refuses"),
    ("--trainer.strategy=none_such", "trainer.strategy: given none_such, which Trainer refuses"),
    ("--trainer.strategy=fsdp", "trainer.strategy: given fsdp, which Trainer refuses"),
    ("--trainer.num_nodes=0", "trainer"),
    ("--trainer.accumulate_grad_batches=-1", "trainer"),
]
NAMES = [
    "../x",
    "a/b",
    "/x",
    "",
    " a",
    "a ",
    ".hidden",
    "a\nb",
    "a\x1bb",
    "a\\b",
    "x" * 101,
    "a*",
    "a:b",
    "a|b",
    "\x00",
]


def refused(shell, config, *options):
    assert shell("fit", "--config", config, *options) == 2
    assert shell.err.count("\n") == 1 and "Traceback" not in shell.err
    return shell.err


@pytest.mark.parametrize(("options", "sentence"), OPTIMIZER + REST, ids=[options for options, _ in OPTIMIZER + REST])
def test_a_value_that_cannot_work(climber, shell, options, sentence):
    assert sentence in refused(shell, climber, *options.split())


@pytest.mark.parametrize(("options", "sentence"), SCHEDULER, ids=[options for options, _ in SCHEDULER])
def test_a_schedule_that_cannot_work(climber, shell, options, sentence):
    assert sentence in refused(shell, climber, "--lr_scheduler", *options.split())


@pytest.mark.parametrize("key", ["run_name", "experiment_name"])
@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_is_none(climber, shell, workplace, key, name):
    before = sorted(workplace.rglob("*"))
    if key == "experiment_name" and name == "/x":
        return  # a workspace path
    assert f"{key}: given " in refused(shell, climber, f"--{key}={name}")
    assert sorted(workplace.rglob("*")) == before


@pytest.mark.parametrize("name", ["q=0.5 (try #2)", "عربي", "नमस्ते", "1.10", "007", "naïve & co".replace("&", "+")])
def test_names_of_every_script(climber, shell, workplace, name):
    assert shell("fit", "--config", climber, f"--run_name={name}", "--trainer.max_steps=1") == 0, shell.err
    assert (workplace / "runs" / name / "run.json").exists()


def test_a_run_without_a_validation_says_so(climber, shell):
    assert (
        shell("fit", "--config", climber, "--trainer.val_check_interval=1000", "--trainer.check_val_every_n_epoch=null")
        == 0
    )
    assert "trainer.val_check_interval: given 1000, but the run ends after 6 steps" in shell.err


def rates(folder):
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [row["train/lr"] for row in rows if "train/lr" in row]


PLATEAU = ["--lr_scheduler=ReduceLROnPlateau", "--lr_scheduler.patience=0", "--lr_scheduler.threshold=0"]


def test_reduce_on_plateau_follows_the_validations_and_resumes(climber, shell, workplace):
    # val/maj_at_2 is best at weight 2; with mode min every rise of it is "no improvement".
    options = [*PLATEAU, "--lr_scheduler.monitor=val/maj_at_2", "--lr_scheduler.factor=0.5"]
    assert shell("fit", "--config", climber, *options, "--run_name=whole") == 0, shell.err
    whole = rates(workplace / "runs" / "whole")
    assert whole == [0.5, 0.5, 0.5, 0.5, 0.25, 0.25]
    assert shell("fit", "--config", climber, *options, "--run_name=parts", "--trainer.max_steps=4") == 0
    last = workplace / "runs/parts/checkpoints/last.ckpt"
    assert shell("fit", "--ckpt_path", last, "--trainer.max_steps=6") == 0, shell.err
    assert rates(workplace / "runs" / "parts") == whole


def test_a_plateau_of_a_score_that_is_not_logged(climber, shell):
    assert shell("fit", "--config", climber, *PLATEAU, "--lr_scheduler.monitor=val/nothing") == 2
    assert "lr_scheduler.monitor: given val/nothing, logged are " in shell.err
