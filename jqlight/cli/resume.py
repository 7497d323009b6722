"""The optimizer of a run that goes on: what its settings may change to, and that the change happens.

Lightning gives a resumed optimizer the settings in the checkpoint; here the config is what the run follows.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch import Callback, LightningModule, Trainer

from jqlight.errors import ConfigError
from jqlight.tracking.logger import RunLogger
from jqlight.tracking.params import flatten
from jqlight.tracking.run_folder import saved_config

log = logging.getLogger(__name__)

Changes = dict[str, tuple[Any, Any]]
_PARTS = ("optimizer", "lr_scheduler")


def changed_settings(checkpoint: Path, config: Mapping[str, Any]) -> Changes:
    """Settings of the optimizer that differ from those of the checkpoint's run: key -> (before, now).

    Args:
        checkpoint: to go on from; one that lies in no run's folder has no settings to differ from.
        config: the whole config.

    Raises:
        ConfigError: another class, or anything where there is a schedule, which goes on as it began.
    """
    saved = saved_config(checkpoint)
    try:
        content = yaml.safe_load(saved.read_text(encoding="utf-8")) if saved else {}
    except (yaml.YAMLError, UnicodeDecodeError):
        content = None
    if not isinstance(content, dict):
        log.warning("%s is damaged: whether the optimizer's settings are still the run's own is not known.", saved)
        return {}
    if not content:
        return {}
    before, now = ({part: side.get(part) for part in _PARTS} for side in (content, config))
    scheduled = bool(before["lr_scheduler"] or now["lr_scheduler"])
    old, new = _named(before), _named(now)
    changes = {key: (old.get(key), new.get(key)) for key in {**old, **new} if old.get(key) != new.get(key)}
    for key, (was, given) in changes.items():
        if key in _PARTS or scheduled:
            why = (
                "a schedule goes on as it began" if scheduled and key not in _PARTS else "its state is another class's"
            )
            raise ConfigError(
                f"{key}: given {given}, but {checkpoint} was trained with {was} and {why}; resume with that, or train "
                "the run's exported model in a new run"
            )
    return changes


def _named(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by the key that the command line has for them, the class under ``optimizer`` itself."""
    found = {}
    for part, given in settings.items():
        given = given or {}
        found[part] = given.get("class_path")
        found |= {f"{part}.{key}": value for key, value in flatten(given.get("init_args") or {}).items()}
    return found


class ResumedOptimizer(Callback):
    """Gives a resumed optimizer the settings of the config, and tells which of them are new.

    Args:
        changes: as of :func:`changed_settings`.
    """

    def __init__(self, changes: Changes) -> None:
        self.changes = changes

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Set them, behind Lightning's own restoring; a schedule's optimizer is the schedule's.

        Raises:
            ConfigError: the checkpoint is of an optimizer of another kind.
        """
        for optimizer in trainer.optimizers:
            for group in optimizer.param_groups:
                _check_kind(type(optimizer).__name__, optimizer.defaults, group)
                if not trainer.lr_scheduler_configs:
                    group.update(optimizer.defaults)
        if not trainer.is_global_zero:
            return
        for key, (before, now) in self.changes.items():
            text = f"{now} from step {trainer.global_step} on, {before} before"
            log.warning("%s: %s", key, text)
            for logger in (logger for logger in trainer.loggers if isinstance(logger, RunLogger)):
                logger.log_tags({f"resumed.{key}": text})  # MLflow keeps a parameter as it was first logged


def _check_kind(name: str, given: Mapping[str, Any], restored: Mapping[str, Any]) -> None:
    missing, others = given.keys() - restored.keys(), restored.keys() - given.keys() - {"params", "initial_lr"}
    if missing and others:
        raise ConfigError(
            f"optimizer: given {name}, but the checkpoint is of one that has {', '.join(sorted(others))} and not "
            f"{', '.join(sorted(missing))}; resume with the same class, or train the run's exported model in a new run"
        )
