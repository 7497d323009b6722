"""Names that several rooms write and read: those of scores, estimators, benchmarks and values of settings."""

import difflib
import json
import re
from collections.abc import Iterable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any


def _exported(package: str, first: tuple[str, ...]) -> tuple[str, ...]:
    """Classes that a package exports from modules of their own names; read from source: importing loads torch."""
    source = (Path(__file__).parent / package / "__init__.py").read_text(encoding="utf-8")
    imports = re.findall(r"^from jqlight\.\w+\.(\w+) import (\w+)$", source, re.MULTILINE)
    return tuple(dict.fromkeys([*first, *(name for module, name in imports if module == name.lower())]))


ESTIMATORS = _exported("estimators", ("GARL", "PAFT"))
"""Class names in ``jqlight.estimators``, in the order in which tables show them."""

BENCHMARKS = _exported("benchmarks", ("HotpotQA",))
"""Class names in ``jqlight.benchmarks``, likewise."""


def meant(given: object, names: Iterable[str]) -> str:
    """``; did you mean NAME?`` for the nearest of ``names``, whatever its case; empty where none is near."""
    by_lower = {name.lower(): name for name in names if name != given}
    near = difflib.get_close_matches(str(given).lower(), by_lower, n=1)
    return f"; did you mean {by_lower[near[0]]}?" if near else ""


SCORE = re.compile(r"(?P<stage>val|test)/(?P<verifier>\w*?)(?P<kind>maj|pass)_at_(?P<k>\d+)")
"""A logged score of k samples, such as ``val/maj_at_16`` or ``test/exact_pass_at_1``; ``verifier`` is its prefix."""


# Control characters but tab and newline (escape sequences begin with one), other ends of lines, and what reorders the
# text around it.
_ACTIVE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def inert(text: str) -> str:
    r"""``text`` with the characters that a terminal would act on, or cannot show, written as escapes: ``\x1b[2J``."""
    return _ACTIVE.sub(lambda found: found[0].encode("unicode_escape", "surrogatepass").decode(), text)


QUESTIONS = "questions"
"""Folder of a run's artifacts with a file per validation, a line a question: its id and its value of each metric."""


def evaluation_name(stage: str, step: int) -> str:
    """Name of what an evaluation left, without its ending: ``step_000100``, ``test_step_000100``."""
    return f"step_{step:06d}" if stage == "val" else f"{stage}_step_{step:06d}"


def majority(k: int | str, verifier: str = "") -> str:
    """Name of the score of a majority vote of ``k`` samples, without its stage: ``maj_at_16``, ``exact_maj_at_16``.

    Args:
        k: samples.
        verifier: prefix of the verifier that judges the vote, empty for the paper's rule.
    """
    return f"{verifier}maj_at_{k}"


def pass_at(k: int | str, verifier: str = "") -> str:
    """Name of the chance that one of ``k`` samples is right, without its stage: ``pass_at_1``; see :func:`majority`."""
    return f"{verifier}pass_at_{k}"


def k_of_majority(name: str) -> int | None:
    """k where ``name`` is the score of a majority vote by the paper's rule or exact match, else None."""
    found = SCORE.fullmatch(name)
    return int(found["k"]) if found and found["kind"] == "maj" and found["verifier"] in ("", "exact_") else None


def format_value(value: Any) -> str:
    """Short text of a setting's value in names, tables and tags: ``0.75``, ``true``, ``splice(0.05)``.

    A class with settings (``class_path`` and ``init_args``) is spelled as its object spells itself, so that a sweep's
    tables and its runs' tags agree; one that does not spell itself, or is not there, as ``ramp(a=1, b=x)``.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return f"{value:g}"
    if not (isinstance(value, Mapping) and "class_path" in value):
        return json.dumps(value, default=str)
    module, _, name = str(value["class_path"]).rpartition(".")
    settings = value.get("init_args") or {}
    try:
        cls = getattr(import_module(module), name)
        if cls.__repr__ is not object.__repr__:
            return repr(cls(**settings))
    except (ImportError, AttributeError, TypeError, ValueError):
        pass
    return f"{name.lower()}({', '.join(f'{key}={format_value(inner)}' for key, inner in settings.items())})"
