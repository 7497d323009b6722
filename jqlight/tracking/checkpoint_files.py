"""Checkpoint files: replaced in one step, with finite numbers alone, and verified before they are used."""

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import torch
from lightning.fabric.plugins.io import TorchCheckpointIO
from torch import Tensor

from jqlight.errors import ConfigError, NonFiniteError
from jqlight.files import written_beside

log = logging.getLogger("jqlight")


class CheckpointFiles(TorchCheckpointIO):
    """Writes a checkpoint beside its target and renames it, so that a killed process leaves the old one or the new.

    Lightning's own way is through the folder of temporary files; from another file system that is a copy over the old
    checkpoint. PyTorch writes a CRC-32 of each tensor into the file but does not look at it: see :func:`verify`.
    """

    def __init__(self) -> None:
        self._folders: set[Path] = set()

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write the file, on disk when this returns.

        Raises:
            NonFiniteError: a weight or a number of the optimizer's state is not finite; nothing is written.
        """
        if "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        if name := not_finite(checkpoint):
            raise NonFiniteError(
                f"step {checkpoint.get('global_step')}: {name} is not finite, so {Path(path).name} was not written and "
                "the one before is kept; lower optimizer.lr"
            )
        target = Path(path)
        if target.parent not in self._folders:  # one that somebody takes away in the middle of a run is not made anew
            target.parent.mkdir(parents=True, exist_ok=True)
            self._folders.add(target.parent)
        with written_beside(target) as partial, partial.open("wb") as file:
            torch.save(checkpoint, file)
            file.flush()
            os.fsync(file.fileno())


def not_finite(checkpoint: Mapping[str, Any]) -> str | None:
    """Name of a weight, or of a tensor of an optimizer's state, that holds a NaN or infinity; None where none does."""
    named = [*_tensors("", checkpoint.get("state_dict", {}))]
    for optimizer in checkpoint.get("optimizer_states", []):
        named += _tensors("the optimizer's state of", optimizer.get("state", {}))
    return next((name for name, tensor in named if not bool(torch.isfinite(tensor).all())), None)


def _tensors(name: str, node: Any) -> Iterator[tuple[str, Tensor]]:
    if isinstance(node, Tensor):
        if node.is_floating_point() and node.element_size() > 1:
            yield name, node
    elif isinstance(node, Mapping | list | tuple):
        for key, value in node.items() if isinstance(node, Mapping) else enumerate(node):
            yield from _tensors(f"{name} {key}".strip(), value)


def checkpoint_step(path: str | Path) -> int:
    """Optimizer steps taken when a checkpoint was saved; its tensors are not read.

    Raises:
        ConfigError: the file is damaged, or is no checkpoint of a run.
    """
    return int(_content(path)["global_step"])


def verify(path: str | Path) -> int:
    """Optimizer steps taken when a checkpoint was saved, after every byte and number of it has been checked.

    Raises:
        ConfigError: the file is damaged, is no checkpoint of a run, or holds numbers that are not finite.
    """
    content = _content(path)
    with ZipFile(path) as file:
        try:
            broken = file.testzip()
        except ValueError:  # a name that is no text
            broken = "directory"
    if broken is not None:
        raise ConfigError(f"ckpt_path: {path} is damaged: the checksum of its part {broken} is wrong")
    if name := not_finite(content):
        raise ConfigError(f"ckpt_path: {path} cannot be used: {name} is not finite")
    return int(content["global_step"])


def _content(path: str | Path) -> dict[str, Any]:
    try:
        with ZipFile(path):
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        return {**content, "state_dict": content["state_dict"], "global_step": int(content["global_step"])}
    except OSError:
        raise
    except Exception as error:  # torch raises whatever the bytes lead it to; its advice for pickles would run them
        raise ConfigError(
            f"ckpt_path: {path} is no checkpoint of a run ({type(error).__name__}): it is cut off, damaged or from "
            "another program"
        ) from error


def usable(path: Path, *, or_another: bool) -> Path:
    """``path`` if it is whole, see :func:`verify`; else the newest whole checkpoint beside it, which is then told.

    Raises:
        ConfigError: there is none, or ``or_another`` is false; names the newest whole one beside it.
    """
    try:
        verify(path)
        return path
    except (ConfigError, FileNotFoundError) as error:
        problem = str(error) if isinstance(error, ConfigError) else f"ckpt_path: {path} is missing"
        found = sorted(_whole(path.parent))
        if not found:
            raise ConfigError(f"{problem}; there is no other that can be used beside it: begin a new run") from error
        step, other = found[-1]
        if not or_another:
            raise ConfigError(f"{problem}; give another one, such as {other} (step {step})") from error
        log.warning("%s; going on from %s, step %d.", problem, other, step)
        return other


def _whole(folder: Path) -> Iterator[tuple[int, Path]]:
    for path in folder.glob("*.ckpt"):
        with suppress(ConfigError, OSError):
            yield verify(path), path
