"""The text of ``jqlight fit --help``: every setting of the chosen classes with its default and what it means."""

import inspect
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

from jqlight.cli.config import GivenSetting, chosen_class, find_class, parameters, settings_of
from jqlight.names import BENCHMARKS, ESTIMATORS, format_value

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
RUN = (
    ("run_name", None, "name of the run; null takes the config file's"),
    ("run_dir", None, "folder of the run; null takes runs/<run_name>, numbered"),
    ("experiment_name", "jqlight", "MLflow experiment"),
    ("ckpt_path", None, "checkpoint to start from: a file, or last or best of run_dir (of this run_name)"),
    ("checkpoint.every_minutes", 1.0, "minutes between two checkpoints: the most that a killed run loses"),
    ("checkpoint.every_n_steps", None, "optimizer steps between two checkpoints, in addition"),
    ("seed_everything", 0, "seed of everything random"),
)
_WIDTH = 118
_COLUMN = 46


def help_text(verb: str, given: Sequence[GivenSetting], trainer: type, trainer_defaults: dict[str, Any]) -> str:
    """The help of a Lightning verb, for the classes that are given (without: GARL on TwoHop)."""
    model = chosen_class("model", given) or find_class("model", "GARL")
    data = chosen_class("data", given) or find_class("data", "TwoHop")
    assert model and data, "jqlight's own classes import"
    defaults = {name: parameter.default for name, parameter in parameters(trainer).items()} | trainer_defaults
    lines = [
        f"usage: jqlight {verb} --config FILE [--config FILE ...] [--KEY VALUE ...]",
        "",
        "Files are merged in order, those that a file names as `base` in front of it; the command line comes last.",
        "`--print_config` shows the result and ends. Settings below: key, default, meaning. Another class's: give it",
        "too, as in `--model PAFT --help`.",
        "",
        "run",
        *_table(RUN),
        "",
        f"model: {model.__name__}   (--model CLASS: {', '.join(ESTIMATORS)}, or an import path)",
        *class_table("model", model),
        "",
        f"data: {data.__name__}   (--data CLASS: {', '.join(BENCHMARKS)}, or an import path)",
        *class_table("data", data),
        "",
        "optimizer, lr_scheduler: any of torch's, as in --optimizer AdamW --optimizer.lr 5e-6",
        "",
        "trainer: all of lightning.pytorch.Trainer's arguments, among them",
        *_table((f"trainer.{name}", defaults.get(name), text) for name, text in TRAINER.items()),
    ]
    return "\n".join(lines)


def class_table(section: str, owner: type) -> list[str]:
    """The lines of a class's settings; a record's own settings stand for it, unless it may be null."""
    rows = settings_of(section, owner)
    return _table((row.key, row.default, row.meaning) for row in rows if not row.is_group or row.default is None)


def _table(rows: Iterable[tuple[str, Any, str]]) -> list[str]:
    lines = []
    for key, default, meaning in rows:
        head = f"  --{key}  {default_text(default)}"
        wrapped = textwrap.wrap(" ".join(meaning.split()), _WIDTH - _COLUMN) or [""]
        if len(head) >= _COLUMN:
            lines.append(head)
            head = ""
        lines += [f"{head:<{_COLUMN}}{wrapped[0]}".rstrip(), *(" " * _COLUMN + line for line in wrapped[1:])]
    return lines


def default_text(value: Any) -> str:
    """A setting's default as help shows it."""
    if value is inspect.Parameter.empty:
        return "(required)"
    # An empty text would not be seen, nor white space at the ends of one.
    return repr(value) if isinstance(value, str) and value != (value.strip() or None) else format_value(value)
