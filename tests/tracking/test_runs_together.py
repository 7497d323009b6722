"""Several processes and one folder: each run has its own, and a live run's is nobody else's."""

import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from jqlight.errors import ConfigError
from jqlight.tracking.run_folder import LOCK, RunFolder, find_run_folder, release

CLAIM = """
import sys
from jqlight.tracking.run_folder import find_run_folder
sys.stdin.readline()
print(find_run_folder(*[None if word == "-" else word for word in sys.argv[1:]]).path, flush=True)
sys.stdin.readline()
"""


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("JQLIGHT_RUN_DIR", "RANK", "LOCAL_RANK", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    yield
    release()


@contextmanager
def claiming(count, *arguments):
    """The folders that ``count`` processes get which ask at the same moment, while those processes live."""
    command = [sys.executable, "-c", CLAIM, "fit", *arguments]
    pipe = subprocess.PIPE
    runs = [subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) for _ in range(count)]
    for run in runs:
        run.stdin.write("\n")
        run.stdin.flush()
    try:
        yield runs, [run.stdout.readline().strip() for run in runs]
    finally:
        for run in runs:
            run.kill()
            run.communicate()


def test_runs_that_start_together_get_a_folder_each():
    with claiming(6, "-", "garl", "-") as (_, folders):
        assert sorted(folders) == ["runs/garl", *(f"runs/garl-{number}" for number in range(2, 7))]


def test_one_of_several_gets_a_given_folder():
    with claiming(4, "mine", "garl", "-") as (runs, folders):
        assert sorted(folders) == ["", "", "", "mine"]
        refused = next(run for run, folder in zip(runs, folders) if not folder)
        assert "run_dir: mine is being written by a run that is going on" in refused.communicate()[1]


def test_a_live_run_is_not_resumed_and_a_killed_one_is():
    checkpoint = Path("mine/checkpoints/last.ckpt")
    with claiming(1, "mine", "garl", "-") as ([run], _):
        Path("mine/run.json").write_text('{"run_id": "r"}')
        checkpoint.parent.mkdir()
        checkpoint.touch()
        for run_dir, ckpt in [("mine", "last"), (None, str(checkpoint))]:
            with pytest.raises(ConfigError, match="run_dir: mine is being written"):
                find_run_folder("fit", run_dir, "garl", ckpt)
        run.kill()
        run.wait()
        assert find_run_folder("fit", "mine", "garl", "last") == RunFolder(Path("mine"), checkpoint)


def test_what_a_killed_start_left_is_used_again():
    with claiming(1, "-", "garl", "-"):
        pass
    assert [path.name for path in Path("runs/garl").iterdir()] == [LOCK]
    assert find_run_folder("fit", None, "garl", None).path == Path("runs/garl")


def test_a_folder_into_which_nothing_was_written_goes_again():
    find_run_folder("fit", None, "garl", None)
    used = find_run_folder("fit", None, "other", None).path
    (used / "metrics.jsonl").touch()
    Path("mine").mkdir()
    find_run_folder("fit", "mine", "garl", None)
    release()
    assert sorted(map(str, Path("runs").iterdir())) == ["runs/other"]
    assert Path("mine").is_dir()


@pytest.mark.parametrize("run_dir", ["file", "file/below", "link"])
def test_a_file_in_the_way(run_dir):
    Path("file").touch()
    Path("link").symlink_to("nowhere")
    with pytest.raises(ConfigError, match=f"run_dir: {run_dir} cannot be a folder, since .* is a file"):
        find_run_folder("fit", run_dir, "garl", None)


def test_runs_is_a_file():
    Path("runs").touch()
    with pytest.raises(ConfigError, match="run_dir: runs/garl cannot be a folder"):
        find_run_folder("fit", None, "garl", None)
