"""Disks that are full, read-only or gone: one sentence with the path, nothing lost that was written, and a way on."""

import json
import subprocess
from pathlib import Path

import pytest
from lightning.pytorch import Callback

from jqlight.tracking.checkpoint_files import verify

SIZE = 1 << 20


@pytest.fixture
def disk(tmp_path):
    """A file system of one megabyte."""
    path = tmp_path / "disk"
    path.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", path], capture_output=True).returncode:
        pytest.skip("this user may not mount")
    yield path
    while subprocess.run(["umount", "-l", path], capture_output=True).returncode == 0:
        pass


def fill(path):
    (path / "ballast").write_bytes(b"")
    with (path / "ballast").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass


class Harm(Callback):
    """Does something to the disk in a hook of some step."""

    def __init__(self, what: str, disk: str, step: int, hook: str) -> None:
        def act(trainer, *_):
            if trainer.global_step == step:
                harm(what, disk)

        setattr(self, hook, act)


def harm(what, disk):
    if what == "full":
        fill(Path(disk))
    elif what == "read-only":
        subprocess.run(["mount", "--bind", disk, disk], check=True)  # over it, since the run has a file of it open
        subprocess.run(["mount", "-o", "remount,bind,ro", disk], check=True)
    else:
        subprocess.run(["rm", "-rf", f"{disk}/run"], check=True)


SAID = {
    "full": "no space left on device; free some space there",
    "read-only": "read-only file system; write elsewhere (--run_dir)",
    "gone": "no such file or directory",
}


@pytest.mark.parametrize("hook", ["on_train_batch_start", "on_train_batch_end", "on_validation_start", "on_fit_end"])
@pytest.mark.parametrize("what", SAID)
def test_a_disk_that_fails_in_the_middle(shell, climber, workplace, disk, what, hook, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    step = 6 if hook == "on_fit_end" else 4
    fit = ["fit", "--config", climber, "--run_dir", disk / "run", "--checkpoint.every_n_steps", "1"]
    options = ["--trainer.callbacks+=test_disks.Harm", f"--trainer.callbacks.what={what}"]
    options += [
        f"--trainer.callbacks.disk={disk}",
        f"--trainer.callbacks.step={step}",
        f"--trainer.callbacks.hook={hook}",
    ]
    assert shell(*fit, *options) == 1, shell.err
    assert f"jqlight fit: {disk}/run" in shell.err and SAID[what] in shell.err
    assert "Traceback" not in shell.err
    if what == "gone":
        return
    assert "go on with: jqlight fit --ckpt_path disk/run/checkpoints/last.ckpt" in shell.err
    if what == "read-only":
        subprocess.run(["umount", "-l", disk], check=True)
    (disk / "ballast").unlink(missing_ok=True)
    assert verify(disk / "run/checkpoints/last.ckpt") >= step - 1
    assert not list(disk.rglob("*.partial"))
    assert shell(*fit, "--ckpt_path", "last") == 0, shell.err
    rows = [json.loads(line) for line in (disk / "run/metrics.jsonl").read_text().splitlines()]
    assert sorted(row["step"] for row in rows if "train/success" in row) == [1, 2, 3, 4, 5, 6]
    assert (disk / "run/model/weight.txt").exists()


def test_a_disk_that_cannot_be_written_is_told_before_anything_is_built(shell, climber, workplace, disk):
    harm("read-only", disk)
    assert shell("fit", "--config", climber, "--run_dir", disk / "run") in (1, 2)
    assert str(disk) in shell.err and shell.err.count("\n") == 1


def test_the_stores_disk_alone_stops_nothing(shell, climber, workplace, disk, monkeypatch, empty_store):
    (disk / "mlflow.db").write_bytes(empty_store.read_bytes()[: SIZE // 2])
    fill(disk)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{disk}/mlflow.db")
    assert shell("fit", "--config", climber, "--run_dir", "runs/a") == 0, shell.err
    assert "jqlight sync runs/a" in shell.err and "Traceback" not in shell.err
