"""Mistakes in a config as one sentence each: the key, what was given, what is allowed."""

import difflib
import inspect
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningDataModule, LightningModule
from omegaconf.errors import OmegaConfBaseException

from jqlight.cli import classes
from jqlight.cli.config import OWN_SECTIONS, ROOTS, GivenSetting, Setting, chosen_class, read_value, settings_of
from jqlight.errors import ConfigError, JQLightError
from jqlight.names import BENCHMARKS, ESTIMATORS, meant

RUN_KEYS = (
    "seed_everything",
    "run_name",
    "run_dir",
    "experiment_name",
    "ckpt_path",
    "config",
    "print_config",
    "help",
    "checkpoint",
    "checkpoint.every_n_steps",
    "checkpoint.every_minutes",
)
"""Top-level settings that are no section."""
CLASSES = {"model": ESTIMATORS, "data": BENCHMARKS}
"""Config section -> the classes that come with jqlight."""
_DEFAULTS = {"trainer.logger": "that of a run is jqlight.tracking.logger.RunLogger"}
_KINDS = {"model": LightningModule, "data": LightningDataModule}

_TYPES = {
    "<class 'float'>": "a number",
    "<class 'int'>": "a whole number",
    "<class 'bool'>": "true or false",
    "<class 'str'>": "a text",
    "<class 'NoneType'>": "null",
    "<class 'dict'>": "a mapping",
    "<class 'list'>": "a list",
    "<class 'collections.abc.Iterable'>": "a list",
    "PositiveInt": "a whole number above 0",
    "PositiveFloat": "a number above 0",
    "<class 'torch.Tensor'>": "",
}


def check_keys(settings: Sequence[GivenSetting], trainer: type) -> None:
    """Check that every given setting exists, as far as jqlight's own classes and the trainer decide it.

    Raises:
        ConfigError: names the key, the value and the nearest key that exists.
    """
    for section, kind in _KINDS.items():
        chosen = chosen_class(section, settings)
        if chosen is not None and not issubclass(chosen, kind):
            raise ConfigError(_class_sentence(section, settings, f"which is no {kind.__name__}"))
        if chosen is not None and _is_ours(section, settings) and chosen.__name__ not in CLASSES[section]:
            raise ConfigError(_class_sentence(section, settings, "which others are made from and does nothing itself"))
    rows = _rows(settings, trainer)
    known = _known(settings, rows)
    for given in settings:
        _check_section(given)
        section = given.key.split(".")[0]
        if section in OWN_SECTIONS or (section in ROOTS and not _is_ours(section, settings)):
            continue
        if section in ROOTS and _outdated(given, section, settings):
            continue
        if not _exists(given.key, known):
            raise ConfigError(_unknown(given, known))
        if given.key in rows:
            _check_kind(given, rows[given.key])


def _check_section(given: GivenSetting) -> None:
    """Refuse what stands where a whole section should."""
    value = _read(given)
    if given.key in (*ROOTS, "trainer") and value is None:
        allowed = "leave it out for the defaults" if given.key == "trainer" else "give a class"
        raise ConfigError(f"{given.key}: given null {given.source}, allowed are its own settings; {allowed}")
    if given.key in (*ROOTS, *OWN_SECTIONS) and isinstance(value, str) and Path(value).suffix in (".yaml", ".yml"):
        raise ConfigError(f"{given.key}: given {_cut(value)}, allowed is a class; a file of settings goes to --config")
    named = isinstance(value, str) and given.key == "trainer"  # a file of its settings
    if given.key in ("trainer", "checkpoint") and not isinstance(value, dict) and not named:
        allowed = " and ".join(name for name in RUN_KEYS if name.startswith(f"{given.key}."))
        allowed = allowed or "its own settings, as in --trainer.KEY VALUE"
        raise ConfigError(f"{given.key}: given {_cut(given.value)}, allowed are {allowed}")


def _read(given: GivenSetting) -> Any:
    return read_value(given.value) if isinstance(given.value, str) and given.value else given.value


def _check_kind(given: GivenSetting, row: Setting) -> None:
    """Refuse null, and anything but settings for a group of them, where the parser would let it through."""
    value = given.value if row.is_text else _read(given)
    if value is None and not row.takes_null:
        default = "give a value" if row.default is inspect.Parameter.empty else "leave it out for the default"
        raise ConfigError(f"{given.key}: given null {given.source}, which it cannot be; {default}")
    interpolated = isinstance(value, str) and value.startswith("${")
    if row.is_group and value is not None and not interpolated and not isinstance(value, dict):
        raise ConfigError(
            f"{given.key}: given {_cut(given.value)}, allowed are its own settings, as in --{given.key}.KEY VALUE"
        )


def _outdated(given: GivenSetting, section: str, settings: Sequence[GivenSetting]) -> bool:
    """Whether another class was chosen after ``given``: a setting that only the earlier one has is dropped."""
    choices = [g for g in settings if g.key in (section, f"{section}.class_path")]
    return bool(choices) and given.source != choices[-1].source and settings.index(given) < settings.index(choices[-1])


def _is_ours(section: str, settings: Sequence[GivenSetting]) -> bool:
    chosen = chosen_class(section, settings)
    return chosen is not None and chosen.__module__.startswith("jqlight.")


def _rows(settings: Sequence[GivenSetting], trainer: type) -> dict[str, Setting]:
    """The settings of the trainer and of jqlight's own classes among the chosen; others' are theirs to read."""
    rows = list(settings_of("trainer", trainer))
    for section in ROOTS:
        chosen = chosen_class(section, settings)
        if chosen is not None and _is_ours(section, settings):
            rows += settings_of(section, chosen)
    return {row.key: row for row in rows}


def _known(settings: Sequence[GivenSetting], rows: Mapping[str, Setting]) -> dict[str, bool]:
    known = {**dict.fromkeys(RUN_KEYS, False), **dict.fromkeys(OWN_SECTIONS, True), "trainer": False, "h": False}
    for section in ROOTS:
        known |= {section: False, f"{section}.class_path": False, f"{section}.help": False}
    return known | {key: row.is_open or key in _OPEN_TRAINER for key, row in rows.items()}


_OPEN_TRAINER = ("trainer.logger", "trainer.callbacks", "trainer.strategy", "trainer.plugins", "trainer.profiler")


def _exists(key: str, known: dict[str, bool]) -> bool:
    key = key.removesuffix("+").removesuffix(".class_path")
    if key in known or any(name.startswith(f"{key}.") for name in known):
        return True
    parts = key.split(".")
    return any(known.get(".".join(parts[:end]), False) for end in range(1, len(parts)))


def _unknown(given: GivenSetting, known: Iterable[str]) -> str:
    parent = given.key.rpartition(".")[0]
    same_depth = [key for key in known if not given.key.startswith(f"{key}.")]
    near = difflib.get_close_matches(given.key, same_depth, n=1, cutoff=0.75)
    near = near or [key for key in RUN_KEYS if key.startswith(given.key)][:1]
    hidden = ("h", "help", "print_config", "class_path")
    siblings = sorted(k for k in known if k.rpartition(".")[0] == parent and k.rpartition(".")[2] not in hidden)
    if near:
        allowed = f"did you mean {near[0]}?"
    elif siblings and len(siblings) <= 20:
        allowed = f"allowed are {', '.join(siblings)}"
    else:
        allowed = "`jqlight fit --help` lists the settings"
    return f"{_cut(given.key)}: no such setting (given {_cut(given.value)} {given.source}); {allowed}"


def explain(message: str, settings: Sequence[GivenSetting]) -> str:
    """One sentence for a message of the argument parser about these settings."""
    text = message.strip()
    if unrecognized := re.search(r"unrecognized arguments: (--?)([^\s=]+)", text):
        key = unrecognized[2]
        if unrecognized[1] == "-":
            return f"-{key}: not understood; settings are given with two dashes, as in --{key} VALUE"
        if own := [name for name in RUN_KEYS if name.startswith(f"{key}.")]:
            return f"{key}: given {_cut(_value(key, settings))}, allowed are {' and '.join(own)}"
        return f"{_full(key, settings)}: no such setting; `jqlight fit --help` lists them"
    if text.startswith("unrecognized arguments:"):
        return f"{text.partition(': ')[2]}: not understood; settings are given as --key value"
    if empty := re.search(r"argument --?([^\s:]+): expected .*argument", text):
        bare = [given.key for given in settings if given.value == "" or str(given.value).startswith("--")]
        name = empty[1].rpartition("--")[2]  # of several names the long one
        within = [key for key in bare if key == name or key.startswith(f"{name}.")]
        return f"{within[-1] if within else name}: given without a value"
    if text == "Unexpected config:":  # jsonargparse's, of a path that is empty
        return "config: given without a value"
    if unknown := re.search(r"[Oo]ption '([^']+)' (?:is not accepted)?|does not accept option '([^']+)'", text):
        leaf = unknown[1] or unknown[2]
        other = classes.owner(leaf, settings)
        if other and other.key not in OWN_SECTIONS:
            return f"{other.key}: {other.path} has no setting {leaf} (given {_cut(other.settings.get(leaf))})"
        key = _full(leaf, settings)
        section = key.split(".")[0]
        later = [given.key for given in settings if given.key == section][-1:] if section in ROOTS else []
        order = f"; --{section} comes before its settings" if later else ""
        return f"{key}: no such setting{_given_where(key, settings)}{order}"
    if missing := re.search(r"arguments are required: (.+)", text):
        return _missing_sentence([part.strip() for part in missing[1].split(",")], settings)
    if module := re.search(r"Problem with given class_path '([^']+)':\s*(.+)", text):
        found = re.search(r'Parser key "([^"]+)"', text)
        key = _full(found[1], settings) if found else "model"
        return _class_sentence(key, settings, f"class {module[1]} cannot be loaded: {module[2].strip().rstrip('.')}")
    if found := re.search(r'Parser key "([^"]+)":\s*(.*)', text, re.DOTALL):
        return _value_sentence(found[1], found[2], settings)
    return " ".join(text.split())


def _missing_sentence(keys: Sequence[str], settings: Sequence[GivenSetting]) -> str:
    if set(keys) & {"model", "data"}:
        names = " and ".join(sorted(keys, reverse=True))
        return f"{names}: not given; give --config FILE (conf/ holds those that come with jqlight)"
    if found := classes.owner(keys[0], settings):
        key = f"{found.key}.{keys[0]}"
        return f"{key}: not given, but required by {found.path}; add it to its init_args or give --{key} VALUE"
    key = keys[0] if keys[0].split(".")[0] in ("model", "data") else f"model.{keys[0]}"
    return f"{key}: not given, but required; add it to the config or give --{key} VALUE"


def _value_sentence(leaf: str, details: str, settings: Sequence[GivenSetting]) -> str:
    key = _full(leaf, settings)
    if several := re.search(r"Multiple subclasses with name (\w+)\. .*?: (\S.*?)\.?\s*$", details, re.MULTILINE):
        return f"{key}: given {several[1]}, the name of several classes; give the import path of one: {several[2]}"
    if key in ("model", "data"):
        return _class_sentence(key, settings, "no such class")
    if key in classes.HOMES and (name := classes.missing(key, settings)):
        home = classes.HOMES[key]
        return (
            f"{key}: given {_cut(name)}, allowed are the classes of {home} and import paths of others"
            f"{classes.nearest(name, home)}"
        )
    if key in OWN_SECTIONS or (key in classes.HOMES and key != "trainer.logger"):
        kind = {"optimizer": "optimizer", "lr_scheduler": "schedule"}.get(key, key.rpartition(".")[2].rstrip("s"))
        value = next((given.path for given in classes.given_classes(settings) if given.key == key), "something else")
        return f"{key}: given {_cut(value)}, which is no {kind}; allowed are the classes of {classes.HOMES[key]}"
    if nested := re.search(r"NestedArg\(key='([^']+)', val='([^']*)'", details):
        home = _DEFAULTS.get(key, classes.HOMES.get(key, ""))
        return f"{key}.{nested[1]}: given {_cut(nested[2])} without a class; --{key} CLASS comes before it ({home})"
    expected = re.findall(r"Expected an? (<class '[^']+'>|typing\.Literal\[[^\]]*\])", details)
    if "jqlight.objective.Commitment" in details:
        expected.append("a schedule or Splice (class_path and init_args)")
    expected = re.findall(r"Positive(?:Int|Float)\b", details)[:1] + expected
    allowed = " or ".join(dict.fromkeys(filter(None, map(_type_name, dict.fromkeys(expected)))))
    value = _value(key, settings, _given_value(details))
    choices = [name for part in expected if part.startswith("typing.Literal") for name in _type_name(part).split(", ")]
    if "Unable to load config" in details:
        return f"{key}: given {_cut(value)}, allowed are its own settings, as in --{key}.KEY VALUE"
    if not allowed:
        return f"{key}: given {_cut(value)}; {' '.join(details.split())}"
    return f"{key}: given {_cut(value)}, allowed is {allowed}{meant(value, choices)}"


def _class_sentence(key: str, settings: Sequence[GivenSetting], problem: str) -> str:
    given = _last((f"{key}.class_path", key, f"{key}+"), settings)
    path = str(given.value) if given and isinstance(given.value, str) else classes.missing(key, settings)
    value = _cut(path or (given.value if given else "nothing"))
    names, home, key = CLASSES.get(key), classes.HOMES.get(key, ""), given.key if given else key
    hint = classes.nearest(path, home) if path and ("." in path or not names) else meant(path, names or ())
    if not names:
        return f"{key}: given {value}, {problem}{hint}"
    return f"{key}: given {value}, {problem}; allowed are {', '.join(names)} or a class's import path{hint}"


def _type_name(text: str) -> str:
    if text.startswith("typing.Literal["):
        return ", ".join(part.strip(" '\"") for part in text[len("typing.Literal[") : -1].split(","))
    return _TYPES.get(text, re.sub(r"^<class '(.+)'>$", r"\1", text))


def _given_value(details: str) -> str:
    found = re.search(r"(?:Got value|Given value): (.+)", details)
    return found[1].strip() if found else "something else"


def _full(leaf: str, settings: Sequence[GivenSetting]) -> str:
    """The given key that ends in ``leaf``; the parser of a nested class knows its own keys only."""
    leaf = ".".join(part for part in leaf.split(".") if part != "init_args")
    matching = [given.key for given in settings if given.key == leaf or given.key.endswith(f".{leaf}")]
    return matching[-1] if matching else leaf


def _last(keys: Sequence[str], settings: Sequence[GivenSetting]) -> GivenSetting | None:
    return next((given for given in reversed(settings) if given.key in keys), None)


def _value(key: str, settings: Sequence[GivenSetting], default: Any = "something else") -> Any:
    given = _last([key], settings)
    return given.value if given else default


def _given_where(key: str, settings: Sequence[GivenSetting]) -> str:
    given = _last([key], settings)
    return f" (given {_cut(given.value)} {given.source})" if given else ""


def _cut(value: Any) -> str:
    """A value as one would write it, cut to 80 characters."""
    text = str(value) if value != "" else "''"
    return text if len(text) <= 80 else text[:77] + "..."


def interpolation(error: BaseException) -> str | None:
    """The sentence for a failed ``${...}``; None when ``error`` is something else."""
    if not isinstance(error, OmegaConfBaseException):
        return None
    key = re.search(r"full_key: (\S+)", str(error))
    first = str(error).splitlines()[0]
    name = re.search(r"Interpolation key '([^']+)' not found", first)
    where = f"{key[1]}: " if key else ""
    if name:
        return f"{where}${{{name[1]}}} names no setting; keys start at the config's root, as in ${{model.init_args.q}}"
    return f"{where}{first}"


def not_built(error: BaseException, settings: Sequence[GivenSetting]) -> str | None:
    """The sentence for a class that refuses to be built, a package that it needs missing for one; None otherwise."""
    found = re.search(r"Problem with given class_path '([^']+)':\s*(.+)", str(error))
    if found is None:
        return None
    keys = [given.key for given in classes.given_classes(settings) if found[1].endswith(given.path)]
    return f"{keys[0] if keys else 'config'}: given {found[1]}, which cannot be built: {found[2].strip().rstrip('.')}"


def raised_by_jqlight(error: BaseException) -> JQLightError | None:
    """The error of jqlight's own that ``error`` was caused by; None when there is none."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, JQLightError):
            return seen
        seen = seen.__cause__ or seen.__context__
    return None
