"""A sweep's folder: the files of each point, and what they say about what is left to run.

::

    runs/<sweep>/sweep.json             parent MLflow run
    runs/<sweep>/<point>/point.json     settings that the point was started with, stages that are done
    runs/<sweep>/<point>/output.log     everything that `jqlight fit` printed
    runs/<sweep>/<point>/finished.json  written after the point's last stage ended with exit code 0
    runs/<sweep>/<point>/...            what `jqlight fit` itself writes: metrics.jsonl, checkpoints/last.ckpt
"""

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from enum import Enum
from pathlib import Path
from typing import Any

import yaml

from jqlight.config_files import read_config
from jqlight.errors import ConfigError
from jqlight.files import read_json, write_json
from jqlight.sweep.file import Point, Sweep
from jqlight.sweep.keys import BASE
from jqlight.tracking.journal import read_record

_TAIL_BYTES = 16384


class State(Enum):
    """What a point's folder says about it."""

    MISSING = "missing"
    """Never started."""
    STARTED = "started"
    """Started, and ended before its first checkpoint."""
    UNFINISHED = "unfinished"
    """Started and has a checkpoint to continue from."""
    FINISHED = "finished"


class PointFolder:
    """The folder of one point of a sweep.

    Attributes:
        path: the folder; made by :meth:`begin`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def log(self) -> Path:
        """Where the point's process writes what it prints."""
        return self.path / "output.log"

    @property
    def metrics(self) -> Path:
        """The run's own metrics file, one JSON object a line."""
        return self.path / "metrics.jsonl"

    @property
    def checkpoint(self) -> Path:
        """The last checkpoint of ``jqlight fit``."""
        return self.path / "checkpoints" / "last.ckpt"

    def state(self) -> State:
        """What there is to do for this point."""
        if (self.path / "finished.json").exists():
            return State.FINISHED
        if self.checkpoint.exists():
            return State.UNFINISHED
        return State.STARTED if (self.path / "point.json").exists() else State.MISSING

    def begin(self, settings: Mapping[str, Any]) -> None:
        """Make the folder and note what the point is started with."""
        self.path.mkdir(parents=True, exist_ok=True)
        write_json(self.path / "point.json", {"settings": settings, "done": self.done()})

    def done(self) -> list[str]:
        """Stages of the point that ended with exit code 0."""
        return list((read_json(self.path / "point.json") or {}).get("done", []))

    def add_done(self, stage: str) -> None:
        """Note that ``stage`` ended with exit code 0, so that a later sweep begins with the next one."""
        noted = read_json(self.path / "point.json") or {}
        write_json(self.path / "point.json", {**noted, "done": [*noted.get("done", []), stage]})

    def max_steps(self) -> int | None:
        """Optimizer steps of the whole run, from the config that ``jqlight fit`` resolved.

        None before it has written that, 0 when the config sets no limit in steps.
        """
        try:
            config = yaml.safe_load((self.path / "config.yaml").read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        steps = ((config or {}).get("trainer") or {}).get("max_steps", -1)
        return max(0, steps) if isinstance(steps, int) else 0

    def left_open(self) -> str | None:
        """What the run says of itself, where that is not that it has finished; None too where it says nothing."""
        status = read_record(self.path).get("status", "FINISHED")
        return None if status == "FINISHED" else str(status)

    def finish(self, **facts: Any) -> None:
        """Mark the point as finished, so that no later sweep repeats it."""
        write_json(self.path / "finished.json", facts)

    def check(self, settings: Mapping[str, Any]) -> None:
        """Check that this point was started with ``settings``.

        Raises:
            ConfigError: it was not; names the settings that differ.
        """
        before = (read_json(self.path / "point.json") or {}).get("settings")
        now = json.loads(json.dumps(settings))
        if before is None or before == now:
            return
        differing = sorted(key for key in {*before, *now} if before.get(key) != now.get(key))
        raise ConfigError(
            f"{self.path} was started with other settings ({', '.join(differing)}); "
            f"delete the folder to run the point again, or keep it and give the new sweep another --name"
        )

    def tail(self, lines: int) -> list[str]:
        """The last ``lines`` lines that the point's process printed, without a progress bar's overwritten states."""
        try:
            with self.log.open("rb") as file:
                file.seek(max(0, self.log.stat().st_size - _TAIL_BYTES))
                text = file.read().decode(errors="replace")
        except FileNotFoundError:
            return []
        shown = [line.rstrip().rsplit("\r", 1)[-1] for line in text.split("\n")]
        return [line for line in shown if line.strip()][-lines:]


class SweepFolder:
    """The folder of one sweep.

    Attributes:
        path: ``<runs folder>/<sweep name>``.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def point(self, point: Point) -> PointFolder:
        """The folder of one of the sweep's points."""
        return PointFolder(self.path / point.name)

    def note(self, **facts: Any) -> None:
        """Keep ``facts`` (parent run, store) for a later ``--resume``."""
        self.path.mkdir(parents=True, exist_ok=True)
        write_json(self.path / "sweep.json", facts)

    def noted(self) -> dict[str, Any]:
        """What :meth:`note` kept; empty before the first run."""
        return read_json(self.path / "sweep.json") or {}

    def lock(self) -> int:
        """File descriptor that holds the sweep's lock, for as long as it or a copy of it is open.

        Child processes inherit it, so that a point that outlived a killed sweep keeps the sweep locked.

        Raises:
            ConfigError: a process holds the lock.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        with suppress(ImportError):  # no such module on Windows; there two sweeps in one folder are not caught
            import fcntl

            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                os.close(descriptor)
                raise ConfigError(
                    f"{self.path}: a sweep or one of its points is still running here; "
                    f"wait for it, end it, or give this one another --name"
                ) from error
        return descriptor


def recorded_settings(sweep: Sweep, point: Point) -> dict[str, Any]:
    """Settings of ``point`` with a digest of the base configs: what must be equal for a point to count as the same."""
    files = [path for config in sweep.configs(point) for path, _ in read_config(config)]
    digest = hashlib.sha256(b"\0".join(path.read_bytes() for path in files)).hexdigest()[:16]
    return {**sweep.settings(point), BASE: digest}
