"""Places that cannot be written: a run's folder, told before imports that take seconds, and the caches of libraries."""

import os

import pytest

from jqlight import quiet
from jqlight.cli import main
from jqlight.cli.config import read_command_line
from jqlight.tracking import run_folder


@pytest.fixture
def locked(monkeypatch):
    """A machine on which nothing can be written; a test as root could write anywhere."""
    monkeypatch.setattr(run_folder, "can_write", lambda folder: False)
    monkeypatch.setattr(main, "import_module", lambda name: pytest.fail(f"imports {name} first"))


@pytest.mark.parametrize("words", [[], ["--run_dir", "there"], ["--ckpt_path", "last"]])
def test_a_folder_that_cannot_be_written_is_told_before_anything_is_imported(shell, locked, climber, words):
    assert shell("fit", "--config", climber, *words) == 2
    folder = "there" if "there" in words else "runs"
    assert shell.err.startswith(f"jqlight fit: run_dir: {folder} needs a folder that user ")
    assert shell.err.count("\n") == 1 and "--run_dir" in shell.err


def test_a_run_dir_in_the_config_counts(shell, locked, climber):
    climber.write_text(climber.read_text() + "run_dir: elsewhere\n")
    assert shell("fit", "--config", climber) == 2
    assert "run_dir: elsewhere needs" in shell.err


@pytest.mark.parametrize("words", [["--help"], ["--print_config"], ["--ckpt_path", "far/checkpoints/last.ckpt"]])
def test_what_writes_nothing_to_runs_is_not_refused(monkeypatch, words):
    monkeypatch.setattr(main, "check_writable", lambda folder: pytest.fail(f"checks {folder}"))
    main._check_run_dir(read_command_line(words))


def test_a_folder_can_be_written_if_it_could_be_made(tmp_path):
    run_folder.check_writable(tmp_path / "a" / "b")
    assert list(tmp_path.iterdir()) == []


CACHES = (*quiet._CACHES, "XDG_CACHE_HOME")


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(quiet.tempfile, "gettempdir", lambda: str(tmp_path))
    for name in CACHES:
        monkeypatch.setenv(name, "x")  # so that what is set below is undone
        monkeypatch.delenv(name)
    return tmp_path / "home"


def test_caches_stay_at_home_where_it_can_be_written(home):
    quiet.use_writable_caches()
    assert not set(CACHES) & set(os.environ)


def test_caches_go_to_temporary_files_where_home_cannot_be_written(home, monkeypatch):
    monkeypatch.setattr(quiet, "can_write", lambda folder: False)
    monkeypatch.setenv("MPLCONFIGDIR", "mine")
    quiet.use_writable_caches()
    folder = home.parent / f"jqlight-{os.getuid()}"
    assert folder.stat().st_mode & 0o777 == 0o700
    expected = {name: str(folder) for name in CACHES} | {"MPLCONFIGDIR": "mine"}
    assert {name: os.environ.get(name) for name in CACHES} == expected


def test_a_cache_that_can_be_read_is_kept(home, monkeypatch):
    (home / ".cache").mkdir(parents=True)
    monkeypatch.setattr(quiet, "can_write", lambda folder: False)
    quiet.use_writable_caches()
    assert "XDG_CACHE_HOME" not in os.environ and "VLLM_CACHE_ROOT" in os.environ
