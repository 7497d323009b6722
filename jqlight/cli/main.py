"""The `jqlight` command: picks the verb, imports what that verb needs, and turns errors into one sentence."""

import difflib
import os
import re
import sys
import textwrap
import traceback
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from jqlight import quiet
from jqlight.cli import failures
from jqlight.cli.imports import find_classes_here
from jqlight.errors import ConfigError
from jqlight.names import inert
from jqlight.tracking.interrupts import Stopped, ended_by_signals
from jqlight.tracking.run_folder import RUNS, check_writable

if TYPE_CHECKING:
    from jqlight.cli.config import CommandLine

VERBS: dict[str, tuple[str, str]] = {
    "fit": ("jqlight.cli.fit", "train a policy and export the best checkpoint"),
    "validate": ("jqlight.cli.fit", "score a model or checkpoint on the validation split"),
    "test": ("jqlight.cli.fit", "score a model or checkpoint on the test split"),
    "predict": ("jqlight.cli.fit", "write a model's rationales and answers for the test split"),
    "sweep": ("jqlight.cli.sweep", "run one config over a grid or list of settings"),
    "compare": ("jqlight.cli.compare", "table, figures and report over the runs of an experiment"),
    "evaluate": ("jqlight.cli.evaluate", "score any model or hosted checkpoint without a training config"),
    "samples": ("jqlight.cli.samples", "read what a run's model wrote: rationales, weights, answers"),
    "score": ("jqlight.cli.score", "score a file of predictions with a benchmark's verifiers"),
    "prompts": ("jqlight.cli.prompts", "print a benchmark's prompts as the model will see them"),
    "export": ("jqlight.cli.export", "write a checkpoint as a Hugging Face model folder"),
    "ui": ("jqlight.cli.ui", "open MLflow on a run or a store"),
    "sync": ("jqlight.cli.sync", "upload what a run could not log while MLflow was away"),
    "doctor": ("jqlight.cli.doctor", "show versions, devices, engines and whether training can run here"),
    "completion": ("jqlight.cli.completion", "print a script that completes jqlight's commands in bash or zsh"),
}
"""Verb -> module with ``main(argv) -> exit code`` (``jqlight.cli.fit``: ``main(verb, line)``), and one line."""

INTERRUPTED_EXIT = 130
_SIGNAL_EXIT = 128
DEBUG, DEBUG_OPTION = "JQLIGHT_DEBUG", "--debug"
_NEGATIVE = re.compile(r"-(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?|-\.?inf")


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code of one `jqlight` command: 0 done, 1 failed, 2 a mistake in settings or data, 130 interrupted.

    ``--debug`` (or ``JQLIGHT_DEBUG=1``) shows the traceback behind a sentence, and what the libraries below say.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug, before = DEBUG_OPTION in arguments, os.environ.get(DEBUG)
    arguments = [word for word in arguments if word != DEBUG_OPTION]
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(usage())
        return 0
    if arguments[0] in ("-V", "--version"):
        print(f"jqlight {version('jqlight')}")
        return 0
    if debug:
        os.environ[DEBUG] = "1"  # in the environment, for the processes that this one starts
    try:
        code = _guarded(arguments[0], _with_negative_numbers(arguments[1:]))
    finally:
        if debug and before is None:
            del os.environ[DEBUG]
    if argv is None and (code > _SIGNAL_EXIT or (code and "MASTER_ADDR" in os.environ)):
        # All is written. The engine's way out takes seconds, and who ends a run by a signal may kill it after a few; a
        # process group's waits for ranks that are gone.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


def _guarded(verb: str, arguments: list[str]) -> int:
    """Run a command; the only function in which an error becomes a sentence and an exit code."""
    try:
        return _run(verb, arguments)
    except (KeyboardInterrupt, Stopped) as stop:
        print(f"jqlight {verb}: interrupted", file=sys.stderr)
        return INTERRUPTED_EXIT if isinstance(stop, KeyboardInterrupt) else int(stop.code or 0)
    except BrokenPipeError:  # the reader of our output, `head` for one, has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if os.environ.get(DEBUG):
            traceback.print_exc()
        code, sentence = failures.described(error)
        # The other processes of a node have read the same command and the same files, and rank 0 speaks for them.
        if code != failures.USAGE_EXIT or os.environ.get("LOCAL_RANK", "0") == "0":
            print(inert(f"jqlight {verb}: {sentence}"), file=sys.stderr)
        return code


def _run(verb: str, arguments: list[str]) -> int:
    if verb not in VERBS:
        near = difflib.get_close_matches(verb, [*VERBS, "--version", "--help"], n=1)
        hint = f"did you mean `jqlight {near[0]}`?" if near else "`jqlight --help` lists the commands"
        raise ConfigError(f"no such command; {hint}")
    quiet.silence_libraries()  # before any library reads these settings at import
    quiet.use_writable_caches()
    find_classes_here()
    module = VERBS[verb][0]
    if module != "jqlight.cli.fit":
        return int(import_module(module).main(arguments) or 0)
    from jqlight.cli.config import read_command_line  # YAML, which `jqlight --help` needs not

    line = read_command_line(arguments)
    _check_run_dir(line)
    with ended_by_signals():
        return int(import_module(module).main(verb, line))


def _check_run_dir(line: "CommandLine") -> None:
    """Raise ConfigError where the run's folder cannot be written, before imports that take seconds."""
    given = {setting.key: setting.value for setting in line.settings}
    asks = line.asks_help or any(word.startswith("--print_config") for word in line.words)
    continues = given.get("ckpt_path") not in (None, "last", "best")  # in the folder of that checkpoint, as a rule
    if not asks and (given.get("run_dir") or not continues):
        check_writable(Path(str(given.get("run_dir") or RUNS)))


def _with_negative_numbers(words: Sequence[str]) -> list[str]:
    """``--key -1e4`` as ``--key=-1e4``: for a parser the number would be one more option."""
    joined: list[str] = []
    for word in words:
        option = joined[-1] if joined else ""
        if _NEGATIVE.fullmatch(word) and option.startswith("--") and "=" not in option:
            joined[-1] = f"{option}={word}"
        else:
            joined.append(word)
    return joined


def usage() -> str:
    """The text of ``jqlight --help``."""
    commands = "\n".join(f"  {verb:<12}{line}" for verb, (_, line) in VERBS.items())
    return (
        textwrap.dedent(
            """\
            usage: jqlight COMMAND [options]

            Train reasoning language models on the Tsallis loss family J_Q.

            {commands}

            jqlight fit --config conf/quickstart.yaml              a first run, about 3 minutes on 2 CPU cores
            jqlight fit --config conf/quickstart.yaml --model.q 0.5   any setting can be given behind the file
            jqlight COMMAND --help                                 what a command takes
            jqlight COMMAND ... --debug                            the traceback behind a sentence
            """
        )
        .replace("{commands}", commands)
        .rstrip()
    )


if __name__ == "__main__":
    raise SystemExit(main())
