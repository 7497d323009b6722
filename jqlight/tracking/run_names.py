"""What a run, a sweep or an experiment may be called."""

import unicodedata

from jqlight.errors import ConfigError

LONGEST_NAME = 100
_PUNCTUATION = frozenset("._-+=,@#() ")
_JOINERS = frozenset("\u200c\u200d")
"""Invisible, but part of the spelling of some scripts; what else cannot be seen, or reorders text, is no name."""


def check_name(key: str, name: str) -> None:
    """Check the name of a run, sweep or experiment: what becomes a folder, a label and a search term.

    Letters of every script, digits, and ``. _ - + = , @ # ( )`` and blanks inside; the first is no dot.

    Raises:
        ConfigError: names the key, the name and what is allowed.
    """
    if not 1 <= len(name) <= LONGEST_NAME or name != name.strip() or name.startswith(".") or not all(map(_fits, name)):
        shown = name if len(name) <= LONGEST_NAME else name[:60] + "..."
        raise ConfigError(
            f"{key}: given {shown!r}, allowed are letters, digits, blanks inside and . _ - + = , @ # ( ), "
            f"1 to {LONGEST_NAME} characters that do not begin with a dot"
        )


def check_experiment(key: str, name: str) -> None:
    """Check an experiment's name, see :func:`check_name`; a Databricks workspace path (``/Users/me/x``) is one too."""
    for part in name[1:].split("/") if name.startswith("/") else [name]:
        check_name(key, part)


def _fits(character: str) -> bool:
    return unicodedata.category(character)[0] in "LNM" or character in _PUNCTUATION or character in _JOINERS
