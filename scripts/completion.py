"""Makes jqlight/assets/completion.bash from the commands themselves: ``python scripts/completion.py``."""

import argparse
import inspect
from collections.abc import Iterable
from importlib import import_module
from types import ModuleType
from typing import Any, Never
from unittest.mock import patch

import torch
from lightning.pytorch import Trainer

import jqlight.benchmarks
import jqlight.estimators
from jqlight.cli.arguments import CommandParser
from jqlight.cli.completion import SCRIPT
from jqlight.cli.config import Setting, settings_of
from jqlight.cli.main import VERBS
from jqlight.cli.messages import RUN_KEYS
from jqlight.config_files import SHIPPED
from jqlight.names import BENCHMARKS, ESTIMATORS

LIGHTNINGS = ("fit", "validate", "test", "predict")
TAKE_SETTINGS = (*LIGHTNINGS, "sweep", "evaluate", "prompts")
OPTIMIZER = ("--optimizer", "--optimizer.lr", "--optimizer.weight_decay", "--lr_scheduler", "--lr_scheduler.monitor")
FILES = ("--config", "--ckpt_path")

TEMPLATE = """\
# Completion of jqlight for bash, and for zsh with bashcompinit. Made by scripts/completion.py.
_jqlight() {
    local word=${COMP_WORDS[COMP_CWORD]} verb=${COMP_WORDS[1]} before=${COMP_WORDS[COMP_CWORD-1]}
    local words="" files="" file settings
    settings="@SETTINGS@"
    COMPREPLY=()
    if [ "$COMP_CWORD" -eq 1 ]; then
        words="@VERBS@"
    else
        case "$verb $before" in
@VALUES@
        *) case "$word" in
            -*) case "$verb" in
@OPTIONS@
                esac ;;
            *) case "$verb" in
                sweep) words="@SWEEPS@" files=yes ;;
                completion) words="bash zsh" ;;
                *) files=yes ;;
                esac ;;
            esac ;;
        esac
    fi
    COMPREPLY=($(compgen -W "$words" -- "$word"))
    if [ -n "$files" ]; then
        compopt -o filenames 2>/dev/null
        while IFS= read -r file; do
            COMPREPLY+=("$file")
        done < <(compgen -f -- "$word")
    fi
}
complete -o default -F _jqlight jqlight
"""


def script() -> str:
    """The completion script."""
    options, values = {}, {("evaluate", "--model"): ""}  # there a folder, not a class
    for verb in VERBS:
        if verb not in LIGHTNINGS:
            for action in parser_of(verb)._actions:
                options.setdefault(verb, []).extend(action.option_strings)
                values |= {(verb, name): " ".join(action.choices) for name in action.option_strings if action.choices}
    found = list(settings())
    keys = [*(f"--{key}" for key in RUN_KEYS), *OPTIMIZER, *(f"--{s.key}" for s in found)]
    values |= {("*", f"--{s.key}"): " ".join(s.choices) for s in found if s.choices}
    values |= {("*", option): words for option, words in known_values().items()}
    cases = [
        f'{verb}" {option}") words="{words}"{" files=yes" if option in FILES or not words else ""}'
        for (verb, option), words in values.items()
    ]
    own = [
        f'{verb}) words="{" ".join([*options.get(verb, []), *(["$settings"] if verb in TAKE_SETTINGS else [])])}"'
        for verb in VERBS
    ]
    return (
        TEMPLATE.replace("@SETTINGS@", " ".join(dict.fromkeys(keys)))
        .replace("@VERBS@", " ".join(VERBS))
        .replace("@VALUES@", "\n".join(f"        {case} ;;" for case in cases))
        .replace("@OPTIONS@", "\n".join(f"                {line} ;;" for line in own))
        .replace("@SWEEPS@", shipped("sweeps"))
    )


def known_values() -> dict[str, str]:
    """Option -> what it takes besides what its type says."""
    return {
        "--model": " ".join(ESTIMATORS),
        "--data": " ".join(BENCHMARKS),
        "--benchmark": " ".join(BENCHMARKS),
        "--config": shipped("conf"),
        "--ckpt_path": "last best",
        "--optimizer": classes(torch.optim, torch.optim.Optimizer),
        "--lr_scheduler": classes(torch.optim.lr_scheduler, torch.optim.lr_scheduler.LRScheduler),
        "--trainer.accelerator": "auto cpu gpu",
        "--trainer.logger": "CSVLogger TensorBoardLogger WandbLogger",
    }


def settings() -> Iterable[Setting]:
    """Those of the trainer and of every estimator and benchmark, each once."""
    owners = [("model", getattr(jqlight.estimators, name)) for name in ESTIMATORS]
    owners += [("data", getattr(jqlight.benchmarks, name)) for name in BENCHMARKS]
    found = [setting for section, owner in [*owners, ("trainer", Trainer)] for setting in settings_of(section, owner)]
    return {setting.key: setting for setting in found if not setting.is_group or setting.default is None}.values()


def parser_of(verb: str) -> argparse.ArgumentParser:
    """The parser with which a verb reads its options."""

    class Found(Exception):
        pass

    def stop(parser: argparse.ArgumentParser, *_: Any) -> Never:
        raise Found(parser)

    with patch.object(CommandParser, "parse_known_args", stop):
        try:
            import_module(VERBS[verb][0]).main([])
        except Found as found:
            return found.args[0]
    raise AssertionError(f"{verb} reads no options")


def shipped(folder: str) -> str:
    """Names of the files that come with jqlight."""
    return " ".join(sorted(path.stem for path in (SHIPPED / folder).glob("*.yaml")))


def classes(module: ModuleType, base: type) -> str:
    """Names of a module's public classes of a kind."""
    found = [name for name, value in vars(module).items() if inspect.isclass(value) and issubclass(value, base)]
    return " ".join(sorted(name for name in found if not name.startswith("_") and name != base.__name__))


if __name__ == "__main__":
    SCRIPT.write_text(script(), encoding="utf-8")
