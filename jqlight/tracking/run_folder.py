"""The folder of a run: a fresh one for a new run, the old one for a run that is continued or tested."""

import os
from dataclasses import dataclass
from pathlib import Path

from jqlight.errors import ConfigError
from jqlight.tracking.journal import read_record

RUNS = Path("runs")
"""Parent of all run folders, below the working directory."""

BEST, LAST = "best.ckpt", "last.ckpt"


@dataclass(frozen=True)
class RunFolder:
    """A run's folder and the checkpoint that the command starts from."""

    path: Path
    checkpoint: Path | None = None
    """None starts from the base model."""

    @property
    def checkpoints(self) -> Path:
        """Folder of the run's checkpoints."""
        return self.path / "checkpoints"


def find_run_folder(verb: str, run_dir: str | None, run_name: str, ckpt_path: str | None) -> RunFolder:
    """The folder that ``jqlight <verb>`` writes to and the checkpoint that it loads.

    Without ``run_dir`` a new run gets ``runs/<run_name>``, or ``-2``, ``-3`` and so on behind it. ``ckpt_path`` is a
    file, or "last" or "best" of ``run_dir`` (of the newest run of this name); a checkpoint inside a run's folder
    continues that run. With "last", ``fit`` starts a new run where there is no checkpoint yet.

    Raises:
        ConfigError: the checkpoint does not exist, or ``run_dir`` holds another run.
    """
    if int(os.environ.get("LOCAL_RANK", 0)) > 0 and "JQLIGHT_RUN_DIR" in os.environ:
        run_dir = os.environ["JQLIGHT_RUN_DIR"]  # the first process has chosen for all
        return RunFolder(Path(run_dir), _checkpoint(Path(run_dir), ckpt_path))
    folder = _choose(verb, run_dir, run_name, ckpt_path)
    os.environ["JQLIGHT_RUN_DIR"] = str(folder.path)
    return folder


def _choose(verb: str, run_dir: str | None, run_name: str, ckpt_path: str | None) -> RunFolder:
    given = Path(run_dir) if run_dir else None
    if ckpt_path in ("last", "best"):
        folder = given or newest(run_name)
        checkpoint = _checkpoint(folder, ckpt_path) if folder else None
        if folder and checkpoint and checkpoint.exists():
            return RunFolder(folder, checkpoint)
        if verb == "fit" and ckpt_path == "last":
            return RunFolder(given or folder or RUNS / run_name)
        raise ConfigError(
            f"ckpt_path: given {ckpt_path}, but {checkpoint or RUNS / run_name} does not exist; "
            "give a checkpoint file, or --run_dir with the folder of a run that has one"
        )
    if ckpt_path:
        checkpoint = Path(ckpt_path)
        if not checkpoint.is_file():
            raise ConfigError(
                f"ckpt_path: {ckpt_path} does not exist; allowed are a checkpoint file, last, and best (of run_dir)"
            )
        return RunFolder(given or run_of(checkpoint) or unused(run_name), checkpoint)
    if given is None:
        return RunFolder(unused(run_name))
    if verb == "fit" and (given / "checkpoints" / LAST).exists():
        raise ConfigError(
            f"run_dir: {given} holds a run already; continue it with --ckpt_path last, or give another folder"
        )
    return RunFolder(given)


def _checkpoint(folder: Path, ckpt_path: str | None) -> Path | None:
    if ckpt_path in ("last", "best"):
        return folder / "checkpoints" / (LAST if ckpt_path == "last" else BEST)
    return Path(ckpt_path) if ckpt_path else None


def run_of(checkpoint: Path) -> Path | None:
    """Folder of the run that wrote ``checkpoint``; None if no run wrote it."""
    folder = checkpoint.parent.parent
    return folder if checkpoint.parent.name == "checkpoints" and read_record(folder) else None


def unused(run_name: str) -> Path:
    """``runs/<run_name>``, with the first number behind it that no folder has yet."""
    number, path = 1, RUNS / run_name
    while path.exists():
        number += 1
        path = RUNS / f"{run_name}-{number}"
    return path


def newest(run_name: str) -> Path | None:
    """The last folder made by :func:`unused` for this name; None if there is none."""
    number, found = 1, None
    path = RUNS / run_name
    while path.exists():
        number, found = number + 1, path
        path = RUNS / f"{run_name}-{number}"
    return found
