"""Classes that a config names: those in lists, whose settings no section has, and the nearest to one that is not there.

Nothing is built here, and no module is imported but those of jqlight, torch and Lightning.
"""

import difflib
import inspect
import pkgutil
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from types import ModuleType
from typing import Any, NamedTuple

from jqlight.cli.config import ROOTS, GivenSetting, load_class, read_value

HOMES = {
    **ROOTS,
    "optimizer": "torch.optim",
    "lr_scheduler": "torch.optim.lr_scheduler",
    "trainer.callbacks": "lightning.pytorch.callbacks",
    "trainer.logger": "lightning.pytorch.loggers",
    "trainer.strategy": "lightning.pytorch.strategies",
}
"""Setting that takes a class -> where its classes usually come from."""
_FIRST = {"lr_scheduler": ("lightning.pytorch.cli",)}
"""Where a name alone is looked for before: Lightning's schedule on a plateau needs a monitor."""
_LIBRARIES = ("jqlight", "torch", "lightning")


class GivenClass(NamedTuple):
    """A class that the settings name, with the settings that they give it."""

    key: str
    path: str
    settings: Mapping[str, Any]


def given_classes(settings: Sequence[GivenSetting]) -> Iterator[GivenClass]:
    """The classes of :data:`HOMES`' settings, the last given first, those of lists one by one."""
    for given in reversed(settings):
        key = given.key.removesuffix("+").removesuffix(".class_path")
        if key not in HOMES:
            continue
        value = read_value(given.value) if isinstance(given.value, str) else given.value
        own = {g.key.removeprefix(f"{key}."): g.value for g in settings if g.key.startswith(f"{key}.")}
        for entry in value if isinstance(value, list) else [value]:
            if isinstance(entry, Mapping) and "class_path" in entry:
                inner = entry.get("init_args")
                yield GivenClass(key, str(entry["class_path"]), inner if isinstance(inner, Mapping) else {})
            elif isinstance(entry, str):
                yield GivenClass(key, entry, own)


def find(given: GivenClass) -> type | None:
    """The class; None where there is none."""
    return load_class(given.path, *_FIRST.get(given.key, ()), HOMES[given.key])


def owner(leaf: str, settings: Sequence[GivenSetting]) -> GivenClass | None:
    """The class outside of model and data that is given ``leaf``, or needs it and has it not; None where none is."""
    for given in given_classes(settings):
        if given.key in ROOTS:
            continue
        if leaf in given.settings:
            return given
        found = find(given)
        try:
            needed = inspect.signature(found).parameters.get(leaf) if found else None
        except (TypeError, ValueError):  # classes written in C have none
            needed = None
        if needed is not None and needed.default is needed.empty:
            return given
    return None


def missing(key: str, settings: Sequence[GivenSetting]) -> str | None:
    """The first class given for ``key`` that is not there."""
    return next((given.path for given in given_classes(settings) if given.key == key and find(given) is None), None)


def nearest(path: str, home: str = "") -> str:
    """``; did you mean PATH?``, the path of something that is there and spelled alike; empty where nothing is.

    Args:
        path: a class's import path, or its name alone.
        home: module in which a name alone is looked for.
    """
    *modules, last = path.split(".") if "." in path else [*home.split("."), path]
    found: list[str] = []
    node: ModuleType | None = None
    for part in modules:
        names = set(_LIBRARIES) if node is None else {entry.name for entry in pkgutil.iter_modules(_folders(node))}
        near = [part] if part in names else difflib.get_close_matches(part, names, n=1, cutoff=0.7)
        if not near:
            return ""
        found += near
        try:
            node = import_module(".".join(found))
        except ImportError:
            return ""
    names = {name for name, value in vars(node).items() if isinstance(value, type)}
    by_lower = {name.lower(): name for name in sorted(names)}
    close = difflib.get_close_matches(last.lower(), by_lower, n=1, cutoff=0.7)
    name = last if last in names else by_lower[close[0]] if close else ""
    result = ".".join([*found, name]) if "." in path else name
    return f"; did you mean {result}?" if name and result != path else ""


def _folders(module: ModuleType) -> list[str]:
    return list(getattr(module, "__path__", []))
