"""What nobody foresaw: one sentence, the traceback in a file, exit code 1."""

import errno
import os
import tempfile
from pathlib import Path

import pytest

from jqlight.cli import main as cli
from jqlight.names import inert


@pytest.fixture
def failing(monkeypatch, shell, tmp_path):
    """``failing(error, *options)``: the output of a command that ends in ``error``."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.delenv("JQLIGHT_DEBUG", raising=False)

    def run(error, *options):
        def fail(verb, arguments):
            raise error

        monkeypatch.setattr(cli, "_run", fail)
        assert shell("compare", *options) == 1
        return shell.err

    return run


def the_file(text, folder):
    (path,) = folder.glob("jqlight-traceback-*.txt")
    assert str(path) in text
    return path.read_text()


def test_an_unexpected_error_is_a_sentence_and_its_traceback_a_file(failing, tmp_path):
    text = failing(ZeroDivisionError("a count is 0"))
    assert text.startswith("jqlight compare: unexpected ZeroDivisionError: a count is 0; the full traceback is in ")
    assert text.count("\n") == 1 and "CONTRIBUTING.md" in text
    assert "Traceback (most recent call last)" in the_file(text, tmp_path)


def test_a_run_keeps_the_traceback_in_its_folder(failing, tmp_path, monkeypatch):
    run = tmp_path / "run"
    run.mkdir()
    (run / "run.json").write_text("{}")
    monkeypatch.setenv("JQLIGHT_RUN_DIR", str(run))
    assert "ZeroDivisionError" in the_file(failing(ZeroDivisionError()), run)


def test_a_folder_that_cannot_be_written_does_not_hide_the_error(failing, monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tempfile, "mkstemp", refuse)
    assert "unexpected ZeroDivisionError: no; --debug shows the full traceback" in failing(ZeroDivisionError("no"))


def test_an_error_whose_own_text_fails(failing, tmp_path):
    class Mute(Exception):
        def __str__(self):
            raise RuntimeError("no text")

    assert "unexpected Mute; the full traceback" in failing(Mute())


def test_passwords_do_not_reach_the_sentence_or_the_file(failing, tmp_path):
    text = failing(RuntimeError("cannot reach postgresql://me:CANARY@host/db"))
    assert "CANARY" not in text + the_file(text, tmp_path)


@pytest.mark.parametrize("option", ["--debug", "variable"])
def test_debug_shows_the_traceback(failing, monkeypatch, option):
    if option == "variable":
        monkeypatch.setenv("JQLIGHT_DEBUG", "1")
    text = failing(ZeroDivisionError("a count is 0"), *(["--debug"] if option == "--debug" else []))
    assert "Traceback (most recent call last)" in text
    assert os.environ.get("JQLIGHT_DEBUG") == ("1" if option == "variable" else None)


SYSTEM = [
    (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "runs/x/last.ckpt"), "runs/x/last.ckpt: no space left on device"),
    (PermissionError(errno.EACCES, os.strerror(errno.EACCES), "out"), "out: permission denied; change its permissions"),
    (OSError(errno.EROFS, os.strerror(errno.EROFS), "runs"), "runs: read-only file system; write elsewhere"),
    (FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "a/b"), "a/b: no such file or directory"),
    (IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), Path("a")), "a: is a directory"),
]


@pytest.mark.parametrize(("error", "words"), SYSTEM, ids=[words for _, words in SYSTEM])
def test_what_the_system_refuses_is_told_with_its_path(failing, tmp_path, error, words):
    text = failing(error)
    assert words in text and text.count("\n") == 1
    assert not list(tmp_path.glob("jqlight-traceback-*"))


def test_a_full_disk_below_another_error_is_told(failing):
    error = RuntimeError("unexpected pos 64 vs 0")
    error.__context__ = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "last.ckpt")
    assert "last.ckpt: no space left on device" in failing(error)


def test_memory_that_ran_out(failing):
    assert "memory ran out; lower model.rollouts" in failing(MemoryError())


def test_escape_sequences_and_reordering_characters_are_spelled_out():
    assert inert("\x1b[2Ja\u202eb\x07\tc\nd é 🧑\u200d🚀 \ud800") == "\\x1b[2Ja\\u202eb\\x07\tc\nd é 🧑\u200d🚀 \\ud800"


def test_an_error_about_a_hostile_name_does_not_reach_the_terminal(shell):
    assert shell("\x1b[2Jfit") == 2
    assert "\x1b" not in shell.err
