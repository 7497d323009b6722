"""Sweep files: one YAML that names a base config and the axes to vary, read into a list of points.

::

    base: ../conf/quickstart.yaml       # next to the sweep file or in the working folder; a list is merged in order
    experiment: quickstart_q            # MLflow experiment
    overrides: {trainer.max_steps: 60}  # for every point
    grid:                               # every combination; any config key, or q, estimator, benchmark, scenario, seed
      q: [0.0, 0.5, 1.0, {splice: 0.05}]
      seed: [0, 1, 2]
    points:                             # each of these is run with every combination of the grid
      - {estimator: GARL}
      - {estimator: PAFT}
    exclude:                            # points that match all keys of an entry are left out
      - {estimator: PAFT, q: 0.0}
    include:                            # further points, outside the grid; a list means one point per value
      - {estimator: GRPO, seed: [0, 1, 2]}
    test: true                          # then score the best checkpoint on the test split
    published:                          # numbers to compare with, see jqlight.report.published
"""

import hashlib
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from jqlight.config_files import find_file, read_yaml
from jqlight.errors import ConfigError
from jqlight.sweep.keys import BASE, arguments, canonical, canonical_value, has_q, in_order, point_name
from jqlight.tracking.run_names import check_experiment, check_name

_KEYS = (
    "base",
    "experiment",
    "name",
    "description",
    "overrides",
    "grid",
    "points",
    "include",
    "exclude",
    "test",
    "published",
)

_MOST_POINTS = 5_000
_LONGEST_PATH = 250

Settings = dict[str, Any]


@dataclass(frozen=True)
class Point:
    """One run of a sweep."""

    name: str
    """Unique in the sweep; also the name of its folder and of its MLflow run."""
    settings: Settings
    """Canonical key -> value of the axes that this point sets."""


@dataclass(frozen=True)
class Sweep:
    """A sweep file, read and checked."""

    name: str
    """The sweep's folder under the runs folder: ``name``, else the file's name without its ending."""
    path: Path
    base: tuple[Path, ...]
    """Config files of ``jqlight fit``, merged in order; a point may set its own."""
    experiment: str
    points: tuple[Point, ...]
    overrides: Settings = field(default_factory=dict)
    """Canonical settings of every point; a point's own settings win."""
    test: bool = False
    """Whether each point ends with ``jqlight test`` of its best checkpoint."""
    published: Mapping[str, Any] | None = None
    """The file's ``published`` section as written."""

    def settings(self, point: Point) -> Settings:
        """All settings of ``point``: the overrides with the point's own on top."""
        return {**self.overrides, **point.settings}

    def configs(self, point: Point) -> tuple[Path, ...]:
        """The base configs of ``point``."""
        return (Path(point.settings[BASE]),) if BASE in point.settings else self.base

    def fit_arguments(self, point: Point) -> list[str]:
        """Arguments of ``jqlight fit`` for ``point``: the base configs and its settings."""
        configs = [text for path in self.configs(point) for text in ("--config", str(path))]
        return configs + arguments(self.settings(point))

    def axes(self) -> list[str]:
        """Canonical keys that the points set, in the order in which tables show them."""
        return in_order(dict.fromkeys(key for point in self.points for key in point.settings))


def read_sweep(path: str | Path, overrides: Mapping[str, Any] | None = None, name: str | None = None) -> Sweep:
    """The sweep of a file.

    Args:
        path: the YAML file, or the name of a shipped one.
        overrides: settings from the command line, on top of the file's own ``overrides``.
        name: another name for the sweep's folder.

    Raises:
        ConfigError: a missing file, an unknown section, or a setting that cannot work; names file and section.
    """
    path = find_file(str(path), "sweeps")
    content = _load(path)
    if unknown := [key for key in content if key not in _KEYS]:
        raise ConfigError(f"{path}: given section {unknown[0]!r}, allowed are {', '.join(_KEYS)}")
    shared = _settings(content.get("overrides") or {}, f"{path}: overrides")
    shared |= _settings(overrides or {}, "command line")
    points = _points(content, path)
    fixed = [key for key in (overrides or {}) if any(canonical(key, "") in point for point in points)]
    if fixed:
        raise ConfigError(f"command line: --{fixed[0]} is an axis of {path}, whose points set it; change the file")
    sweep_name = str(name or content.get("name") or path.stem)
    check_name(f"{path}: name" if name is None else "--name", sweep_name)
    check_experiment(f"{path}: experiment", str(content.get("experiment") or path.stem))
    return Sweep(
        name=sweep_name,
        path=path,
        base=_base(content, points, path),
        experiment=str(content.get("experiment") or path.stem),
        points=_named(points),
        overrides=shared,
        test=_test(content.get("test", False), path),
        published=content.get("published"),
    )


def _load(path: Path) -> dict[str, Any]:
    content = read_yaml(path, f"sweep file {path}", "is not readable as YAML")
    if not isinstance(content, dict):
        given = "nothing" if content is None else f"a {type(content).__name__}"
        raise ConfigError(f"sweep file {path}: given {given}, allowed is a mapping with {', '.join(_KEYS)}")
    return {str(key): value for key, value in content.items()}


def _test(given: Any, path: Path) -> bool:
    if not isinstance(given, bool):
        raise ConfigError(f"{path}: test: given {given!r}, allowed is true or false")
    return given


def _base(content: Mapping[str, Any], points: list[Settings], path: Path) -> tuple[Path, ...]:
    given = content.get("base")
    for point in points:
        if BASE in point:
            point[BASE] = str(_existing(point[BASE], path))
        elif not given:
            raise ConfigError(f"{path}: base is missing; name the runs' config, such as base: ../conf/quickstart.yaml")
    return tuple(_existing(entry, path) for entry in (given if isinstance(given, list) else [given] if given else []))


def _existing(given: Any, path: Path) -> Path:
    if len(str(given)) > _LONGEST_PATH:
        raise ConfigError(f"{path}: base: given a text of {len(str(given))} characters, allowed is a file's path")
    candidates = [path.parent / str(given), Path(str(given))]
    existing = next((candidate for candidate in candidates if candidate.is_file()), None)
    if existing is None:
        tried = " and ".join(str(candidate) for candidate in dict.fromkeys(candidates))
        raise ConfigError(f"{path}: base: given {given}, but there is no file at {tried}")
    return Path(os.path.normpath(existing))


def _points(content: Mapping[str, Any], path: Path) -> list[Settings]:
    grids = [
        combination
        for axes in _entries(content, "grid", path, one_allowed=True) or [{}]
        for combination in _combinations(axes, f"{path}: grid")
    ]
    rows = [
        row for entry in _entries(content, "points", path) or [{}] for row in _combinations(entry, f"{path}: points")
    ]
    _check_count(len(rows) * len(grids), f"{path}: points x grid")
    crossed = []
    for row, combination in product(rows, grids):
        if both := row.keys() & combination.keys():
            raise ConfigError(f"{path}: {sorted(both)[0]} is set by grid and by points; keep it in one of them")
        crossed.append({**row, **combination})
    given = "grid" in content or "points" in content
    kept = _without(crossed if given else [], _entries(content, "exclude", path), path)
    for entry in _entries(content, "include", path):
        kept += _combinations(entry, f"{path}: include")
    if not kept:
        raise ConfigError(f"{path}: no points; name axes under grid, points or include")
    without_q = [
        {key: value for key, value in point.items() if key != "q" or has_q(point.get("estimator"))} for point in kept
    ]
    return [point for number, point in enumerate(without_q) if point not in without_q[:number]]


def _entries(
    content: Mapping[str, Any], section: str, path: Path, one_allowed: bool = False
) -> list[Mapping[str, Any]]:
    given = content.get(section) or []
    entries = [given] if one_allowed and isinstance(given, Mapping) else given
    if not isinstance(entries, list) or not all(isinstance(entry, Mapping) for entry in entries):
        raise ConfigError(f"{path}: {section}: given {given!r}, allowed is a list of mappings, key to value")
    return entries


def _settings(given: Mapping[str, Any], where: str) -> Settings:
    if not isinstance(given, Mapping):
        raise ConfigError(f"{where}: given {given!r}, allowed is a mapping, config key to value")
    settings = {}
    for key, value in given.items():
        name = canonical(key, where)
        settings[name] = canonical_value(name, value, f"{where}: {key}")
    return settings


def _combinations(entry: Mapping[str, Any], where: str) -> list[Settings]:
    axes: dict[str, list[Any]] = {}
    for key, values in entry.items():
        name = canonical(key, where)
        if name in axes:
            raise ConfigError(f"{where}: {key} names the axis {name} a second time; keep one")
        if values == []:
            raise ConfigError(f"{where}: {key}: given no value, allowed is one or more")
        listed = values if isinstance(values, list) else [values]
        axes[name] = [canonical_value(name, value, f"{where}: {key}") for value in listed]
    _check_count(math.prod(len(values) for values in axes.values()), where)
    return [dict(zip(axes, values)) for values in product(*axes.values())]


def _check_count(count: int, where: str) -> None:
    if count > _MOST_POINTS:
        raise ConfigError(f"{where}: gives {count:,} points, allowed are {_MOST_POINTS:,}: each is a run of its own")


def _without(points: list[Settings], rules: list[Mapping[str, Any]], path: Path) -> list[Settings]:
    kept = points
    for rule in rules:
        patterns = _combinations(rule, f"{path}: exclude")
        remaining = [point for point in kept if not any(_matches(point, pattern) for pattern in patterns)]
        if len(remaining) == len(kept):
            raise ConfigError(f"{path}: exclude: {dict(rule)!r} matches no point of the grid; correct or remove it")
        kept = remaining
    return kept


def _matches(point: Settings, pattern: Settings) -> bool:
    return all(key in point and point[key] == value for key, value in pattern.items())


def _named(points: list[Settings]) -> tuple[Point, ...]:
    axes = list(dict.fromkeys(key for point in points for key in point))
    names = [point_name(point, axes) for point in points]
    # Values that look alike as a file name (two paths, say) are distinguished by a hash of the settings, which is the
    # same when other points come or go.
    return tuple(
        Point(f"{name}-{_digest(point)}" if names.count(name) > 1 else name, point)
        for name, point in zip(names, points)
    )


def _digest(settings: Settings) -> str:
    return hashlib.blake2b(repr(sorted(settings.items(), key=lambda item: item[0])).encode(), digest_size=3).hexdigest()
