"""A run's own record in its folder: written first, and complete even without a tracking server.

::

    run.json              what the run is: MLflow run id and store, parameters, tags, status, what was uploaded,
                          and the directory in which it was started
    config.yaml           the resolved config
    metrics.jsonl         one JSON object a line: step, time (Unix seconds), and the metrics logged together
    samples/*.jsonl       one file per validation (step_*), test (test_step_*) and kept training step (train_step_*),
                          one sampled output a line
    artifacts/questions/  one file per validation, one question a line: its id and its value of each metric
    artifacts/            other texts, and samples.html, a page of the samples
"""

import json
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from jqlight.errors import ConfigError
from jqlight.files import json_lines, must_exist, naming, read_json, write_json, write_text

_WORDS = {str: "text", float: "time in seconds", int: "whole number of bytes", dict: "mapping", list: "list"}
_LATEST = 2**53
_TYPES: dict[type, tuple[str, ...]] = {
    str: ("run_id", "experiment_id", "experiment_name", "run_name", "tracking_uri", "folder", "directory", "status"),
    float: ("start_time", "end_time"),
    dict: ("tags", "params", "uploaded"),
}
_UPLOADED_TYPES: dict[type, tuple[str, ...]] = {
    str: ("status",),
    int: ("metrics_bytes",),
    dict: ("tags", "artifacts"),
    list: ("params", "tables"),
}


class Journal:
    """The files of one run; safe to write from the training thread while another thread reads.

    Attributes:
        folder: the run's folder, made when missing.
        record: content of ``run.json``.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.RLock()
        self.record: dict[str, Any] = read_record(folder)
        self._logged: dict[tuple[int, str], float] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        self._end_broken_line()

    @property
    def metrics_path(self) -> Path:
        """The metrics file."""
        return self.folder / "metrics.jsonl"

    def inside(self, path: Path) -> bool:
        """Whether a file of the run is in its folder and not behind a link that leads out of it."""
        return path.resolve().is_relative_to(self.folder.resolve())

    def _end_broken_line(self) -> None:
        # A process killed while writing leaves half a line; what follows must not be glued to it.
        if self.metrics_path.exists() and (data := self.metrics_path.read_bytes()) and not data.endswith(b"\n"):
            with self.metrics_path.open("ab") as file:
                file.write(b"\n")

    def update(self, **fields: Any) -> None:
        """Merge ``fields`` into ``run.json``, replacing the file in one step; dictionaries are merged key by key.

        Raises:
            FileNotFoundError: the folder has been taken away.
        """
        with self._lock:
            must_exist(self.folder)
            for key, value in fields.items():
                old = self.record.get(key)
                self.record[key] = {**old, **value} if isinstance(old, dict) and isinstance(value, dict) else value
            write_json(self.folder / "run.json", self.record)

    def note(self, **fields: Any) -> None:
        """As :meth:`update`, where it does no harm that the file is lost: sent again, MLflow takes it for the same."""
        with suppress(OSError):
            self.update(**fields)

    def forget_upload(self) -> None:
        """Forget the MLflow run, so that the next upload makes a new one with everything in it."""
        with self._lock:
            self.record.pop("uploaded", None)
            self.update(run_id=None)

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Append one line to the metrics file, on disk when this returns.

        A resumed run takes steps again that were logged before it was killed: what is there already is not written
        twice, times of such steps not at all.
        """
        with self._lock:
            new = self._new(metrics, step)
            if new:
                row = {"step": step, "time": round(time.time(), 3), **new}
                with naming(self.metrics_path), self.metrics_path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")

    def _new(self, metrics: Mapping[str, float], step: int) -> dict[str, float]:
        if self._logged is None:  # what another process has logged from this step on
            rows, _ = self.metrics_from(0)
            later = [row for row in rows if row["step"] >= step]
            self._logged = {(row["step"], name): value for row in later for name, value in row.items()}
        before = {name: self._logged.pop((step, name), None) for name in metrics} if self._logged else {}
        known = {name for name, value in before.items() if value is not None}
        return {n: v for n, v in metrics.items() if not (n in known and (n.startswith("time/") or before[n] == v))}

    def log_rows(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write a table, one JSON object a line, to ``samples/<name>.jsonl``."""
        must_exist(self.folder)
        write_text(self.folder / "samples" / f"{name}.jsonl", json_lines(rows))

    def log_text(self, name: str, text: str) -> None:
        """Write an artifact: ``config.yaml`` next to the metrics, everything else under ``artifacts/``."""
        write_text(self.folder / name if name == "config.yaml" else self.folder / "artifacts" / name, text)

    def artifacts(self) -> Iterator[tuple[str, Path]]:
        """Name in MLflow and path of every file that belongs there; what links outside of the folder does not."""
        others = self.folder / "artifacts"
        found = [("config.yaml", self.folder / "config.yaml")]
        found += [(f"samples/{path.stem}.json", path) for path in sorted((self.folder / "samples").glob("*.jsonl"))]
        found += [(path.relative_to(others).as_posix(), path) for path in sorted(others.rglob("*"))]
        for name, path in found:
            if path.is_file() and not path.name.endswith(".partial") and self.inside(path):
                yield name, path

    def metrics_from(self, offset: int) -> tuple[list[dict[str, Any]], int]:
        """Complete lines behind byte ``offset``, and the offset behind the last of them; broken lines are left out."""
        if not self.metrics_path.exists() or not self.inside(self.metrics_path):
            return [], 0
        with self.metrics_path.open("rb") as file:
            file.seek(offset)
            data = file.read()
        end = data.rfind(b"\n") + 1
        return [row for line in data[:end].splitlines() if (row := _parse(line)) is not None], offset + end

    def last_step(self) -> int:
        """The last optimizer step that anything was logged for; 0 where nothing was."""
        return max((int(row["step"]) for row in self.metrics_from(0)[0]), default=0)

    def series(self, name: str) -> list[tuple[int, float]]:
        """Steps and values of one metric; where a step was logged again after a resume, its last value."""
        rows, _ = self.metrics_from(0)
        return sorted({row["step"]: row[name] for row in rows if name in row}.items())


def read_record(folder: Path) -> dict[str, Any]:
    """Content of the folder's ``run.json``; empty where there is none.

    Raises:
        ConfigError: a field that is not of its type, as in a file that was changed by hand.
    """
    record = read_json(folder / "run.json")
    if not isinstance(record, dict):
        return {}
    _check_types(record, _TYPES, str(folder / "run.json"))
    _check_types(record.get("uploaded", {}), _UPLOADED_TYPES, f"{folder / 'run.json'}: uploaded")
    return record


def _check_types(fields: Mapping[str, Any], types: Mapping[type, Iterable[str]], where: str) -> None:
    for kind, names in types.items():
        for name in names:
            value = fields.get(name, kind())
            text = kind is str and (value is None or isinstance(value, str))
            number = kind in (int, float) and isinstance(value, int | kind) and not isinstance(value, bool)
            finite = number and 0 <= value < _LATEST
            if not (text or finite or (kind in (dict, list) and isinstance(value, kind))):
                raise ConfigError(
                    f"{where}: {name}: given {value!r:.80}, allowed is a {_WORDS[kind]}; put back what it was, or take "
                    "it out"
                )


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except ValueError:  # cut off when a process was killed (the next one wrote on behind it), or no text at all
        return None
    numbers = isinstance(row, dict) and all(isinstance(value, int | float) for value in row.values())
    return row if numbers and isinstance(row.get("step"), int) else None
