"""Settings in YAML: config files with the files they are based on, and sweep files."""

import difflib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from jqlight.errors import ConfigError

SHIPPED = Path(__file__).parent / "assets"
"""Holds ``conf/`` and ``sweeps/``, the files that come with the package."""
BASE = "base"
"""Key of a config file that names the files it changes, relative to itself."""
_MOST_BYTES = 2**20
_MOST_VALUES = 200_000
_MOST_FILES = 100


def find_file(given: str, folder: str) -> Path:
    """The file that a user means: the one of that path, else the one of that name that comes with the package.

    Args:
        given: a path, or the name of a shipped file with or without ``.yaml`` (``quickstart``).
        folder: of shipped files, ``conf`` or ``sweeps``.
    """
    path = Path(given)
    name = path.relative_to(folder) if path.is_relative_to(folder) else path
    shipped = SHIPPED / folder / f"{str(name).removesuffix('.yaml')}.yaml"
    return shipped if len(name.parts) == 1 and not path.exists() and shipped.is_file() else path


def read_config(path: Path, above: tuple[Path, ...] = ()) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Each file that a config consists of, with its settings: those that it names as ``base`` in front of itself.

    Args:
        path: the config.
        above: the files that it is a base of.

    Raises:
        ConfigError: a file that is missing, is no YAML, holds no settings, or is based on itself; too many files.
    """
    for count, entry in enumerate(_read_bases(path, above)):
        if count == _MOST_FILES:
            raise ConfigError(
                f"config: {path} is based on more than {_MOST_FILES} files, each counted as often as named"
            )
        yield entry


def _read_bases(path: Path, above: tuple[Path, ...]) -> Iterator[tuple[Path, dict[str, Any]]]:
    whose = f" (base of {above[-1]})" if above else ""
    # Links too may lead round in a circle.
    if path in above or (path.exists() and os.path.realpath(path) in map(os.path.realpath, above)):
        raise ConfigError(f"config: {path} is based on itself{whose}; take it out of {BASE}")
    if len(above) > _MOST_FILES:
        raise ConfigError(f"config: {above[0]} stands on a chain of more than {_MOST_FILES} files as its {BASE}")
    content = _read_settings(path, whose)
    given = content.pop(BASE, None)
    bases = [given] if isinstance(given, str) else [] if given is None else given
    if not isinstance(bases, list) or not all(isinstance(base, str) and base.strip() for base in bases):
        raise ConfigError(f"config: {path}: {BASE}: given {given!r:.80}, allowed is a file or a list of files")
    for base in bases:
        yield from _read_bases(Path(os.path.normpath(path.parent / base)), (*above, path))
    yield path, content


def _read_settings(path: Path, whose: str) -> dict[str, Any]:
    if path.is_dir():
        raise ConfigError(f"config: {path} is a folder{whose}; give a file, such as {path / 'quickstart.yaml'}")
    if path.is_symlink() and not path.exists():
        raise ConfigError(f"config: {path} is a link that leads nowhere{whose}; give the file itself")
    if not path.exists():
        siblings = [p.name for p in path.parent.glob("*.y*ml")] if path.parent.is_dir() else []
        near = difflib.get_close_matches(path.name, siblings, n=1, cutoff=0.75)
        shipped = sorted(p.stem for p in (SHIPPED / "conf").glob("*.yaml"))
        meant = difflib.get_close_matches(path.stem, shipped, n=1, cutoff=0.75)
        hint = f"{f'did you mean {meant[0]}? ' if meant else ''}those that come with jqlight are {', '.join(shipped)}"
        if near:
            hint = f"did you mean {path.parent / near[0]}?"
        elif ":/" in str(path):
            hint = "addresses are not read: download it and give the file"
        raise ConfigError(f"config: {_cut(path)} does not exist{whose}; {hint}")
    content = read_yaml(path, f"config: {path}")
    if not isinstance(content, dict):
        kind = "nothing" if content is None else f"a {type(content).__name__}"
        raise ConfigError(f"config: {path} holds {kind}, allowed are settings as `key: value` (see conf/)")
    return {str(key): value for key, value in content.items()}


def _cut(path: Path) -> str:
    text = str(path)
    return text if len(text) <= 160 else f"{text[:157]}..."


class _Loader(yaml.SafeLoader):
    """YAML as people write it: ``1e-5`` is a number, dates and times are text; values are those that JSON has."""


def _without_times(pattern: re.Pattern[str]) -> re.Pattern[str]:
    return re.compile(f"(?![-+]?[0-9_]*:){pattern.pattern}", re.VERBOSE)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, _without_times(rule)) for tag, rule in rules if not tag.endswith(":timestamp")]
    for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
# Without what a config cannot hold: bytes, sets, pairs.
_Loader.yaml_constructors = {
    tag: make
    for tag, make in yaml.SafeLoader.yaml_constructors.items()
    if str(tag).rpartition(":")[2] not in ("binary", "set", "omap", "pairs", "timestamp")
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), [*"-+0123456789"]
)


def read_yaml(path: Path, what: str, broken: str = "is not YAML") -> Any:
    """Content of a YAML file of settings.

    Args:
        path: the file.
        what: what to call it in an error.
        broken: what to say of a file whose text cannot be read, in front of the place.

    Raises:
        ConfigError: no such file, no YAML, a key that is given twice, or more than any config holds.
    """
    try:
        if path.exists() and not path.is_file():
            raise ConfigError(f"{what} is no plain file; save what it holds as one, and give that")
        if path.stat().st_size > _MOST_BYTES:
            raise ConfigError(f"{what} holds {path.stat().st_size:,} bytes, allowed are {_MOST_BYTES:,}")
        loader = _Loader(path.read_text(encoding="utf-8-sig"))
        node = loader.get_single_node()
        if node is None:
            return None
        _check_node(node, what, {})
        return loader.construct_document(node)
    except ConfigError:
        raise
    except OSError as error:
        raise ConfigError(f"{what}: {error.strerror or error}; give the path of a YAML file") from error
    except RecursionError as error:
        raise ConfigError(f"{what} {broken} (nested too deep)") from error
    except (yaml.YAMLError, ValueError) as error:
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
        place = f"line {mark.line + 1}, column {mark.column + 1}: {problem}" if mark else str(error)
        raise ConfigError(f"{what} {broken} ({' '.join(place.split())})") from error


def _check_node(node: yaml.Node, what: str, sizes: dict[yaml.Node, int | None]) -> int:
    """Nodes below ``node``, aliases written out: refuses a key given twice, and what is too large or holds itself."""
    if node in sizes:
        size = sizes[node]
    elif isinstance(node, yaml.ScalarNode):
        size = sizes[node] = 1
    else:
        sizes[node] = None
        children = node.value
        if isinstance(node, yaml.MappingNode):
            lines: dict[str, int] = {}
            for key, _ in node.value:
                line = key.start_mark.line + 1
                if isinstance(key, yaml.ScalarNode) and key.value in lines:
                    raise ConfigError(
                        f"{what}: {key.value:.80} is given twice, in lines {lines[key.value]} and {line}; keep one"
                    )
                if isinstance(key, yaml.ScalarNode):
                    lines[key.value] = line
            children = [child for pair in node.value for child in pair]
        size = sizes[node] = 1 + sum(_check_node(child, what, sizes) for child in children)
    if size is None or size > _MOST_VALUES:
        raise ConfigError(f"{what} holds more than {_MOST_VALUES:,} values when its aliases are written out")
    return size
