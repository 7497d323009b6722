import shutil
from pathlib import Path

import pytest
import torch
from cli_standins import Climber, Numbers
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from jqlight.errors import ConfigError, DataError
from jqlight.tracking.checkpoints import RunCheckpoint, best_metric, checkpoint_step
from jqlight.tracking.config import git_commit, machine, run_facts


class Logged(Climber):
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.5)

    def _score(self, stage):
        self.log(f"{stage}/maj_at_2", 1 - abs(self.policy.weight.item() - 2) / 4)


@pytest.fixture
def fit(tmp_path):
    def run(steps, folder=tmp_path / "run" / "checkpoints", resume=None, **options):
        model = Logged(fail_at=options.pop("fail_at", 0))
        callback = RunCheckpoint(folder, model, validates=options.get("limit_val_batches", 1) != 0)
        trainer = Trainer(
            max_steps=steps, accelerator="cpu", logger=False, callbacks=[callback], val_check_interval=2,
            enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0, **options,
        )  # fmt: skip
        trainer.fit(model, Numbers(), ckpt_path=resume)
        return folder, trainer

    return run


def weight(path):
    content = torch.load(path, weights_only=True)
    return content["global_step"], content["state_dict"]["policy.weight"].item()


def test_last_is_the_newest_also_when_it_is_not_the_best(fit):
    folder, _ = fit(6)
    assert weight(folder / "best.ckpt") == (4, 2.0)
    assert weight(folder / "last.ckpt") == (6, 3.0)


def test_a_run_that_dies_continues_from_its_newest_validation(fit, tmp_path):
    with pytest.raises(DataError):
        fit(8, fail_at=7)
    folder = tmp_path / "run" / "checkpoints"
    assert weight(folder / "last.ckpt") == (6, 3.0)
    assert weight(folder / "best.ckpt") == (4, 2.0)


def test_a_better_step_after_resuming_replaces_the_best_and_a_worse_does_not(fit):
    folder, _ = fit(2)
    assert weight(folder / "best.ckpt") == (2, 1.0)
    fit(4, resume=folder / "last.ckpt")
    assert weight(folder / "best.ckpt") == (4, 2.0)
    fit(6, resume=folder / "last.ckpt")
    assert weight(folder / "best.ckpt") == (4, 2.0)
    assert weight(folder / "last.ckpt") == (6, 3.0)


def test_the_best_is_remembered_when_the_folder_has_moved(fit, tmp_path):
    folder, _ = fit(4)
    moved = tmp_path / "moved" / "checkpoints"
    shutil.copytree(folder, moved)
    shutil.rmtree(folder.parent)
    _, trainer = fit(6, folder=moved, resume=moved / "last.ckpt")
    assert weight(moved / "best.ckpt") == (4, 2.0)
    assert trainer.checkpoint_callback.best_model_path == str(moved / "best.ckpt")
    assert not folder.exists()


def test_the_best_of_another_runs_checkpoint_is_not_taken_over(fit, tmp_path):
    folder, _ = fit(4)
    fresh, _ = fit(6, folder=tmp_path / "fresh" / "checkpoints", resume=folder / "last.ckpt")
    assert weight(fresh / "best.ckpt") == (6, 3.0)
    assert weight(folder / "best.ckpt") == (4, 2.0)
    _, trainer = fit(5, folder=tmp_path / "blind" / "checkpoints", resume=folder / "last.ckpt", limit_val_batches=0)
    assert trainer.checkpoint_callback.best_model_path == ""


def test_without_validation_the_last_is_saved_at_the_end(fit):
    folder, _ = fit(3, limit_val_batches=0)
    assert weight(folder / "last.ckpt") == (3, 1.5)
    assert not (folder / "best.ckpt").exists()


def test_lightnings_own_last_is_still_stale(tmp_path):
    """The reason for RunCheckpoint; when this fails, ``save_last`` may do."""
    callback = ModelCheckpoint(tmp_path, "best", "val/maj_at_2", mode="max", save_last=True)
    trainer = Trainer(
        max_steps=6, accelerator="cpu", logger=False, callbacks=[callback], val_check_interval=2,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
    )  # fmt: skip
    trainer.fit(Logged(), Numbers())
    assert weight(tmp_path / "last.ckpt") == (4, 2.0)


def test_the_metric_follows_the_number_of_samples():
    assert best_metric(Climber(samples=16)) == "val/maj_at_16"


def test_run_facts_leave_out_what_a_run_does_not_have():
    config = {
        "data": {"class_path": "jqlight.benchmarks.TwoHop", "init_args": {"scenario": None}},
        "seed_everything": 0,
    }
    model = Climber(q=0.5)
    facts = {"estimator": "Climber", "q": "0.5", "benchmark": "TwoHop", "seed": "0"}
    assert run_facts(config, model) == facts
    model.unused_tensors = 3
    assert run_facts(config, model) == facts | {"unused_tensors": "3"}


def test_machine_tags_name_versions_and_host():
    tags = machine()
    assert tags["version.torch"] == torch.__version__
    assert "cores" in tags["host.kind"] or torch.cuda.is_available()


def test_git_commit_is_only_that_of_a_checkout(tmp_path):
    assert git_commit(tmp_path) is None


class Runs:
    def __reduce__(self):
        return (Path.touch, (Path("pwned"),))


@pytest.mark.parametrize("kind", ["empty", "random", "half", "foreign", "list", "pickle", "text"])
def test_a_file_that_is_no_checkpoint_is_told(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "last.ckpt"
    whole = {"state_dict": {"w": torch.zeros(1000)}, "global_step": 3}
    contents = {"foreign": {"w": torch.zeros(3)}, "list": [1], "pickle": {**whole, "epoch": Runs()}}
    torch.save(contents.get(kind, whole), path)
    if kind in ("empty", "random", "half", "text"):
        data = path.read_bytes()
        path.write_bytes({"empty": b"", "random": b"\x07" * 999, "half": data[: len(data) // 2], "text": b"no"}[kind])
    with pytest.raises(ConfigError, match=r"ckpt_path: .*last\.ckpt is no checkpoint of a run \(\w+\): it is cut off"):
        checkpoint_step(path)
    assert not Path("pwned").exists()
