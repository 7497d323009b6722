"""The folder of a run: a fresh one for a new run, the old one for a run that is continued or tested."""

import errno
import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from jqlight.errors import ConfigError
from jqlight.files import can_write
from jqlight.names import inert
from jqlight.tracking.journal import Journal, read_record

RUNS = Path("runs")
"""Parent of all run folders, below the working directory."""

BEST, LAST = "best.ckpt", "last.ckpt"

LOCK = ".lock"
"""File in a run's folder on which the run's process holds a lock that the system releases when the process ends."""
_RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK")


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
    continues that run. With "last", ``fit`` starts a new run where no step has been taken yet.

    The folder is made and held until :func:`release`, so that no other process can write to it. Of a run's several
    processes the first does so for all.

    Raises:
        ConfigError: the checkpoint does not exist, or ``run_dir`` holds another run, is no folder, or is being written
            by another process.
    """
    if not _first_process():
        if "JQLIGHT_RUN_DIR" in os.environ:
            run_dir = os.environ["JQLIGHT_RUN_DIR"]  # the first process has chosen for all
            return RunFolder(Path(run_dir), _checkpoint(Path(run_dir), ckpt_path))
        return _choose(verb, run_dir, run_name, ckpt_path)
    folder = _choose(verb, run_dir, run_name, ckpt_path)
    if not _hold(folder.path):
        raise ConfigError(
            f"run_dir: {folder.path} is being written by a run that is going on; wait for it, end it, or give "
            "another --run_dir"
        )
    os.environ["JQLIGHT_RUN_DIR"] = str(folder.path)
    return folder


def check_run_dir(given: str) -> None:
    """Raise ConfigError for what can name no folder of a run: nothing, blanks, what a terminal acts on, an address."""
    odd = not given or given != given.strip() or given != inert(given) or "\n" in given or "\t" in given
    if odd or re.match(r"~|[A-Za-z][A-Za-z0-9+.-]*:/", given):
        raise ConfigError(
            f"run_dir: given {inert(given[:80])!r}, allowed is the path of a folder on this machine, spelled out: "
            "without blanks around it, characters that control or reorder text, a scheme like s3:// or ~"
        )


def check_writable(folder: Path) -> None:
    """Raise ConfigError unless ``folder``, or what it would be made in, can be written; nothing is made."""
    if too_long := next((part for part in folder.parts if len(os.fsencode(part)) > 255), None):
        raise ConfigError(f"run_dir: {too_long[:60]}... is too long for a folder's name, which may have 255 bytes")
    if dangling := next((p for p in (folder, *folder.parents) if p.is_symlink() and not p.exists()), None):
        raise ConfigError(f"run_dir: {dangling} is a link that leads nowhere; mend it, or give another folder")
    if can_write(folder):
        return
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not there.is_dir():
        raise ConfigError(f"run_dir: {folder} cannot be a folder, since {there} is a file; give another folder")
    user = f"user {os.getuid()}" if os.name == "posix" else "this user"
    raise ConfigError(
        f"run_dir: {folder} needs a folder that {user} can write, but {there.absolute()} belongs to user "
        f"{there.stat().st_uid} and cannot be written; change its permissions, mount it for writing, run as its owner, "
        "or give another --run_dir"
    )


def _first_process() -> bool:
    """Whether this is the first process of its run, as far as the environment says."""
    return not int(next((os.environ[name] for name in _RANKS if os.environ.get(name, "").isdigit()), 0))


@dataclass(frozen=True)
class _Held:
    descriptor: int
    made: bool
    """Whether this process made the folder."""


_held: dict[Path, _Held] = {}


def _hold(folder: Path, *, fresh: bool = False) -> bool:
    """Take a folder for this process; whether no other process has it. A ``fresh`` one must not be there yet.

    Raises:
        ConfigError: a file is in the way.
    """
    if folder.resolve() in _held:
        return not fresh
    made = True
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir()
    except (FileExistsError, NotADirectoryError) as error:
        if not folder.is_dir():
            raise ConfigError(
                f"run_dir: {folder} cannot be a folder, since {error.filename} is a file; give another folder"
            ) from error
        made = False
        if fresh and [path.name for path in folder.iterdir()] != [LOCK]:  # left by one that was killed at its start
            return False
    return _lock(folder, made)


def _lock(folder: Path, made: bool) -> bool:
    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    with suppress(ImportError):  # no such module on Windows; there two runs in one given folder are not caught
        import fcntl

        try:
            # A lock of the process, which its children do not inherit: an orphan of a killed run holds nothing.
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                os.close(descriptor)
                return False  # other errors: a file system without locks
    if os.fstat(descriptor).st_nlink == 0:  # taken away by its last owner meanwhile
        os.close(descriptor)
        return False
    _held[folder.resolve()] = _Held(descriptor, made)
    return True


def release() -> None:
    """Let other processes have the folders of this one, and remove those into which nothing was written."""
    for folder, held in _held.items():
        with suppress(OSError):
            if held.made and [path.name for path in folder.iterdir()] == [LOCK]:
                (folder / LOCK).unlink()
                folder.rmdir()
        os.close(held.descriptor)
    _held.clear()


def is_live(folder: Path) -> bool:
    """Whether a process of this machine is writing to a run's folder; True where that cannot be found out."""
    if folder.resolve() in _held:
        return True
    try:
        import fcntl

        with (folder / LOCK).open("r+b") as file:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return False
    except (ImportError, OSError):
        return True


def _choose(verb: str, run_dir: str | None, run_name: str, ckpt_path: str | None) -> RunFolder:
    given = Path(run_dir) if run_dir else None
    if ckpt_path in ("last", "best"):
        folder = given or newest(run_name)
        checkpoint = _checkpoint(folder, ckpt_path) if folder else None
        if folder and checkpoint and checkpoint.exists():
            return RunFolder(folder, checkpoint)
        if verb == "fit" and ckpt_path == "last":
            if folder and checkpoint and any(checkpoint.parent.glob("*.ckpt")):
                return RunFolder(folder, checkpoint)  # missing; the others are looked at when it is opened
            if folder and (folder / "metrics.jsonl").exists() and Journal(folder).last_step():
                raise ConfigError(
                    f"ckpt_path: given last, but {folder} has trained and holds no checkpoint; give a checkpoint file, "
                    "or leave ckpt_path out and begin anew in another --run_dir"
                )
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
    """Folder of the run that wrote ``checkpoint``, which may be a link to it; None if no run wrote it."""
    for path in (checkpoint, checkpoint.resolve()):
        folder = path.parent.parent
        if path.parent.name == "checkpoints" and read_record(folder):
            return folder
    return None


def saved_config(checkpoint: Path) -> Path | None:
    """The config that the run of ``checkpoint`` has saved; None where none lies beside it."""
    beside = (path.parent.parent / "config.yaml" for path in (checkpoint, checkpoint.resolve()))
    return next((path for path in beside if path.is_file()), None)


def located(path: str, folder: Path) -> str:
    """A relative path as a run meant it: below where the run was started, below here, or below a folder above its own.

    Args:
        path: of a model or of data; one that is absolute, or nowhere to be found, comes back as it is.
        folder: of the run.
    """
    started = read_record(folder).get("directory")
    bases = [Path(str(started or Path.cwd())), Path.cwd(), *folder.resolve().parents[:4]]
    base = next((base for base in bases if (base / path).exists()), Path.cwd())
    return path if base == Path.cwd() else str(base / path)


def unused(run_name: str) -> Path:
    """``runs/<run_name>``, with the first number behind it that no run has yet; made and held in the same step."""
    number, path = 1, RUNS / run_name
    while path.exists() if not _first_process() else not _hold(path, fresh=True):
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
