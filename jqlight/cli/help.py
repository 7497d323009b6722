"""The text of ``jqlight fit --help``: every setting of the chosen classes with its default and what it means."""

import dataclasses
import inspect
import textwrap
import types
import typing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from docstring_parser import parse_from_object

from jqlight.cli.config import chosen_class, given_settings, parameters

# Of the trainer's forty settings, those that a jqlight run is tuned by.
TRAINER = {
    "max_steps": "optimizer steps; -1 for no bound",
    "max_epochs": "passes over the training examples",
    "val_check_interval": "batches between validations; a number below 1 is a share of an epoch",
    "check_val_every_n_epoch": "null counts val_check_interval across epochs",
    "limit_val_batches": "validation batches; 0 switches validation off",
    "accelerator": "cpu, gpu, or auto",
    "devices": "how many of them",
    "strategy": "how several share the work, for example ddp",
    "precision": "Lightning's number format; null keeps policy.dtype",
    "logger": "null logs to the run's folder and MLflow, a logger adds that one, false logs nothing",
}
_WIDTH = 118
_COLUMN = 46


@dataclass(frozen=True)
class Setting:
    """One line of the help."""

    key: str
    default: str
    meaning: str


def help_text(verb: str, arguments: Sequence[str], trainer: type, trainer_defaults: dict[str, Any]) -> str:
    """The help of a Lightning verb, for the classes that ``arguments`` name (without: GARL on TwoHop)."""
    given = given_settings(arguments)
    model = chosen_class("model", given) or _ours("jqlight.estimators", "GARL")
    data = chosen_class("data", given) or _ours("jqlight.benchmarks", "TwoHop")
    defaults = {**_defaults(trainer), **trainer_defaults}
    lines = [
        f"usage: jqlight {verb} --config FILE [--config FILE ...] [--KEY VALUE ...]",
        "",
        "Files are merged in order, the command line comes last. `--print_config` shows the result and ends.",
        "Settings below: key, default, meaning. Another class's: give it too, as in `--model PAFT --help`.",
        "",
        "run",
        *_table(_run_settings()),
        "",
        f"model: {model.__name__}   (--model CLASS: GARL, PAFT, GRPO, RLOO, MaxRL, or an import path)",
        *_table(settings("model", model)),
        "",
        f"data: {data.__name__}   (--data CLASS: HotpotQA, MuSiQue, FinQA, TwoHop, or an import path)",
        *_table(settings("data", data)),
        "",
        "optimizer, lr_scheduler: any of torch's, as in --optimizer AdamW --optimizer.lr 5e-6",
        "",
        "trainer: all of lightning.pytorch.Trainer's arguments, among them",
        *_table(Setting(f"trainer.{name}", _shown(defaults.get(name)), text) for name, text in TRAINER.items()),
    ]
    return "\n".join(lines)


def _run_settings() -> list[Setting]:
    return [
        Setting("run_name", "null", "name of the run; null takes the config file's"),
        Setting("run_dir", "null", "folder of the run; null takes runs/<run_name>, numbered"),
        Setting("experiment_name", "jqlight", "MLflow experiment"),
        Setting("ckpt_path", "null", "checkpoint to start from: a file, or last or best of run_dir (of this run_name)"),
        Setting("seed_everything", "0", "seed of everything random"),
    ]


def settings(prefix: str, owner: type) -> Iterator[Setting]:
    """Every setting of a class, those of its dataclass settings behind a dot."""
    meanings, defaults = _meanings(owner), _defaults(owner)
    for name, annotation in parameters(owner).items():
        key, default = f"{prefix}.{name}", defaults.get(name, inspect.Parameter.empty)
        nested = _dataclass_of(annotation)
        if nested is None:
            yield Setting(key, _shown(default), meanings.get(name, ""))
            continue
        if default is None:
            yield Setting(key, "null", meanings.get(name, ""))
        yield from settings(key, nested)


def _table(rows: Iterator[Setting] | Sequence[Setting]) -> list[str]:
    lines = []
    for row in rows:
        head = f"  --{row.key}  {row.default}"
        wrapped = textwrap.wrap(" ".join(row.meaning.split()), _WIDTH - _COLUMN) or [""]
        if len(head) >= _COLUMN:
            lines.append(head)
            head = ""
        lines += [f"{head:<{_COLUMN}}{wrapped[0]}".rstrip(), *(" " * _COLUMN + line for line in wrapped[1:])]
    return lines


def _meanings(owner: type) -> dict[str, str]:
    """Parameter -> its documentation, from the docstrings of the class and its parents."""
    found: dict[str, str] = {}
    for cls in owner.__mro__[:-1]:
        if cls.__module__.split(".")[0] not in ("torch", "lightning"):
            for entry in parse_from_object(cls).params:
                found.setdefault(entry.arg_name, entry.description or "")
    return found


def _defaults(owner: type) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if dataclasses.is_dataclass(owner):
        for field in dataclasses.fields(owner):
            made = field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default
            found[field.name] = inspect.Parameter.empty if made is dataclasses.MISSING else made
        return found
    for cls in owner.__mro__[:-1]:
        if "__init__" in cls.__dict__:
            for name, parameter in inspect.signature(cls.__dict__["__init__"]).parameters.items():
                found.setdefault(name, parameter.default)
    return found


def _dataclass_of(annotation: Any) -> type | None:
    union = typing.get_origin(annotation) in (typing.Union, types.UnionType)
    options = typing.get_args(annotation) if union else (annotation,)
    return next((o for o in options if isinstance(o, type) and dataclasses.is_dataclass(o)), None)


def _shown(default: Any) -> str:
    if default is inspect.Parameter.empty:
        return "(required)"
    if default is None or isinstance(default, bool):
        return {None: "null", True: "true", False: "false"}[default]
    return repr(default) if isinstance(default, str) and (not default or default != default.strip()) else str(default)


def _ours(package: str, name: str) -> type:
    from importlib import import_module

    return typing.cast(type, getattr(import_module(package), name))
