"""``jqlight fit|validate|test|predict``: Lightning's command line with a run folder, tracking and clear sentences.

The verb is picked by `jqlight.cli` and the classes are built with ``run=False``, so that a config's root is the root
of interpolation too: ``${model.init_args.q}`` means what it says, after every file and override has been merged.
"""

import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from types import MethodType
from typing import Any

from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, ProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, instantiate_class
from lightning.pytorch.utilities.exceptions import MisconfigurationException, SIGTERMException
from lightning.pytorch.utilities.model_helpers import is_overridden

from jqlight import config_errors, quiet, results, settings
from jqlight.errors import ConfigError, JQLightError
from jqlight.settings_help import help_text
from jqlight.tracking.callbacks import SaveConfig
from jqlight.tracking.checkpoints import RunCheckpoint, checkpoint_step
from jqlight.tracking.console import Console
from jqlight.tracking.logger import RunLogger
from jqlight.tracking.phases import mark
from jqlight.tracking.run_folder import RunFolder, find_run_folder

TRAINER_DEFAULTS: dict[str, Any] = {
    "accelerator": "auto",
    "devices": 1,
    "log_every_n_steps": 1,
    # The whole validation before the first step: what the base model scores.
    "num_sanity_val_steps": -1,
    "enable_model_summary": False,
    # A benchmark's loaders are sharded by jqlight itself.
    "use_distributed_sampler": False,
}


class Refusal(SystemExit):
    """A parser's message. Not an Exception: a parser would take a nested one's for one more type that did not fit."""


class Parser(LightningArgumentParser):
    """A parser that raises its message instead of printing a usage and exiting."""

    def error(self, message: str, ex: Exception | None = None) -> Any:
        """Raise Refusal with ``message``."""
        raise Refusal(message) from ex


class RunCLI(LightningCLI):
    """LightningCLI that builds its classes without running them, inside a run's folder."""

    def __init__(self, verb: str, args: Sequence[str]) -> None:
        self.verb = verb
        self.run_folder: RunFolder
        super().__init__(
            LightningModule,
            LightningDataModule,
            run=False,
            args=list(args),
            subclass_mode_model=True,
            subclass_mode_data=True,
            seed_everything_default=0,
            trainer_defaults=dict(TRAINER_DEFAULTS),
            save_config_callback=SaveConfig,
            save_config_kwargs={"save_to_log_dir": False},
            parser_class=Parser,
            parser_kwargs={"parser_mode": "omegaconf+", "prog": f"jqlight {verb}", "allow_abbrev": False},
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add what belongs to the run and not to model, data or trainer."""
        parser.add_argument(
            "--run_name", type=str | None, default=None, help="Name of the run; default: the config file's name."
        )
        parser.add_argument(
            "--run_dir", type=str | None, default=None, help="Folder of the run; default: runs/<run_name>, numbered."
        )
        parser.add_argument("--experiment_name", type=str, default="jqlight", help="MLflow experiment.")
        parser.add_argument(
            "--ckpt_path",
            type=str | None,
            default=None,
            help="Checkpoint to start from: a file, or 'last' or 'best' of run_dir (of the newest run of this name). "
            "One that lies in a run's folder continues that run.",
        )

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse, without Lightning's warning about ``sys.argv``."""
        try:
            self.config = parser.parse_args(args)
        except Refusal as refusal:
            raise ConfigError(config_errors.explain(str(refusal), args)) from refusal
        except Exception as error:
            if (sentence := config_errors.interpolation(error)) is None:
                raise
            raise ConfigError(sentence) from error

    def before_instantiate_classes(self) -> None:
        """Check what Lightning would fail on late."""
        for key in ("model", "data"):
            if not self.config.get(key):
                raise ConfigError(f"{key}: not given; give --config FILE (see conf/) or --{key} CLASS")

    def instantiate_classes(self) -> None:
        """Build data, model and trainer; a class's own refusal comes out as it was raised."""
        try:
            super().instantiate_classes()
        except JQLightError:
            raise
        except Exception as error:
            raised = config_errors.raised_by_jqlight(error)
            if raised is None:
                raise
            raise raised from error

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """The trainer with jqlight's logger, checkpoints and console where the config names none."""
        config = self.config
        name = config.run_name or self._default_name()
        self.run_folder = find_run_folder(self.verb, config.run_dir, name, config.ckpt_path)
        settings = {**self.config_init["trainer"].as_dict(), **kwargs}
        if settings.get("logger") in (None, True) and not settings.get("fast_dev_run"):
            # Numbered folders tell repeated runs apart, in MLflow too.
            name = config.run_name if config.run_dir else None
            settings["logger"] = RunLogger(self.run_folder.path, experiment_name=config.experiment_name, run_name=name)
        settings["callbacks"] = self._callbacks(settings)
        try:
            return self._instantiate_trainer(settings, [])
        except (ValueError, TypeError, MisconfigurationException) as error:
            raise ConfigError(f"trainer: {error}") from error

    def _default_name(self) -> str:
        """The last config file's name; for a run's own ``config.yaml`` its folder's; else of model and data."""
        files = [Path(str(path)) for path in self.config.config or []]
        if files:
            return files[-1].absolute().parent.name if files[-1].stem == "config" else files[-1].stem
        return f"{type(self.model).__name__}-{type(self.datamodule).__name__}".lower()

    def _callbacks(self, settings: dict[str, Any]) -> list[Callback]:
        given = settings.get("callbacks") or []
        callbacks: list[Callback] = [*given] if isinstance(given, list) else [given]
        wants_checkpoints = settings.get("enable_checkpointing") is not False
        if self.verb == "fit" and wants_checkpoints and not _has(callbacks, ModelCheckpoint):
            validates = settings.get("limit_val_batches") != 0
            callbacks.append(RunCheckpoint(self.run_folder.checkpoints, self.model, validates=validates))
        if settings.get("enable_progress_bar") is not False and not _has(callbacks, ProgressBar):
            title = results.start_line(self.verb, self.run_folder, self.model, self.datamodule)
            callbacks.append(Console(title))
        return callbacks

    def _add_configure_optimizers_method_to_model(self, subcommand: str | None) -> None:
        # Lightning would build the optimizer here, from a model that has no weights before configure_model.
        optimizer, scheduler = self.config_init.get("optimizer"), self.config_init.get("lr_scheduler")
        if not optimizer:
            if scheduler:
                raise ConfigError("lr_scheduler: given without an optimizer; give optimizer.class_path too")
            if self.verb == "fit" and not is_overridden("configure_optimizers", self.model, LightningModule):
                raise ConfigError(
                    "optimizer: not given; name a class and its learning rate, as in "
                    "--optimizer AdamW --optimizer.lr 5e-6"
                )
            return

        def configure_optimizers(module: LightningModule) -> Any:
            built = instantiate_class([p for p in module.parameters() if p.requires_grad], optimizer)
            if not scheduler:
                return built
            schedule = {"scheduler": instantiate_class(built, scheduler), "interval": "step"}
            return {"optimizer": built, "lr_scheduler": schedule}

        self.model.configure_optimizers = MethodType(configure_optimizers, self.model)


def _has(callbacks: list[Callback], kind: type[Callback]) -> bool:
    return any(isinstance(callback, kind) for callback in callbacks)


def main(verb: str, argv: Sequence[str]) -> int:
    """Run ``jqlight <verb>`` and return its exit code."""
    quiet.settle_imported()
    arguments = with_run_config(list(argv))
    config_errors.check_files(arguments)
    # Bare class names in a config resolve among what is imported.
    for package in settings.ROOTS.values():
        import_module(package)
    if {"-h", "--help"} & set(arguments):
        print(help_text(verb, arguments, Trainer, TRAINER_DEFAULTS))
        return 0
    mark("imports")
    config_errors.check_keys(arguments, Trainer)
    cli = RunCLI(verb, arguments)
    mark("config")
    return run(cli)


def with_run_config(arguments: list[str]) -> list[str]:
    """``arguments``, with the config of the run that is continued in front where no config is given."""
    if settings.config_files(arguments):
        return arguments
    given = {option.key: str(option.value) for option in settings.given_settings(arguments)}
    checkpoint, folder = given.get("ckpt_path"), given.get("run_dir")
    if checkpoint and checkpoint not in ("last", "best"):
        folder = folder or str(Path(checkpoint).parent.parent)
    config = Path(folder) / "config.yaml" if checkpoint and folder else None
    return ["--config", str(config), *arguments] if config and config.is_file() else arguments


def run(cli: RunCLI) -> int:
    """Train or evaluate what ``cli`` has built, then print the results; 130 when interrupted, 143 when terminated."""
    trainer, folder = cli.trainer, cli.run_folder
    checkpoint = str(folder.checkpoint) if folder.checkpoint else None
    try:
        extra = {"verbose": False} if cli.verb in ("validate", "test") else {}
        outcome = getattr(trainer, cli.verb)(cli.model, datamodule=cli.datamodule, ckpt_path=checkpoint, **extra)
    except (KeyboardInterrupt, SystemExit) as stop:
        if isinstance(stop, SystemExit) and not trainer.interrupted:
            raise
        print(results.interrupted(folder), file=sys.stderr)
        return 128 + (signal.SIGTERM if isinstance(stop, SIGTERMException) else signal.SIGINT)
    except MisconfigurationException as error:
        raise ConfigError(f"trainer: {error}") from error
    if not trainer.is_global_zero:
        return 0
    if cli.verb == "fit":
        if folder.checkpoint and trainer.global_step == checkpoint_step(folder.checkpoint):
            print(f"nothing was left to train: {trainer.global_step} steps are done; raise trainer.max_steps to go on")
        model = results.export_best(trainer, cli.model, folder)
        print(results.fit_report(trainer, cli.model, folder, model), flush=True)
    elif cli.verb == "predict":
        print(results.write_predictions(outcome, folder), flush=True)
    else:
        print(results.scores_report(trainer, folder), flush=True)
    return 0
