"""The settings of a config as people write them: dotted keys, what was given where, and which ones exist."""

import dataclasses
import inspect
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml

ROOTS = {"model": "jqlight.estimators", "data": "jqlight.benchmarks"}
"""Config section -> package in which a bare class name is looked up."""
OWN_SECTIONS = ("optimizer", "lr_scheduler")
"""Settings of an estimator that a config gives in sections of their own."""


@dataclass(frozen=True)
class Given:
    """One setting that the user gave."""

    key: str
    """Dotted, without the words ``init_args``: ``model.policy.dtype``."""
    value: Any
    where: str
    """``in <the config file>`` or ``on the command line``."""


def config_files(arguments: Sequence[str]) -> list[Path]:
    """The files named by ``--config`` (or ``-c``), in order."""
    return [Path(str(given.value)) for given in _options(arguments) if given.key in ("config", "c")]


def _options(arguments: Sequence[str]) -> Iterator[Given]:
    words = list(arguments)
    for position, word in enumerate(words):
        if word.startswith("--") or word == "-c":
            name, equals, value = word.lstrip("-").partition("=")
            if not equals and position + 1 < len(words):
                value = words[position + 1]
            yield Given(short(name), value, "on the command line")


def short(key: str) -> str:
    """``model.init_args.q`` as ``model.q``."""
    return ".".join(part for part in key.split(".") if part != "init_args")


def given_settings(arguments: Sequence[str]) -> list[Given]:
    """Everything given: the files' settings in order, then the command line's; a later one replaces an earlier one."""
    settings = []
    for path in config_files(arguments):
        content = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else None
        if isinstance(content, Mapping):
            settings += [Given(key, value, f"in {path}") for key, value in _leaves(content)]
    return settings + [given for given in _options(arguments) if given.key not in ("config", "c")]


def _leaves(node: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in node.items():
        key = prefix.rstrip(".") if name == "init_args" else f"{prefix}{name}"
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{key}." if key else "")
        else:
            yield key, value


def chosen_class(section: str, settings: Sequence[Given]) -> type | None:
    """The class that the settings name for ``model`` or ``data``; None when there is none or it does not import."""
    names = [str(g.value) for g in settings if g.key in (section, f"{section}.class_path")]
    if not names:
        return None
    module, _, name = names[-1].rpartition(".")
    try:
        found = getattr(import_module(module or ROOTS[section]), name, None)
    except ImportError:
        return None
    return found if isinstance(found, type) else None


def parameters(owner: type) -> dict[str, Any]:
    """Name -> annotation of everything ``owner`` takes, its parents' included where it passes on ``**settings``."""
    found: dict[str, Any] = {}
    for cls in owner.__mro__:
        init = cls.__dict__.get("__init__")
        if init is None:
            continue
        hints = typing.get_type_hints(init)
        signature = inspect.signature(init).parameters
        for name, parameter in signature.items():
            packed = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
            if not packed and name not in ("self", *OWN_SECTIONS):
                found.setdefault(name, hints.get(name, Any))
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in signature.values()):
            break
    return found


def known_keys(prefix: str, owner: type) -> dict[str, bool]:
    """Dotted key -> whether anything may stand below it, for all settings of a class and of its dataclass settings."""
    known: dict[str, bool] = {}
    for name, annotation in parameters(owner).items():
        options = _options_of(annotation)
        nested = [option for option in options if isinstance(option, type) and dataclasses.is_dataclass(option)]
        known[f"{prefix}.{name}"] = not nested and any(_is_open(option) for option in options)
        for option in nested:
            known |= known_keys(f"{prefix}.{name}", option)
    return known


def _options_of(annotation: Any) -> tuple[Any, ...]:
    union = typing.get_origin(annotation) in (typing.Union, types.UnionType)
    return typing.get_args(annotation) if union else (annotation,)


def _is_open(option: Any) -> bool:
    closed = (int, float, str, bool, type(None))
    return option not in closed and typing.get_origin(option) is not typing.Literal
