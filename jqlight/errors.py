"""Errors that a user can act on.

Each says what was given, what is allowed and what to do, and is also the standard-library error of its kind. The
command line prints them as one sentence with exit code 2 (:class:`ConfigError`, :class:`DataError`,
:class:`HubError`) or 1 (the rest); nothing else in the package catches them.
"""


class JQLightError(Exception):
    """Base of all errors raised on purpose by jqlight."""


class ConfigError(JQLightError, ValueError):
    """A setting, or a combination of settings, that cannot work. Names the config key."""


class DataError(JQLightError, ValueError):
    """A record or data file that cannot be read. Names file, record id and field."""


class HubError(JQLightError, OSError):
    """A model or data set that is neither a local path nor reachable on the hub. Names the ways on."""


class EngineError(JQLightError, RuntimeError):
    """The sampling engine cannot be started here, or its weights disagree with the trainer's."""


class NonFiniteError(JQLightError, FloatingPointError):
    """A NaN log-probability or gradient. Names the example's id; raised before the weights are touched."""
