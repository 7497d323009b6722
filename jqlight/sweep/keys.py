"""Names of settings: what a sweep file may call a config key, and how ``jqlight fit`` is told about it.

An axis is any config key. The five that a sweep is usually about have short names (:data:`SHORT`), and the long
spellings (``model.init_args.q``, ``model.q``) mean the same axis, so that tables and file names agree.
"""

import inspect
import json
import re
from collections.abc import Iterable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from jqlight.errors import ConfigError
from jqlight.names import BENCHMARKS, ESTIMATORS, format_value

SHORT = {
    "benchmark": "data",
    "scenario": "data.scenario",
    "estimator": "model",
    "q": "model.q",
    "seed": "seed_everything",
}
"""Short axis name -> option of ``jqlight fit``, in the order in which tables and run names show them."""

BASE = "base"
"""The axis of base configs: a point that sets it runs on that config instead of the sweep's."""

COMMITMENTS = {
    "splice": ("jqlight.objective.Splice", "tau"),
    "step": ("jqlight.schedules.Step", "steps"),
    "linear": ("jqlight.schedules.Linear", "steps"),
    "cosine": ("jqlight.schedules.Cosine", "steps"),
}
"""Short name of a commitment that is not a number -> its class and the argument that a bare number means."""

_OPTION = {"data.class_path": "data", "model.class_path": "model"}
_AXIS = {option: short for short, option in SHORT.items()}
_PACKAGES = {"estimator": ("jqlight.estimators", ESTIMATORS), "benchmark": ("jqlight.benchmarks", BENCHMARKS)}
_PREFIX = {BASE: "", "benchmark": "", "scenario": "", "estimator": "", "q": "q", "seed": "seed"}
_LONGEST_LABEL = 40


def canonical(key: str, where: str) -> str:
    """The one name of a config key: a short name of :data:`SHORT`, else the option of ``jqlight fit`` without dashes.

    Args:
        key: as written in a sweep file or on the command line, such as ``model.init_args.q``.
        where: what to call the place in an error.

    Raises:
        ConfigError: neither a short name nor a dotted config key.
    """
    if key in SHORT or key == BASE:
        return key
    option = str(key).replace(".init_args.", ".", 1)
    option = _OPTION.get(option, option)
    if option in _AXIS:
        return _AXIS[option]
    if "." not in option:
        allowed = ", ".join([BASE, *SHORT])
        raise ConfigError(f"{where}: given {key!r}, allowed is {allowed} or a config key such as trainer.max_steps")
    return option


def canonical_value(key: str, value: Any, where: str) -> Any:
    """The one spelling of a setting's value, so that equal points are equal.

    Args:
        key: from :func:`canonical`.
        value: as read from YAML.
        where: what to call the place in an error.

    Raises:
        ConfigError: an unknown estimator or benchmark, or a q that is neither in [0, 1] nor a commitment.
    """
    if key in _PACKAGES:
        return _class_name(key, value, where)
    if key == "q":
        return _commitment(value, where)
    if key == "seed" and (isinstance(value, bool) or not isinstance(value, int)):
        raise ConfigError(f"{where}: given {value!r}, allowed is a whole number")
    return value


def arguments(settings: Mapping[str, Any]) -> list[str]:
    """Options of ``jqlight fit`` for canonical settings; classes first, since they decide which others exist."""
    classes = [key for key in ("benchmark", "estimator") if key in settings]
    rest = [key for key in settings if key not in classes and key != BASE]
    options: list[str] = []
    for key in [*classes, *rest]:
        value = settings[key]
        if key in _PACKAGES and "." not in value:
            value = f"{_PACKAGES[key][0]}.{value}"
        options += [f"--{SHORT.get(key, key)}", value if isinstance(value, str) else json.dumps(value)]
    return options


def has_q(estimator: str | None) -> bool:
    """Whether a point may set q: one of an estimator that takes no q drops that axis."""
    if estimator not in ESTIMATORS:
        return True
    found = getattr(import_module("jqlight.estimators"), estimator)
    return any("q" in inspect.signature(cls.__init__).parameters for cls in found.__mro__)


def point_name(settings: Mapping[str, Any], axes: list[str]) -> str:
    """Name of a point, usable as a folder: base config, then its axes in the order of :data:`SHORT`, seed last.

    Args:
        settings: canonical settings of the point.
        axes: canonical keys that this sweep varies.
    """
    parts = []
    for key in in_order(axes):
        if key not in settings:
            continue
        value = Path(settings[key]).stem if key == BASE else format_value(settings[key])
        text = re.sub(r"[^A-Za-z0-9._+]+", "-", value).strip("-")[-_LONGEST_LABEL:]
        parts.append(_PREFIX.get(key, f"{key.rsplit('.', 1)[-1]}=") + text)
    return "-".join(parts).lstrip(".") or "point"


def in_order(axes: Iterable[str]) -> list[str]:
    """Canonical keys in the order in which tables and names show them."""
    given = list(axes)
    first = [key for key in [BASE, *SHORT] if key in given and key != "seed"]
    return [*first, *(key for key in given if key not in (*first, "seed")), *(["seed"] if "seed" in given else [])]


def _class_name(key: str, value: Any, where: str) -> str:
    package, names = _PACKAGES[key]
    if isinstance(value, str):
        bare = value.removeprefix(f"{package}.")
        if bare in names or re.fullmatch(r"\w+(\.\w+)+", bare):
            return bare
    raise ConfigError(
        f"{where}: given {value!r}, allowed is {', '.join(names)} or a class path such as my_package.Mine"
    )


def _commitment(value: Any, where: str) -> Any:
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1:
        return float(value)
    if isinstance(value, Mapping) and "class_path" in value:
        return {"class_path": value["class_path"], "init_args": dict(value.get("init_args") or {})}
    if isinstance(value, Mapping) and len(value) == 1:
        name, given = next(iter(value.items()))
        if name in COMMITMENTS:
            class_path, argument = COMMITMENTS[name]
            return {
                "class_path": class_path,
                "init_args": dict(given) if isinstance(given, Mapping) else {argument: given},
            }
    names = ", ".join(f"{{{name}: {argument}}}" for name, (_, argument) in COMMITMENTS.items())
    raise ConfigError(f"{where}: given {value!r}, allowed is a number in [0, 1], {names} or a class_path")
