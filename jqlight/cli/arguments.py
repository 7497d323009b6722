"""The argument parser of the small commands: a mistake is one sentence, like everywhere else."""

import argparse
import difflib
import re
from typing import Any, NoReturn

from jqlight.errors import ConfigError
from jqlight.names import meant


class CommandParser(argparse.ArgumentParser):
    """``argparse`` that raises ConfigError where it would print its usage and exit."""

    def __init__(self, verb: str, description: str) -> None:
        super().__init__(prog=f"jqlight {verb}", description=description, allow_abbrev=False)
        self._words: list[str] = []

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse ``args``, and keep them for :meth:`error`."""
        self._words = list(args or [])
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """Raise ``message`` as a ConfigError."""
        options = [word.partition("=")[0] for word in self._words if word.startswith("--")]
        unknown = [option for option in options if option not in self._option_string_actions and "." not in option]
        if choice := re.search(r"argument (\S+): invalid choice: '?([^']*)'? \(choose from (.*)\)", message):
            option, given, allowed = choice[1], choice[2], choice[3].replace("'", "")
            raise ConfigError(f"{option}: given {given}, allowed are {allowed}{meant(given, allowed.split(', '))}")
        near = difflib.get_close_matches(unknown[0], self._option_string_actions, n=1) if unknown else []
        hint = f"given {unknown[0]}, did you mean {near[0]}?" if near else f"`{self.prog} --help` lists the options"
        raise ConfigError(f"{message} ({hint})")
