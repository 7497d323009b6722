"""Settings of earlier versions: left out with a notice where they say what is done anyway, refused otherwise."""

import logging
from collections.abc import Collection, Iterable, Mapping
from functools import cache
from typing import Any

from jqlight.cli.config import CommandLine, chosen_class, read_value, settings_of, short
from jqlight.errors import ConfigError

log = logging.getLogger("jqlight")

_OWN_SAMPLES = "training rationales are samples of the policy itself (model.sampler.evaluation is free)"
_ANY: tuple[Any, ...] = ()  # of settings that never changed a result
RETIRED: dict[str, tuple[tuple[Any, ...], str]] = {
    "model.seed": ((None,), "a run has one seed, seed_everything"),
    "model.policy.lora.dropout": ((0,), "rollouts are samples of the model without dropout, and so is their gradient"),
    "model.sampler.training": ((None, {}), _OWN_SAMPLES),
    "model.sampler.training.temperature": ((1,), _OWN_SAMPLES),
    "model.sampler.training.top_p": ((1,), _OWN_SAMPLES),
    "model.sampler.training.top_k": ((0,), _OWN_SAMPLES),
    "model.sampler.max_importance_ratio": ((2,), "the ratios of lookahead are truncated at 2"),
    "model.sampler.enforce_eager": (_ANY, ""),
    "model.policy.share_prompt": (_ANY, ""),
    "data.evaluation_batch": (_ANY, ""),
}
"""Key -> values that say what is done anyway, and why nothing else can be set. A user's class may have such a key."""


def leave_out_retired(line: CommandLine) -> None:
    """Take retired settings out of a command line and its files, with a notice for each source.

    Raises:
        ConfigError: one has a value that cannot be had any more.
    """
    existing = {
        row.key
        for section in ("model", "data")
        if (chosen := chosen_class(section, line.settings)) is not None
        for row in settings_of(section, chosen)
    }
    sources: dict[str, list[str]] = {}
    for given in line.settings:
        if given.key not in RETIRED or given.key in existing:
            continue
        values, reason = RETIRED[given.key]
        value = read_value(given.value) if isinstance(given.value, str) else given.value
        if values is not _ANY and value not in values:
            raise ConfigError(
                f"{given.key}: given {given.value} {given.source}, but it is no setting any more: {reason}"
            )
        sources.setdefault(given.source, []).append(given.key)
    for source, keys in sources.items():
        _notice(f"left out {source}, since nothing depends on them: {', '.join(keys)}")
    if sources:
        retired = RETIRED.keys() - existing
        line.files.update({path: without(content, retired) for path, content in line.files.items()})
        line.words[:] = _other_words(line.words, retired)
        line.settings[:] = [given for given in line.settings if given.key not in retired]


def without(node: Mapping[str, Any], keys: Collection[str] = RETIRED.keys(), prefix: str = "") -> dict[str, Any]:
    """The settings in ``node``, which stands at ``prefix``, but those of ``keys``."""
    kept = {}
    for name, value in node.items():
        key = short(f"{prefix}.{name}") if prefix else str(name)
        inner = without(value, keys, key) if isinstance(value, Mapping) else value
        if key not in keys or (inner and isinstance(inner, Mapping)):
            kept[name] = inner
    return kept


def _other_words(words: Iterable[str], keys: Collection[str]) -> list[str]:
    kept: list[str] = []
    remaining = iter(words)
    for word in remaining:
        name, equals, _ = word.partition("=")
        if not word.startswith("--") or short(name[2:]) not in keys:
            kept.append(word)
        elif not equals:
            next(remaining, None)
    return kept


@cache
def _notice(text: str) -> None:
    log.warning("settings: %s.", text)
