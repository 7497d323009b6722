from pathlib import Path

import pytest

from jqlight.errors import ConfigError
from jqlight.tracking.journal import Journal
from jqlight.tracking.run_folder import RunFolder, find_run_folder


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("JQLIGHT_RUN_DIR", raising=False)
    monkeypatch.delenv("LOCAL_RANK", raising=False)


def make_run(path, *checkpoints):
    Journal(Path(path)).update(run_id="r")
    for name in checkpoints:
        (Path(path) / "checkpoints").mkdir(exist_ok=True)
        (Path(path) / "checkpoints" / name).touch()


def test_new_runs_are_numbered():
    assert find_run_folder("fit", None, "garl", None).path == Path("runs/garl")
    make_run("runs/garl")
    make_run("runs/garl-2")
    assert find_run_folder("fit", None, "garl", None).path == Path("runs/garl-3")
    assert find_run_folder("fit", None, "other", None).path == Path("runs/other")


def test_last_and_best_are_of_the_newest_run_of_the_name():
    make_run("runs/garl", "last.ckpt", "best.ckpt")
    make_run("runs/garl-2", "last.ckpt", "best.ckpt")
    folder = Path("runs/garl-2")
    assert find_run_folder("fit", None, "garl", "last") == RunFolder(folder, folder / "checkpoints/last.ckpt")
    assert find_run_folder("test", None, "garl", "best") == RunFolder(folder, folder / "checkpoints/best.ckpt")
    first = Path("runs/garl")
    assert find_run_folder("test", str(first), "garl", "best") == RunFolder(first, first / "checkpoints/best.ckpt")


def test_a_checkpoint_in_a_run_continues_that_run():
    make_run("elsewhere/x", "last.ckpt")
    checkpoint = Path("elsewhere/x/checkpoints/last.ckpt")
    assert find_run_folder("fit", None, "garl", str(checkpoint)) == RunFolder(Path("elsewhere/x"), checkpoint)


def test_a_checkpoint_from_elsewhere_starts_a_run_of_its_own():
    Path("theirs.ckpt").touch()
    assert find_run_folder("fit", None, "garl", "theirs.ckpt") == RunFolder(Path("runs/garl"), Path("theirs.ckpt"))


def test_a_given_folder_with_a_run_must_be_continued_explicitly():
    make_run("mine", "last.ckpt")
    with pytest.raises(ConfigError, match="run_dir: mine holds a run already; continue it with --ckpt_path last"):
        find_run_folder("fit", "mine", "garl", None)
    assert find_run_folder("test", "mine", "garl", None) == RunFolder(Path("mine"))


def test_a_run_that_died_before_its_first_checkpoint_starts_again_in_its_folder():
    make_run("mine")
    assert find_run_folder("fit", "mine", "garl", None) == RunFolder(Path("mine"))
    assert find_run_folder("fit", "mine", "garl", "last") == RunFolder(Path("mine"))


@pytest.mark.parametrize(
    ("verb", "ckpt"), [("test", "last"), ("fit", "best"), ("validate", "best"), ("fit", "no.ckpt")]
)
def test_a_checkpoint_that_does_not_exist(verb, ckpt):
    with pytest.raises(ConfigError, match=f"ckpt_path: .*{ckpt}.* does not exist"):
        find_run_folder(verb, None, "garl", ckpt)


def test_all_processes_of_a_run_share_the_folder_of_the_first(monkeypatch):
    assert find_run_folder("fit", None, "garl", None).path == Path("runs/garl")
    make_run("runs/garl")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert find_run_folder("fit", None, "garl", None).path == Path("runs/garl")
