"""The argument parser of the small commands: a mistake is one sentence, like everywhere else."""

import argparse
from typing import NoReturn

from jqlight.errors import ConfigError


class CommandParser(argparse.ArgumentParser):
    """``argparse`` that raises ConfigError where it would print its usage and exit."""

    def __init__(self, verb: str, description: str) -> None:
        super().__init__(prog=f"jqlight {verb}", description=description, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """Raise ``message`` as a ConfigError."""
        raise ConfigError(f"{message} (`{self.prog} --help` lists the options)")
