"""Mistakes in a config as one sentence each: the key, what was given, what is allowed."""

import difflib
import inspect
import re
from collections.abc import Iterable, Sequence
from functools import partial
from importlib import import_module
from typing import Any

from lightning.pytorch import LightningDataModule, LightningModule
from omegaconf.errors import OmegaConfBaseException

from jqlight.cli.config import OWN_SECTIONS, ROOTS, GivenSetting, chosen_class, find_class, settings_of
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
OWN_CLASSES = {"optimizer": "torch.optim", "lr_scheduler": "torch.optim.lr_scheduler"}
"""Section of its own -> where its classes usually come from."""
_HOMES = {
    "model": ("jqlight.estimators",),
    "data": ("jqlight.benchmarks",),
    "optimizer": ("torch.optim",),
    "lr_scheduler": ("lightning.pytorch.cli", "torch.optim.lr_scheduler"),  # the first has a plateau with a monitor
    "trainer.callbacks": ("lightning.pytorch.callbacks",),
    "trainer.logger": ("lightning.pytorch.loggers",),
}
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
    known = _known(settings, trainer)
    for section, kind in _KINDS.items():
        chosen = chosen_class(section, settings)
        if chosen is not None and not issubclass(chosen, kind):
            raise ConfigError(_class_sentence(section, settings, f"which is no {kind.__name__}"))
    for given in settings:
        if given.key in (*ROOTS, "trainer") and given.value in (None, "null"):
            allowed = "leave it out for the defaults" if given.key == "trainer" else "give a class"
            raise ConfigError(f"{given.key}: given null {given.source}, allowed are its own settings; {allowed}")
        section = given.key.split(".")[0]
        if section in OWN_SECTIONS or (section in ROOTS and not _is_ours(section, settings)):
            continue
        if section in ROOTS and _outdated(given, section, settings):
            continue
        if not _exists(given.key, known):
            raise ConfigError(_unknown(given, known))


def _outdated(given: GivenSetting, section: str, settings: Sequence[GivenSetting]) -> bool:
    """Whether another class was chosen after ``given``: a setting that only the earlier one has is dropped."""
    choices = [g for g in settings if g.key in (section, f"{section}.class_path")]
    return bool(choices) and given.source != choices[-1].source and settings.index(given) < settings.index(choices[-1])


def _is_ours(section: str, settings: Sequence[GivenSetting]) -> bool:
    chosen = chosen_class(section, settings)
    return chosen is not None and chosen.__module__.startswith("jqlight.")


def _known(settings: Sequence[GivenSetting], trainer: type) -> dict[str, bool]:
    known = {**dict.fromkeys(RUN_KEYS, False), **dict.fromkeys(OWN_SECTIONS, True), "trainer": False, "h": False}
    known |= {row.key: row.is_open or row.key in _OPEN_TRAINER for row in settings_of("trainer", trainer)}
    for section in ROOTS:
        known |= {section: False, f"{section}.class_path": False, f"{section}.help": False}
        if (chosen := chosen_class(section, settings)) is not None:
            known |= {row.key: row.is_open for row in settings_of(section, chosen)}
    return known


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
    return f"{given.key}: no such setting (given {_cut(given.value)} {given.source}); {allowed}"


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
        within = [key for key in bare if key == empty[1] or key.startswith(f"{empty[1]}.")]
        return f"{within[-1] if within else empty[1]}: given without a value"
    if unknown := re.search(r"[Oo]ption '([^']+)' (?:is not accepted)?|does not accept option '([^']+)'", text):
        leaf = unknown[1] or unknown[2]
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
    owner = next((section for section in map(partial(_wants, keys[0]), reversed(settings)) if section), "model")
    key = keys[0] if keys[0].split(".")[0] in ("model", "data") else f"{owner}.{keys[0]}"
    return f"{key}: not given, but required; add it to the config or give --{key} VALUE"


def _wants(name: str, given: GivenSetting) -> str | None:
    """The section of a given class (or list of such) that has to be given ``name``; None where it is none."""
    section = given.key.removesuffix("+").removesuffix(".class_path")
    items = given.value if isinstance(given.value, list) else [given.value]
    paths = [str(item.get("class_path")) if isinstance(item, dict) else str(item) for item in items]
    for module, _, bare in (path.rpartition(".") for path in paths if section in _HOMES):
        homes = [module] if module else _HOMES[section]
        found = next(filter(None, (find_class(section, f"{home}.{bare}") for home in homes)), None)
        wanted = inspect.signature(found).parameters.get(name) if found else None
        if wanted is not None and wanted.default is wanted.empty:
            return section
    return None


def _value_sentence(leaf: str, details: str, settings: Sequence[GivenSetting]) -> str:
    key = _full(leaf, settings)
    if key in ("model", "data"):
        return _class_sentence(key, settings, "no such class")
    if key in OWN_SECTIONS:
        home = import_module(OWN_CLASSES[key])
        value = _cut(_value(key, settings))
        example = meant(value, vars(home)) or f", as {'AdamW' if key == 'optimizer' else 'StepLR'}"
        return f"{key}: given {value}, allowed are the classes of {home.__name__} and import paths of others{example}"
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
    given = _last((f"{key}.class_path", key), settings)
    value = _cut(given.value) if given else "nothing"
    names, key = CLASSES.get(key), given.key if given else key
    if not names:
        return f"{key}: given {value}, {problem}"
    bare = str(given.value).rsplit(".", 1)[-1] if given else ""
    return (
        f"{key}: given {value}, {problem}; allowed are {', '.join(names)} or a class's import path{meant(bare, names)}"
    )


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


def raised_by_jqlight(error: BaseException) -> JQLightError | None:
    """The error of jqlight's own that ``error`` was caused by; None when there is none."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, JQLightError):
            return seen
        seen = seen.__cause__ or seen.__context__
    return None
