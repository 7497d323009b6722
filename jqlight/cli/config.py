"""A command line, read once: its files with their bases, what was given where, and which settings exist."""

import dataclasses
import inspect
import json
import types
import typing
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml
from docstring_parser import parse_from_object

from jqlight.config_files import find_file, read_config
from jqlight.errors import ConfigError
from jqlight.tracking.run_folder import located, saved_config

ROOTS = {"model": "jqlight.estimators", "data": "jqlight.benchmarks"}
"""Config section -> package in which a bare class name is looked up."""
OWN_SECTIONS = ("optimizer", "lr_scheduler")
"""Settings of an estimator that a config gives in sections of their own."""
_COMMAND_LINE = "on the command line"


@dataclass(frozen=True)
class GivenSetting:
    """One setting that the user gave."""

    key: str
    """Dotted, without the words ``init_args``: ``model.policy.dtype``."""
    value: Any
    source: str
    """``in <the config file>`` or ``on the command line``."""


@dataclass(frozen=True)
class CommandLine:
    """What follows the verb, read and taken apart."""

    words: list[str]
    """Options for the parser: a file's bases are files of their own in front of it."""
    files: dict[str, dict[str, Any]]
    """Path as it stands in ``words`` -> content, without ``base``."""
    settings: list[GivenSetting]
    """The files' settings in order, then the command line's; a later one replaces an earlier one."""

    @property
    def asks_help(self) -> bool:
        """Whether help is all that is asked for."""
        return bool({"-h", "--help"} & set(self.words))


def read_command_line(arguments: Sequence[str]) -> CommandLine:
    """Every file and option of a command line; a checkpoint alone brings the config of its run.

    Raises:
        ConfigError: a file that is missing, is no YAML, or holds no settings.
    """
    line = CommandLine([], {}, [])
    options: list[GivenSetting] = []
    words = deque(arguments)
    while words:
        word = words.popleft()
        name, equals, value = word.lstrip("-").partition("=")
        if not equals and words:
            value = words[0]
        if name in ("config", "c") and word.startswith("-") and value and not value.startswith("--"):
            if not equals:
                words.popleft()
            _add_file(line, find_file(value, "conf"))
            continue
        line.words.append(word)
        if word.startswith("--"):
            options.append(GivenSetting(short(name), value, _COMMAND_LINE))
    if not line.files and (saved := _config_of_run(options)):
        typed = len(line.words)
        _add_file(line, saved, of_run=True)
        line.words[:] = line.words[typed:] + line.words[:typed]
    line.settings.extend(options)
    return line


def _config_of_run(options: Sequence[GivenSetting]) -> Path | None:
    """The config that the run of ``--ckpt_path`` has saved; None where none is given or found."""
    given = {option.key: str(option.value) for option in options}
    checkpoint, folder = given.get("ckpt_path"), given.get("run_dir")
    if checkpoint and checkpoint not in ("last", "best") and (beside := saved_config(Path(checkpoint))):
        return beside
    saved = Path(folder) / "config.yaml" if checkpoint and folder else None
    return saved if saved and saved.is_file() else None


def _add_file(line: CommandLine, config: Path, *, of_run: bool = False) -> None:
    for path, content in read_config(config):
        if of_run:
            _locate(content, path.parent)
        line.files[str(path)] = content
        line.words.extend(["--config", str(path)])
        line.settings.extend(GivenSetting(key, value, f"in {path}") for key, value in _leaves(content))


def _locate(content: Mapping[str, Any], folder: Path) -> None:
    """Let the paths of model and data in the config of the run in ``folder`` lead where they led then."""
    for keys in (("model", "init_args", "policy", "name_or_path"), ("data", "init_args", "path")):
        node: Any = content
        for key in keys[:-1]:
            node = node.get(key) if isinstance(node, dict) else None
        if isinstance(node, dict) and isinstance(node.get(keys[-1]), str):
            node[keys[-1]] = located(node[keys[-1]], folder)


def short(key: str) -> str:
    """``model.init_args.q`` as ``model.q``."""
    return ".".join(part for part in key.split(".") if part != "init_args")


def _leaves(node: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in node.items():
        key = prefix.rstrip(".") if name == "init_args" else f"{prefix}{name}"
        if name == "init_args" and not isinstance(value, Mapping):
            shown = "null" if value is None else f"{value!r:.80}"
            raise ConfigError(f"{prefix}init_args: given {shown}, allowed are settings as `key: value`")
        if name == "init_args" and not value:
            continue
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{key}." if key else "")
        else:
            yield key, value


def chosen_class(section: str, settings: Sequence[GivenSetting]) -> type | None:
    """The class that the settings name for ``model`` or ``data``; None when there is none or it does not import."""
    names = [str(g.value) for g in settings if g.key in (section, f"{section}.class_path")]
    return find_class(section, names[-1]) if names else None


def find_class(section: str, name: str) -> type | None:
    """The class of an import path, a bare name being jqlight's own; None when there is none or it does not import."""
    return load_class(name, ROOTS[section])


def load_class(path: str, *homes: str) -> type | None:
    """The class of an import path, a bare name being that of the first module of ``homes`` that has it; else None."""
    module, _, name = path.rpartition(".")
    for home in (module,) if module else homes:
        try:
            found = getattr(import_module(home), name, None)
        except (ImportError, TypeError, ValueError):  # the last two: a relative or an empty path
            continue
        if isinstance(found, type):
            return found
    return None


@dataclass(frozen=True)
class Setting:
    """A setting that exists."""

    key: str
    default: Any
    """``inspect.Parameter.empty`` where it must be given."""
    meaning: str
    is_open: bool
    """Whether anything may stand below it."""
    is_group: bool = False
    """Whether it is a record whose own settings follow."""
    is_text: bool = False
    """Whether it takes a text and nothing else, null aside."""
    takes_null: bool = True
    """Whether null is one of its values."""
    choices: tuple[str, ...] = ()
    """The words that it takes, where there are but these and a number or a text at most beside them."""


@cache
def settings_of(prefix: str, owner: type) -> tuple[Setting, ...]:
    """Every setting of a class, those of its dataclass settings behind a dot."""
    found: list[Setting] = []
    meanings = _meanings(owner)
    for name, parameter in parameters(owner).items():
        key, options = f"{prefix}.{name}", _options_of(parameter.annotation)
        records = [option for option in options if isinstance(option, type) and dataclasses.is_dataclass(option)]
        is_open = not records and any(map(_is_open, options))
        is_text = str in options and set(options) <= {str, type(None)}
        null = parameter.default is None or any(option in (Any, type(None)) for option in options)
        meaning, default = meanings.get(name, ""), _default(owner, parameter)
        found.append(Setting(key, default, meaning, is_open, bool(records), is_text, null, _choices(options)))
        for record in records:
            found += settings_of(key, record)
    return tuple(found)


def _default(owner: type, parameter: inspect.Parameter) -> Any:
    fields = {field.name: field for field in dataclasses.fields(owner)} if dataclasses.is_dataclass(owner) else {}
    made = fields[parameter.name].default_factory if parameter.name in fields else None
    return made() if callable(made) else parameter.default


def with_literal_texts(line: CommandLine) -> list[str]:
    """The words of ``line`` with texts such as ``[[ {answer} ]]`` as configs: options would be read as lists."""
    classes = {section: chosen_class(section, line.settings) for section in ROOTS}
    texts = {s.key for root, owner in classes.items() if owner for s in settings_of(root, owner) if s.is_text}
    taken, rest = list[str](), deque(line.words)
    while rest:
        word = rest.popleft()
        name, equals, value = word.removeprefix("--").partition("=")
        if word.startswith("--") and short(name) in texts and (equals or rest):
            value = value if equals else rest.popleft()
            if not isinstance(read_value(value), str | None):
                section, *path = short(name).split(".")
                content: Any = value
                for part in reversed(path):
                    content = {part: content}
                taken += ["--config", json.dumps({section: {"init_args": content}})]
            else:
                taken += [word] if equals else [word, value]
        else:
            taken.append(word)
    return taken


def read_value(text: str) -> Any:
    """What a word of the command line is as YAML; the text itself where it is none."""
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def parameters(owner: type) -> dict[str, inspect.Parameter]:
    """All that ``owner`` takes by name, its parents' included where it passes on ``**settings``."""
    found: dict[str, inspect.Parameter] = {}
    for cls in owner.__mro__[:-1]:
        init = cls.__dict__.get("__init__")
        if init is None:
            continue
        try:
            hints = typing.get_type_hints(init)
        except NameError:  # names that a class of the user's imports for type checkers alone
            hints = {}
        signature = inspect.signature(init).parameters
        for name, parameter in signature.items():
            if name not in ("self", *OWN_SECTIONS, *getattr(owner, "decided", ())) and parameter.kind not in (
                parameter.VAR_POSITIONAL,
                parameter.VAR_KEYWORD,
            ):
                found.setdefault(name, parameter.replace(annotation=hints.get(name, Any)))
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in signature.values()):
            break
    return found


def _meanings(owner: type) -> dict[str, str]:
    """Parameter -> its documentation, from the docstrings of the class and its parents."""
    found: dict[str, str] = {}
    for cls in owner.__mro__[:-1]:
        if cls.__module__.split(".")[0] not in ("torch", "lightning"):
            for entry in parse_from_object(cls).params:
                found.setdefault(entry.arg_name, entry.description or "")
    return found


def _options_of(annotation: Any) -> tuple[Any, ...]:
    union = typing.get_origin(annotation) in (typing.Union, types.UnionType)
    return typing.get_args(annotation) if union else (annotation,)


def _choices(options: tuple[Any, ...]) -> tuple[str, ...]:
    words = [
        word for option in options if typing.get_origin(option) is typing.Literal for word in typing.get_args(option)
    ]
    return tuple(str(word) for word in [*words, *(("true", "false") if bool in options else ())])


def _is_open(option: Any) -> bool:
    closed = (int, float, str, bool, type(None))
    return option not in closed and typing.get_origin(option) is not typing.Literal
