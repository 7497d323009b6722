"""From a command line to the classes it names, built inside a run's folder: the one way in for every verb.

The classes are built with ``run=False``, so that a config's root is the root of interpolation too:
``${model.init_args.q}`` means what it says, after every file and override has been merged.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml
from jsonargparse.typing import PositiveFloat, PositiveInt
from lightning.fabric.plugins import CheckpointIO
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, instantiate_class

from jqlight import quiet
from jqlight.benchmarks import Benchmark
from jqlight.cli import messages, output
from jqlight.cli.checks import check_values, explain_trainer, usable_precision, warn_of_no_validation
from jqlight.cli.cluster import leave_group
from jqlight.cli.config import OWN_SECTIONS, ROOTS, CommandLine, read_command_line, with_literal_texts
from jqlight.cli.plateau import StepPlateau
from jqlight.cli.ranks import RankWatch
from jqlight.cli.resume import ResumedOptimizer, changed_settings
from jqlight.cli.retired import leave_out_retired
from jqlight.errors import ConfigError, JQLightError
from jqlight.estimators import Estimator
from jqlight.tracking.checkpoint_files import CheckpointFiles, usable
from jqlight.tracking.checkpoints import EVERY_MINUTES, RunCheckpoint
from jqlight.tracking.config import SaveConfig
from jqlight.tracking.end_at_signal import EndAtSignal
from jqlight.tracking.logger import RunLogger, with_run_logger
from jqlight.tracking.progress import ProgressLine
from jqlight.tracking.run_folder import RunFolder, find_run_folder
from jqlight.tracking.scores import ValidationScores

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
    """A parser that takes files as they have been read, and raises its message instead of exiting with a usage."""

    files: Mapping[str, Mapping[str, Any]]

    def parse_path(self, path: Any, *args: Any, **settings: Any) -> Any:
        """The settings of a file, from its content in :attr:`files`."""
        return self.parse_string(json.dumps(self.files[str(path)], ensure_ascii=False), **settings)

    def error(self, message: str, ex: Exception | None = None) -> Any:
        """Raise Refusal with ``message``."""
        raise Refusal(message) from ex

    def add_lightning_class_args(self, lightning_class: Any, nested_key: str, *args: Any, **kwargs: Any) -> list[str]:
        """Lightning's, but that optimizer and schedule of a module are set in sections of their own."""
        if lightning_class is not LightningModule:
            return super().add_lightning_class_args(lightning_class, nested_key, *args, **kwargs)
        skip = set(OWN_SECTIONS)
        self.add_subclass_arguments(lightning_class, nested_key, fail_untyped=False, required=True, skip=skip)
        return []


class RunCLI(LightningCLI):
    """LightningCLI that builds its classes without running them, inside a run's folder.

    Raises:
        ConfigError: a file that is missing or no YAML, a setting that does not exist or has a value that cannot work.
    """

    def __init__(self, verb: str, arguments: Sequence[str] | CommandLine) -> None:
        self.verb = verb
        self.run_folder: RunFolder
        self.ranks = RankWatch(verb)
        quiet.silence_imported_libraries()
        self.given = arguments if isinstance(arguments, CommandLine) else read_command_line(arguments)
        # Bare class names in a config resolve among what is imported.
        for package in ROOTS.values():
            import_module(package)
        leave_out_retired(self.given)
        messages.check_keys(self.given.settings, Trainer)
        super().__init__(
            LightningModule,
            LightningDataModule,
            run=False,
            args=with_literal_texts(self.given),
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
        parser.files = self.given.files  # type: ignore[attr-defined]  # an attribute of Parser, the class in use
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
            "One that lies in a run's folder continues that run, with the settings given; the optimizer's class and a "
            "schedule stay as they were.",
        )
        parser.add_argument(
            "--checkpoint.every_n_steps",
            type=PositiveInt | None,
            default=None,
            help="Optimizer steps between two checkpoints, in addition to every_minutes and each validation.",
        )
        parser.add_argument(
            "--checkpoint.every_minutes",
            type=PositiveFloat,
            default=EVERY_MINUTES,
            help="Minutes between two checkpoints: the most that a killed run loses.",
        )

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse, without Lightning's warning about ``sys.argv``."""
        try:
            self.config = parser.parse_args(args)
        except Refusal as refusal:
            raise ConfigError(messages.explain(str(refusal), self.given.settings)) from refusal
        except Exception as error:
            sentence = messages.interpolation(error)
            if sentence is None and isinstance(error, ValueError):  # characters that no path or file can hold
                sentence = f"config: a setting cannot be read ({error})"
            if sentence is None:
                raise
            raise ConfigError(sentence) from error
        check_values(self.verb, self.config.as_dict())

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
            if raised := messages.raised_by_jqlight(error):
                raise raised from error
            if refused := messages.not_built(error, self.given.settings):
                raise ConfigError(refused) from error
            raise

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """The trainer with jqlight's logger, checkpoints and console where the config names none."""
        config = self.config
        name = config.run_name or self._default_name()
        settings = {**self.config_init["trainer"].as_dict(), **kwargs}
        settings["precision"] = usable_precision(settings)
        leave_group(settings)
        self.run_folder = find_run_folder(self.verb, config.run_dir, name, config.ckpt_path)
        if found := self.run_folder.checkpoint:
            another = self.verb == "fit" and config.ckpt_path == "last"
            self.run_folder = replace(self.run_folder, checkpoint=usable(found, or_another=another))
        if settings.get("logger") is not False and not settings.get("fast_dev_run"):
            # Numbered folders tell repeated runs apart, in MLflow too.
            name = config.run_name if config.run_dir else None
            own = partial(RunLogger, self.run_folder.path, experiment_name=config.experiment_name, run_name=name)
            settings["logger"] = with_run_logger(settings.get("logger"), own)
        settings["callbacks"] = self._callbacks(settings)
        plugins = settings.get("plugins") or []
        plugins = [*plugins] if isinstance(plugins, list) else [plugins]
        if not any(isinstance(plugin, CheckpointIO) for plugin in plugins):
            settings["plugins"] = [*plugins, CheckpointFiles()]
        try:
            trainer = self._instantiate_trainer(settings, [])
        except JQLightError:
            raise
        except Exception as error:  # accelerators, strategies and plugins have their own ways to refuse
            explain_trainer(settings, TRAINER_DEFAULTS)
            raise ConfigError(f"trainer: {' '.join(str(error).split())}") from error
        if self.verb == "fit":
            warn_of_no_validation(settings)
        return trainer

    def _default_name(self) -> str:
        """The last config file's name; for a run's own ``config.yaml`` its folder's; else of model and data."""
        files = [Path(path) for path in self.given.files]
        if files:
            return files[-1].absolute().parent.name if files[-1].stem == "config" else files[-1].stem
        return f"{type(self.model).__name__}-{type(self.datamodule).__name__}".lower()

    def _callbacks(self, settings: dict[str, Any]) -> list[Callback]:
        given = settings.get("callbacks") or []
        callbacks: list[Callback] = [*given] if isinstance(given, list) else [given]
        callbacks.append(self.ranks)
        if self.verb == "fit":
            callbacks += [StepPlateau(), ValidationScores(), EndAtSignal()]
            if checkpoint := self.run_folder.checkpoint:
                given = yaml.safe_load(self.parser.dump(self.config, skip_none=False))
                callbacks.append(ResumedOptimizer(changed_settings(checkpoint, given)))
        if self.verb == "fit" and settings.get("enable_checkpointing") is not False:
            validates = settings.get("limit_val_batches") != 0
            when = self.config.checkpoint.as_dict()
            callbacks.append(RunCheckpoint(self.run_folder.checkpoints, self.model, validates=validates, **when))
        if settings.get("enable_progress_bar") is not False and not _has(callbacks, ProgressBar):
            title = output.start_line(self.verb, self.run_folder, self.model, self.datamodule)
            callbacks.append(ProgressLine(title))
        return callbacks

    def _add_configure_optimizers_method_to_model(self, subcommand: str | None) -> None:
        # Lightning would build the optimizer here, from a model that has no weights before configure_model, and put a
        # method on the model: ours has one, and is told what to make.
        optimizer, scheduler = self.config_init.get("optimizer"), self.config_init.get("lr_scheduler")
        if scheduler and not optimizer:
            raise ConfigError("lr_scheduler: given without an optimizer; give optimizer.class_path too")
        if self.verb == "fit" and not optimizer:
            raise ConfigError(
                "optimizer: not given; name a class and its learning rate, as in --optimizer AdamW --optimizer.lr 5e-6"
            )
        if optimizer:
            self.model.optimizer = partial(instantiate_class, init=optimizer)
        if scheduler:
            self.model.lr_scheduler = partial(instantiate_class, init=scheduler)


def _has(callbacks: list[Callback], kind: type[Callback]) -> bool:
    return any(isinstance(callback, kind) for callback in callbacks)


class _Built(RunCLI):
    """A command line that builds model and data alone: no trainer, no run folder, nothing logged."""

    def instantiate_trainer(self, **kwargs: Any) -> Any:
        return None

    def _add_configure_optimizers_method_to_model(self, subcommand: str | None) -> None:
        return


class _Parsed(_Built):
    """A command line that is read and checked alone: nothing is seeded or built."""

    def _set_seed(self) -> None:
        return

    def instantiate_classes(self) -> None:
        return


def built(verb: str, arguments: Sequence[str]) -> tuple[Estimator, Benchmark]:
    """Estimator and benchmark of a config with its overrides, the benchmark bound to the policy's tokens.

    Raises:
        ConfigError: as ``jqlight fit`` would, or a model or data class that is not jqlight's kind.
    """
    cli = _Built(verb, arguments)
    if not isinstance(cli.model, Estimator):
        raise ConfigError(f"model: given {type(cli.model).__name__}, allowed is an estimator of jqlight")
    if not isinstance(cli.datamodule, Benchmark):
        raise ConfigError(f"data: given {type(cli.datamodule).__name__}, allowed is a Benchmark")
    limit = cli.model.sampler_config.max_answer_tokens
    return cli.model, cli.datamodule.bind(cli.model.token_format, max_answer_tokens=limit)


def parse(arguments: Sequence[str]) -> None:
    """Check that the settings of ``jqlight fit ARGUMENTS`` exist and have values of their kind; nothing is built.

    Raises:
        ConfigError: the sentence of ``jqlight fit``.
    """
    _Parsed("fit", arguments)
