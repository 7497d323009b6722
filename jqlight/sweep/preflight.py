"""A sweep's settings are read as ``jqlight fit`` will read them before anything is started."""

from importlib import import_module

from lightning.pytorch import Trainer

from jqlight import config_errors, quiet, settings
from jqlight.errors import ConfigError
from jqlight.lightning_cli import RunCLI
from jqlight.sweep.file import Sweep


class _Parsed(RunCLI):
    """A command line that is read and checked alone: nothing is seeded or built."""

    def _set_seed(self) -> None:
        return

    def instantiate_classes(self) -> None:
        return

    def _add_configure_optimizers_method_to_model(self, subcommand: str | None) -> None:
        return


def check_points(sweep: Sweep) -> None:
    """Check the settings of every point: that they exist and have values of their kind. About 0.2 s a point.

    What a class itself refuses (a folder that is not there, too few rollouts) is left to the point, which may run on
    another machine.

    Raises:
        ConfigError: the sentence of ``jqlight fit``, behind the point's name.
    """
    quiet.settle_imported()
    for package in settings.ROOTS.values():
        import_module(package)
    for point in sweep.points:
        arguments = sweep.fit_arguments(point)
        try:
            config_errors.check_files(arguments)
            config_errors.check_keys(arguments, Trainer)
            _Parsed("fit", arguments)
        except ConfigError as error:
            # The point's command line is not one that the user typed.
            sentence = str(error).replace(" on the command line", "")
            raise ConfigError(f"{sweep.path}, point {point.name}: {sentence}") from error
