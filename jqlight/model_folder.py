"""A model as its folder (or the hub) gives it: config, tokenizer and weights, whole or refused in one sentence.

The only module that calls ``from_pretrained``. transformers fills in at random what a checkpoint lacks and says so in a
log; here that is an error, found by :func:`check_weights` before an engine starts.
"""

import json
import logging
import re
import zipfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers
from safetensors import SafetensorError, safe_open
from transformers import (
    CONFIG_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from jqlight.errors import ConfigError

log = logging.getLogger("jqlight")

_WEIGHTS = "the weights that config.json describes"
_FILES = {
    "config.json": ("config.json",),
    "generation_config.json": ("generation_config.json",),
    "the tokenizer": ("config.json", "*token*", "vocab*", "merges.txt", "*.model", "chat_template*"),
    _WEIGHTS: ("config.json", "generation_config.json", "*.index.json", "*.safetensors", "*.bin"),
}
"""Part of a model -> the files that it is read from, in the order in which a fault is looked for."""
_LFS = b"version https://git-lfs"
_PREFIXES = {
    "_orig_mod.": "torch.compile",
    "module.": "DistributedDataParallel",
    "base_model.model.": "PEFT",
}
_FLOATS = ("F64", "F32", "F16", "BF16")
_NUMBER = re.compile(r"\.\d+\.")
_SHOWN = 4


def read_config(path: str) -> PretrainedConfig:
    """The model's config.

    Raises:
        ConfigError: ``config.json`` cannot be read, or is of a kind that transformers does not know.
    """
    with _reading(path, "config.json"):
        config: PretrainedConfig = AutoConfig.from_pretrained(path, trust_remote_code=False)
    return config


def embedding_rows(config: PretrainedConfig) -> int | None:
    """Number of token ids that the model can take; None where the config does not say."""
    rows = getattr(config.get_text_config(), "vocab_size", None)
    return rows if isinstance(rows, int) else None


def read_tokenizer(path: str) -> PreTrainedTokenizerBase:
    """The model's own tokenizer.

    Raises:
        ConfigError: its files are missing or cannot be read.
    """
    with _reading(path, "the tokenizer"):
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
    names = tokenizer.vocab_files_names.values()
    folder = Path(path)
    if folder.is_dir() and names and not any((folder / name).is_file() for name in names):
        # transformers makes an empty tokenizer of the kind that config.json suggests
        raise ConfigError(
            f"policy.name_or_path: {path} has no tokenizer (none of {', '.join(names)}); copy the tokenizer files of "
            "the model that it was made from into it"
        )
    return tokenizer


def end_ids(path: str, config: PretrainedConfig) -> list[int]:
    """Token ids that end an output by ``generation_config.json`` and ``config.json``, as the files themselves say.

    Raises:
        ConfigError: ``generation_config.json`` cannot be read.
    """
    with _reading(path, "generation_config.json"):
        try:
            named = [GenerationConfig.from_pretrained(path).eos_token_id]
        except OSError:  # the file is optional
            if (Path(path) / "generation_config.json").exists():
                raise
            named = []
        written = PretrainedConfig.get_config_dict(path)[0]  # a config's class has defaults, which are no one's choice
        named += [part.get("eos_token_id") for part in (written, written.get("text_config") or {})]
        found = [int(i) for ids in named for i in (ids if isinstance(ids, list) else [] if ids is None else [ids])]
    rows = embedding_rows(config)
    return [i for i in dict.fromkeys(found) if i >= 0 and (rows is None or i < rows)]  # others are never written


def load_model(path: str, **options: Any) -> PreTrainedModel:
    """The model with every weight from its checkpoint.

    Args:
        path: folder or hub id.
        **options: of ``from_pretrained``.

    Raises:
        ConfigError: a file is missing, cut off or a Git LFS pointer; the checkpoint lacks a weight (tied ones aside),
            has one of another shape than the config says, one that is not finite, or layers beyond the
            config's; the weights are quantised.
    """
    model, _ = _loaded(path, **options)
    for name, weight in model.named_parameters():
        if not weight.is_meta:
            _check_finite(path, name, weight)
    return model


def _loaded(path: str, **options: Any) -> tuple[PreTrainedModel, list[str]]:
    """The model, and the names in the checkpoint that it has no use for."""
    _refuse_quantised(path)
    with _reading(path, _WEIGHTS):
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            path, trust_remote_code=False, output_loading_info=True, ignore_mismatched_sizes=True, **options
        )
    model, info = loaded
    tied: Mapping[str, str] = getattr(model, "all_tied_weights_keys", None) or {}
    missing, mismatched = sorted(set(info["missing_keys"]) - set(tied)), sorted(info["mismatched_keys"])
    if mismatched:
        shapes = (f"{name} is {_shape(held)}, by config.json {_shape(asked)}" for name, held, asked in mismatched)
        raise ConfigError(
            f"policy.name_or_path: the weights in {path} do not fit its config.json ({_listed(list(shapes))}); give "
            "the config.json that they were saved with"
        )
    if missing:
        raise ConfigError(
            f"policy.name_or_path: weights are missing in {path}: {_listed(missing)}; training would start from random "
            f"numbers there. {_prefix(sorted(info['unexpected_keys']))}"
        )
    unused = sorted(info["unexpected_keys"])
    if adapters := [name for name in unused if ".lora_" in name]:
        raise ConfigError(
            f"policy.name_or_path: the weights in {path} hold an adapter beside those that it changes "
            f"({_listed(adapters)}); merge it into them (PEFT's merge_and_unload) and save the plain model"
        )
    if deeper := _beyond(unused, model.state_dict()):
        raise ConfigError(
            f"policy.name_or_path: the weights in {path} are of more layers than its config.json describes "
            f"({_listed(deeper)}); give the config.json that they were saved with"
        )
    if getattr(model, "generation_config", None):
        model.generation_config = _savable(model.generation_config)
    return model, unused


def _beyond(unused: Sequence[str], used: Collection[str]) -> list[str]:
    """Those of the unused names that differ from a used one in a layer's number alone."""
    patterns = {_NUMBER.sub(".#.", name) for name in used}
    return [name for name in unused if _NUMBER.search(name) and _NUMBER.sub(".#.", name) in patterns]


def _check_finite(path: str, name: str, weight: torch.Tensor) -> None:
    if not weight.isfinite().all():
        raise ConfigError(
            f"policy.name_or_path: the weight {name} in {path} holds NaN or infinity, with which the model computes "
            "nothing; give an earlier checkpoint, or save it again in float32 or bfloat16"
        )


def check_numbers(path: str) -> None:
    """Read the numbers of a folder's safetensors, for an engine that loads them by itself; about a second per GB.

    Raises:
        ConfigError: one is NaN or infinite.
    """
    for file, names in _safetensors(path):
        with safe_open(file, "pt") as stored:
            for name in names:
                if stored.get_slice(name).get_dtype() in _FLOATS:
                    _check_finite(path, name, stored.get_tensor(name))


def _safetensors(path: str) -> Iterator[tuple[Path, list[str]]]:
    """The files that hold a folder's weights, with the names in each; nothing for a model on the hub."""
    for file in sorted(Path(path).glob("model*.safetensors")):
        with safe_open(file, "pt") as stored:
            yield file, list(stored.keys())


def _check_types(path: str, used: Collection[str]) -> None:
    """Refuse weights that are no numbers to compute with: integers and 8 bits mean something by their scales only."""
    for file, names in _safetensors(path):
        with safe_open(file, "pt") as stored:
            for name in names:
                if name in used and (kind := stored.get_slice(name).get_dtype()) not in _FLOATS:
                    raise ConfigError(
                        f"policy.name_or_path: {path}: {file.name} holds {name} as {kind}, without a "
                        "quantization_config in config.json that says what it means; give the weights in float32, "
                        "float16 or bfloat16"
                    )


@cache
class Weights(NamedTuple):
    """What a model's folder holds."""

    parameters: int
    unused: int
    """Tensors that the model described by config.json has no use for."""


def check_weights(path: str) -> Weights:
    """How many parameters there are, after reading what :func:`load_model` would, but for the numbers themselves.

    It takes no memory and about a second.

    Raises:
        ConfigError: as :func:`load_model`.
    """
    model, unused = _loaded(path, device_map="meta")
    _check_types(path, dict(model.named_parameters()).keys())
    if unused:
        log.warning(
            "policy.name_or_path: %d tensors in %s are left out, since the model that config.json describes has no use "
            "for them (%s).",
            len(unused),
            path,
            _listed(unused),
        )
    return Weights(int(model.num_parameters()), len(unused))


def _refuse_quantised(path: str) -> None:
    """An engine samples from the weights that the trainer gives it, in formats that quantised ones are not."""
    settings = getattr(read_config(path), "quantization_config", None)
    if settings is None:
        return
    fields = settings if isinstance(settings, dict) else settings.to_dict()
    method = getattr(fields.get("quant_method"), "value", fields.get("quant_method")) or "some method"
    raise ConfigError(
        f"policy.name_or_path: the weights in {path} are quantised (quantization_config in config.json: {method}), "
        "allowed are plain ones in float32, bfloat16 or float16: rollouts must be samples of the very weights that are "
        "trained. Give the model it was made from; with policy.lora and policy.dtype: bfloat16 it takes two bytes a "
        "parameter"
    )


def _savable(given: GenerationConfig) -> GenerationConfig:
    """The settings as they are, with sampling on, or without all but token ids: the first that transformers saves."""
    ids = {name: value for name, value in given.to_dict().items() if name.endswith("_token_id") and value != -1}
    for config in (given, GenerationConfig(**{**given.to_dict(), "do_sample": True}), GenerationConfig(**ids)):
        try:
            config.validate(strict=True)
            return config
        except ValueError:
            continue
    return GenerationConfig()


@contextmanager
def _reading(path: str, part: str) -> Iterator[None]:
    """Turn what a library raises into a sentence on the files of ``part``."""
    try:
        yield
    except (ConfigError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # each format has its own ways to fail
        if isinstance(error, OSError) and error.errno is not None:  # permissions, a full disk
            raise
        reason = _fault(Path(path), part) or f"{part} cannot be read by transformers ({_short(error)})"
        raise ConfigError(f"policy.name_or_path: {path}: {reason}") from error


def _fault(folder: Path, part: str) -> str:
    """The first of the files that is not what its name says; empty where all are."""
    files = [file for pattern in _FILES[part] for file in sorted(folder.glob(pattern)) if file.is_file()]
    for file in files:
        if reason := _fault_of_file(file):
            return f"{file.name} {reason}"
    if folder.is_dir() and part == _WEIGHTS and not any(file.suffix in (".safetensors", ".bin") for file in files):
        return "it holds no weights (no model.safetensors); copy or download them into the folder"
    return ""


def _fault_of_file(file: Path) -> str:
    with file.open("rb") as stream:
        if stream.read(len(_LFS)) == _LFS:
            return "is a Git LFS pointer, not the file itself; run `git lfs pull` in the folder it was cloned to"
    damaged = "is cut off or damaged ({}); copy or download it again"
    try:
        if file.suffix == ".json":
            content = json.loads(file.read_text(encoding="utf-8"))
            if not isinstance(content, dict):
                return f"must hold an object, given {str(content)[:40]}"
            return _fault_of_kind(content) if file.name == "config.json" else ""
        if file.suffix == ".safetensors":
            with safe_open(file, "pt"):
                return ""
    except (ValueError, RecursionError, SafetensorError) as error:
        return damaged.format(_short(error))
    return damaged.format("no zip archive") if file.suffix == ".bin" and not zipfile.is_zipfile(file) else ""


def _fault_of_kind(config: dict[str, Any]) -> str:
    kind = config.get("model_type")
    if isinstance(kind, str) and kind in CONFIG_MAPPING:
        return ""
    known = f"has model_type {kind!r}, which is none that transformers {transformers.__version__} knows"
    if "auto_map" in config:
        return f"{known}: it brings code of its own, which is not run; give a model of a kind that transformers has"
    return f"{known}; give a model of a kind that it has"


def _prefix(unexpected: Sequence[str]) -> str:
    for prefix, origin in _PREFIXES.items():
        if any(name.startswith(prefix) for name in unexpected):
            return (
                f"The names in the file begin with {prefix!r}, as {origin} saves them: save the plain model "
                "again, or rename them"
            )
    more = f" (the file has others: {_listed(unexpected)})" if unexpected else ""
    return f"Give a folder with all of the weights that config.json asks for{more}"


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _shape(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))


def _short(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else text[:197] + "..."
