"""Model and data of a config, built but not run, for the commands that evaluate or show."""

from collections.abc import Sequence
from importlib import import_module
from typing import Any

from lightning.pytorch import Trainer

from jqlight import config_errors, quiet, settings
from jqlight.benchmarks import Benchmark
from jqlight.errors import ConfigError
from jqlight.estimators.base import Estimator
from jqlight.lightning_cli import RunCLI


class _Unrun(RunCLI):
    """A command line that builds model and data alone: no trainer, no run folder, nothing logged."""

    def instantiate_trainer(self, **kwargs: Any) -> Any:
        return None

    def _add_configure_optimizers_method_to_model(self, subcommand: str | None) -> None:
        return


def configured(verb: str, arguments: Sequence[str]) -> tuple[Estimator, Benchmark]:
    """Estimator and benchmark of a config with its overrides, the benchmark bound to the policy's tokens.

    Raises:
        ConfigError: as ``jqlight fit`` would, or a model or data class that is not jqlight's kind.
    """
    quiet.settle_imported()
    config_errors.check_files(arguments)
    for package in settings.ROOTS.values():
        import_module(package)
    config_errors.check_keys(arguments, Trainer)
    built = _Unrun(verb, arguments)
    if not isinstance(built.model, Estimator):
        raise ConfigError(f"model: given {type(built.model).__name__}, allowed is an estimator of jqlight")
    if not isinstance(built.datamodule, Benchmark):
        raise ConfigError(f"data: given {type(built.datamodule).__name__}, allowed is a Benchmark")
    return built.model, built.datamodule.bind(built.model.token_format)
