"""Picking the verb: help, version, unknown verbs, errors as sentences."""

import importlib.util
import subprocess
import sys

import pytest

from jqlight.cli import main as cli
from jqlight.errors import ConfigError, DataError, EngineError, HubError, NonFiniteError


def test_help_lists_every_command_and_imports_no_library():
    code = (
        "import sys; from jqlight.cli.main import main; code = main(['--help']); "
        "heavy = {'torch', 'lightning', 'transformers', 'vllm', 'mlflow', 'yaml', 'numpy'} & set(sys.modules); "
        "print('HEAVY', sorted(heavy)); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "HEAVY []" in done.stdout
    for verb in cli.VERBS:
        assert f"\n  {verb}" in done.stdout


def test_every_command_has_its_module():
    for module, _ in cli.VERBS.values():
        assert importlib.util.find_spec(module) is not None, module


def test_version(shell):
    assert shell("--version") == 0
    assert shell.out.startswith("jqlight 0.")


def test_no_arguments_show_the_help(shell):
    assert shell() == 0
    assert "usage: jqlight COMMAND" in shell.out


@pytest.mark.parametrize(("given", "near"), [("fti", "fit"), ("Doctor", "doctor"), ("comparison", "compare")])
def test_an_unknown_verb_names_the_nearest(shell, given, near):
    assert shell(given) == 2
    assert shell.err == f"jqlight {given}: no such command; did you mean `jqlight {near}`?\n"


def test_a_verb_like_no_other_points_to_the_list(shell):
    assert shell("xyzzy") == 2
    assert "`jqlight --help` lists the commands" in shell.err


@pytest.mark.parametrize(
    ("error", "code"), [(ConfigError, 2), (DataError, 2), (HubError, 2), (EngineError, 1), (NonFiniteError, 1)]
)
def test_an_error_of_ours_is_one_sentence_with_its_exit_code(shell, monkeypatch, error, code):
    def fail(verb, arguments):
        raise error("key: given x, allowed is y")

    monkeypatch.setattr(cli, "_run", fail)
    assert shell("fit") == code
    assert shell.err == "jqlight fit: key: given x, allowed is y\n"


def test_debug_shows_the_traceback(shell, monkeypatch):
    monkeypatch.setenv("JQLIGHT_DEBUG", "1")
    assert shell("fitt") == 2
    assert "Traceback (most recent call last)" in shell.err and "did you mean `jqlight fit`?" in shell.err


def test_ctrl_c_ends_any_command_with_130(shell, monkeypatch):
    def interrupt(verb, arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_run", interrupt)
    assert shell("doctor") == 130
    assert shell.err == "jqlight doctor: interrupted\n"


def test_python_dash_m_is_the_command():
    done = subprocess.run([sys.executable, "-m", "jqlight", "nothing"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("jqlight nothing: no such command")


@pytest.mark.parametrize("value", ["-1", "-0.5", "-1e4", "-.5", "-1E-3", "-inf"])
def test_a_negative_number_behind_a_blank_is_a_value(climber, shell, value):
    assert shell("fit", "--config", climber, "--optimizer.lr", value) == 2
    assert shell.err.startswith("jqlight fit: optimizer.lr: given -") and shell.err.count("\n") == 1


@pytest.mark.parametrize(
    ("command", "hint"),
    [
        ("export --ouput x --ckpt y", "did you mean --out?"),
        ("compare --experimnt x", "did you mean --experiment?"),
        ("sweep s.yaml --dry-rnu", "did you mean --dry-run?"),
        ("sweep s.yaml --job 3", "did you mean --jobs?"),
        ("score p.jsonl --bechmark=x", "did you mean --benchmark?"),
        ("prompts --config c.yaml --split tran", "--split: given tran, allowed are train, validation, test; did"),
        ("--verison", "did you mean `jqlight --version`?"),
    ],
)
def test_a_misspelt_option_of_a_small_command_gets_the_nearest(shell, command, hint):
    assert shell(*command.split()) == 2
    assert hint in shell.err and shell.err.count("\n") == 1


@pytest.mark.parametrize(("code", "ended"), [(143, [143]), (130, [130]), (2, []), (0, [])])
def test_a_program_that_a_signal_ended_leaves_at_once(monkeypatch, code, ended):
    codes = []
    monkeypatch.setattr(cli, "_guarded", lambda verb, words: code)
    monkeypatch.setattr(cli.os, "_exit", codes.append)
    monkeypatch.setattr(cli.sys, "argv", ["jqlight", "fit"])
    assert cli.main() == code and codes == ended
    assert cli.main(["fit"]) == code and codes == ended  # within another program it never does
