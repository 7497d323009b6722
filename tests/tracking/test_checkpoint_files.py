"""Checkpoints that are damaged, hold numbers that are not finite, or are not there."""

import json
from pathlib import Path

import pytest
import torch

from jqlight.errors import ConfigError, NonFiniteError
from jqlight.tracking.checkpoint_files import CheckpointFiles, checkpoint_step, usable, verify


def content(step, **changes):
    weights = {"w": torch.arange(4096.0), "b": torch.zeros(3, dtype=torch.bfloat16)}
    state = {"state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.ones(3)}}, "param_groups": [{"lr": 1.0}]}
    return {"state_dict": weights, "optimizer_states": [state], "global_step": step, **changes}


def flip(path):
    data = bytearray(path.read_bytes())
    data[data.index(torch.arange(4096.0).numpy().tobytes()) + 5000] ^= 1
    path.write_bytes(data)


def flip_a_name(path):
    data = bytearray(path.read_bytes())
    data[data.index(b"data.pkl")] ^= 128
    path.write_bytes(data)


def poison(path):
    torch.save(content(9, state_dict={"w": torch.tensor([0.0, float("nan")])}), path)


DAMAGE = {
    "flipped": (flip, r"is damaged: the checksum of its part \S+ is wrong"),
    "flipped in a name": (flip_a_name, r"is damaged: the checksum of its part \S+ is wrong"),
    "half": (lambda path: path.write_bytes(path.read_bytes()[:9000]), "is no checkpoint of a run"),
    "empty": (lambda path: path.write_bytes(b""), "is no checkpoint of a run"),
    "NaN": (poison, "cannot be used: w is not finite"),
    "missing": (Path.unlink, "is missing"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_the_newest_whole_one_beside_it_is_found_and_named(tmp_path, kind, caplog):
    last, best, older = (tmp_path / f"{name}.ckpt" for name in ("last", "best", "older"))
    for step, path in ((9, last), (8, best), (4, older)):
        CheckpointFiles().save_checkpoint(content(step), path)
    assert usable(last, or_another=True) == last
    damage, words = DAMAGE[kind]
    damage(last)
    with pytest.raises(
        ConfigError, match=rf"ckpt_path: .*last\.ckpt {words}.*; give another .* \S+best\.ckpt \(step 8\)"
    ):
        usable(last, or_another=False)
    assert usable(last, or_another=True) == best
    assert "going on from" in caplog.text and "best.ckpt, step 8" in caplog.text
    flip(best)
    assert usable(last, or_another=True) == older
    flip(older)
    with pytest.raises(ConfigError, match=f"{words}.*no other that can be used beside it: begin a new run"):
        usable(last, or_another=True)


@pytest.mark.parametrize("where", ["weights", "optimizer"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_replace_nothing(tmp_path, where, value):
    path = tmp_path / "last.ckpt"
    CheckpointFiles().save_checkpoint(content(8), path)
    bad = content(9)
    tensor = bad["state_dict"]["b"] if where == "weights" else bad["optimizer_states"][0]["state"][0]["exp_avg"]
    tensor[1] = value
    name = "b" if where == "weights" else "the optimizer's state of 0 exp_avg"
    with pytest.raises(NonFiniteError, match=f"step 9: {name} is not finite, so last.ckpt was not written"):
        CheckpointFiles().save_checkpoint(bad, path)
    assert verify(path) == 8
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]


def test_the_folder_of_temporary_files_is_not_needed(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", "/nonexistent")
    monkeypatch.setattr("tempfile.tempdir", "/nonexistent")
    CheckpointFiles().save_checkpoint(content(8), tmp_path / "a" / "last.ckpt")
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["last.ckpt"]
    assert checkpoint_step(tmp_path / "a" / "last.ckpt") == 8


def resumed(shell, climber, *options):
    return shell("fit", "--config", climber, "--run_dir", "runs/a", "--ckpt_path", "last", *options)


def test_a_run_goes_on_from_the_best_where_the_last_is_damaged(shell, climber, workplace):
    assert resumed(shell, climber) == 0, shell.err
    checkpoints = workplace / "runs/a/checkpoints"
    (checkpoints / "last.ckpt").write_bytes(b"")
    assert resumed(shell, climber) == 0, shell.err
    assert "going on from runs/a/checkpoints/best.ckpt, step 4" in shell.err
    assert verify(checkpoints / "last.ckpt") == 6


def test_a_run_without_its_checkpoints_does_not_begin_anew_in_its_folder(shell, climber, workplace):
    assert resumed(shell, climber, "--trainer.limit_val_batches", "0") == 0, shell.err
    before = (workplace / "runs/a/metrics.jsonl").read_text()
    (workplace / "runs/a/checkpoints/last.ckpt").unlink()
    assert resumed(shell, climber) == 2
    assert "ckpt_path: given last, but runs/a has trained and holds no checkpoint" in shell.err
    assert (workplace / "runs/a/metrics.jsonl").read_text() == before


def test_a_users_own_checkpoints_stand_beside_those_of_the_run(shell, climber, workplace):
    own = ["--trainer.callbacks+=lightning.pytorch.callbacks.ModelCheckpoint", "--trainer.callbacks.save_top_k=-1"]
    assert shell("fit", "--config", climber, *own, "--run_dir", "runs/a") == 0, shell.err
    assert "best checkpoint  runs/a/checkpoints/best.ckpt  (val/maj_at_2 1.000 at step 4)" in shell.out
    assert resumed(shell, climber, *own, "--trainer.max_steps", "8") == 0, shell.err
    assert verify(workplace / "runs/a/checkpoints/last.ckpt") == 8


def test_weights_that_are_not_finite_get_no_score_and_the_run_has_failed(shell, climber, workplace):
    options = ["--optimizer.lr", "2e37", "--trainer.max_steps", "30", "--run_dir", "runs/a"]
    assert shell("fit", "--config", climber, *options) == 1
    assert "step 18: policy.weight is not finite" in shell.err
    assert shell.err.startswith("go on with: jqlight fit --ckpt_path runs/a/checkpoints/last.ckpt  (step 16)")
    scores = [json.loads(line) for line in (workplace / "runs/a/metrics.jsonl").read_text().splitlines()]
    assert max(row["step"] for row in scores if "val/weight" in row) == 16
    assert json.loads((workplace / "runs/a/run.json").read_text())["status"] == "FAILED"
