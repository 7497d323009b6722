"""Values that no type can refuse and that torch, numpy or Lightning would fail on late, checked before anything loads.

An optimizer and its schedule are rehearsed: built as configured on a parameter of four numbers, and stepped.
"""

import logging
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.cli import instantiate_class

from jqlight.cli.config import parameters
from jqlight.errors import ConfigError
from jqlight.machine import usual_device
from jqlight.tracking.run_folder import check_run_dir
from jqlight.tracking.run_names import check_experiment, check_name

log = logging.getLogger("jqlight")

_LARGEST_SEED = 2**32 - 1
_REHEARSED_STEPS = 1000
_PRECISIONS = {"16": "16-mixed", "bf16": "bf16-mixed", "32": "32-true", "64": "64-true"}
# What Lightning ignores, or does not look at until a model is there: smallest value, and what is allowed.
_SMALLEST: dict[str, tuple[float, str]] = {
    "accumulate_grad_batches": (1, "a whole number from 1"),
    "gradient_clip_val": (0, "a number from 0"),
    "min_steps": (0, "a whole number from 0"),
    "min_epochs": (0, "a whole number from 0"),
    "log_every_n_steps": (0, "a whole number from 0"),
    "num_sanity_val_steps": (-1, "a whole number from 0, or -1 for all"),
    "limit_train_batches": (5e-324, "a whole number of batches from 1, or a share above 0 and up to 1"),
}
_ALLOWED = {
    "lr": "a number from 0 that float32 can hold",
    "betas": "two numbers from 0 to below 1",
    "eps": "a number from 0",
    "weight_decay": "a number from 0",
    "momentum": "a number from 0",
    "step_size": "a whole number from 1",
    "T_max": "a whole number from 1",
}


def check_values(verb: str, settings: Mapping[str, Any]) -> None:
    """Check a parsed config.

    Args:
        verb: of ``jqlight``; optimizers matter to ``fit`` alone.
        settings: the parsed config as nested dictionaries.

    Raises:
        ConfigError: names key, value and what is allowed.
    """
    _check_seed(settings.get("seed_everything"))
    if settings.get("run_name") is not None:
        check_name("run_name", settings["run_name"])
    if settings.get("run_dir") is not None:
        check_run_dir(settings["run_dir"])
    if settings.get("ckpt_path") is not None and not settings["ckpt_path"].strip():
        raise ConfigError(f"ckpt_path: given {settings['ckpt_path']!r}, allowed are a checkpoint file, last, and best")
    check_experiment("experiment_name", str(settings.get("experiment_name", "jqlight")))
    trainer = settings.get("trainer") or {}
    if not isinstance(trainer, Mapping):
        raise ConfigError(f"trainer: given {trainer}, allowed are its own settings, as in --trainer.max_steps 100")
    _check_trainer(trainer)
    if verb == "fit" and settings.get("optimizer"):
        _rehearse(settings["optimizer"], settings.get("lr_scheduler"), trainer)


def _check_seed(seed: Any) -> None:
    if not isinstance(seed, bool) and isinstance(seed, int) and not 0 <= seed <= _LARGEST_SEED:
        raise ConfigError(f"seed_everything: given {seed}, allowed is a whole number from 0 to {_LARGEST_SEED}")


def _check_trainer(trainer: Mapping[str, Any]) -> None:
    for key in ("max_steps", "max_epochs"):
        value = trainer.get(key)
        if isinstance(value, int) and value < 1 and value != -1:
            raise ConfigError(f"trainer.{key}: given {value}, allowed is a whole number from 1, or -1 for no bound")
    every = trainer.get("val_check_interval")
    wrong = isinstance(every, int | float) and not (every > 0 and (every <= 1 or float(every).is_integer()))
    if wrong or isinstance(every, bool):
        raise ConfigError(
            f"trainer.val_check_interval: given {every}, allowed is a whole number of batches from 1, a share of an "
            "epoch above 0 and up to 1, or null (limit_val_batches: 0 switches validation off)"
        )
    epochs = trainer.get("check_val_every_n_epoch")
    if isinstance(epochs, int) and epochs < 1:
        raise ConfigError(f"trainer.check_val_every_n_epoch: given {epochs}, allowed is 1 or more, or null")
    for key, (smallest, allowed) in _SMALLEST.items():
        value = trainer.get(key)
        if isinstance(value, int | float) and not value >= smallest:
            raise ConfigError(f"trainer.{key}: given {value:g}, allowed is {allowed}")


def usable_precision(trainer: Mapping[str, Any]) -> Any:
    """The trainer's precision by the one name that is not deprecated; where a CPU has none such, the nearest, told."""
    given = trainer.get("precision")
    name = _PRECISIONS.get(str(given), given)
    accelerator = trainer.get("accelerator", "auto")
    on_cpu = accelerator == "cpu" or (accelerator == "auto" and usual_device().type == "cpu")
    if name == "16-mixed" and on_cpu:
        log.warning("trainer.precision: given %s, which a CPU does not compute with; bf16-mixed is used.", given)
        return "bf16-mixed"
    return name


def explain_trainer(trainer: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """Raise ConfigError with the key without which a trainer would be built; return where no single one is to blame.

    Args:
        trainer: the trainer's settings, its logger and callbacks built.
        defaults: those of jqlight, which are not blamed.
    """
    usual = {name: parameter.default for name, parameter in parameters(Trainer).items()} | dict(defaults)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    given = {key: value for key, value in trainer.items() if key != "callbacks" and value != usual.get(key)}

    def build(attempted: Mapping[str, Any]) -> None:
        Trainer(**{**defaults, **attempted["init_args"], **quiet})

    _tell("trainer", {"class_path": "Trainer", "init_args": given}, build, guess=False)


def warn_of_no_validation(trainer: Mapping[str, Any]) -> None:
    """Say so where a run ends before its first validation would come."""
    every, steps = trainer.get("val_check_interval"), trainer.get("max_steps")
    if trainer.get("limit_val_batches") == 0 or not isinstance(every, int) or not isinstance(steps, int):
        return
    if 0 < steps < every:
        log.warning(
            "trainer.val_check_interval: given %d, but the run ends after %d steps: there will be no validation after "
            "the first step, and no best checkpoint to choose.",
            every,
            steps,
        )


# -- optimizer and lr_scheduler --------------------------------------------------------------------------------------


def _rehearse(optimizer: Mapping[str, Any], scheduler: Mapping[str, Any] | None, trainer: Mapping[str, Any]) -> None:
    _tell("optimizer", optimizer, lambda given: _step(_built(given)))
    if not scheduler:
        return
    if "ReduceLROnPlateau" in scheduler["class_path"] and trainer.get("limit_val_batches") == 0:
        raise ConfigError(
            "lr_scheduler: given ReduceLROnPlateau, which acts on validation scores, but trainer.limit_val_batches "
            "is 0: there is no validation"
        )
    steps = trainer.get("max_steps")
    steps = steps if isinstance(steps, int) and steps > 0 else 1
    _tell("lr_scheduler", scheduler, lambda given: _schedule(_built(optimizer), given, steps))


def _tell(
    section: str, given: Mapping[str, Any], attempt: Callable[[Mapping[str, Any]], None], *, guess: bool = True
) -> None:
    """Raise what ``attempt`` fails on as a sentence that names the setting without which it would not.

    Where there is no such setting the likely one is named, or all; without ``guess`` nothing is raised then.
    """
    problem = _problem(given, attempt)
    if problem is None:
        return
    arguments = dict(given.get("init_args") or {})
    name = str(given["class_path"]).rsplit(".", 1)[-1]
    for key, value in arguments.items():
        others = {other: kept for other, kept in arguments.items() if other != key}
        if _problem({**given, "init_args": others}, attempt) is None:
            allowed = f"allowed is {_ALLOWED[key]}" if key in _ALLOWED else f"which {name} refuses"
            shown = "null" if value is None else value
            raise ConfigError(f"{section}.{key}: given {shown}, {allowed} ({problem})")
    if not guess:
        return
    for key, value in arguments.items():  # required ones cannot be left out
        if key.lower() in problem.lower() or _is_odd(value):
            raise ConfigError(f"{section}.{key}: given {value}, which {name} refuses ({problem})")
    shown = ", ".join(f"{key} {value}" for key, value in arguments.items() if value is not None)
    raise ConfigError(f"{section}: given {name} with {shown or 'no settings'}, which it refuses ({problem})")


def _is_odd(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and not (0 < value < math.inf)


def _problem(given: Mapping[str, Any], attempt: Callable[[Mapping[str, Any]], None]) -> str | None:
    try:
        attempt(given)
    except Exception as error:  # a class of the user's own may raise anything
        text = " ".join(str(error).split())
        return (text if len(text) <= 300 else f"{text[:297]}...") or type(error).__name__
    return None


def _built(optimizer: Mapping[str, Any]) -> torch.optim.Optimizer:
    # A matrix, since some optimizers take nothing else.
    built: torch.optim.Optimizer = instantiate_class([torch.nn.Parameter(torch.zeros(2, 2))], dict(optimizer))
    return built


def _step(optimizer: torch.optim.Optimizer) -> None:
    (parameter,) = optimizer.param_groups[0]["params"]
    parameter.grad = torch.full_like(parameter, 10.0)
    optimizer.step()
    if not parameter.isfinite().all():
        raise ValueError("a step with it is not finite")


def _schedule(optimizer: torch.optim.Optimizer, given: Mapping[str, Any], steps: int) -> None:
    scheduler = instantiate_class(optimizer, dict(given))
    total = getattr(scheduler, "total_steps", None)
    if isinstance(total, int) and total < steps:
        raise ValueError(f"it ends after {total} steps, trainer.max_steps is {steps}")
    if isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
        scheduler.step(0.0)
        return
    with torch.no_grad():
        for _ in range(min(steps, _REHEARSED_STEPS)):
            optimizer.step()
            scheduler.step()
            if not all(0 <= float(group["lr"]) < math.inf for group in optimizer.param_groups):
                raise ValueError(f"it sets the learning rate to {optimizer.param_groups[0]['lr']}")
