"""Records of a benchmark's split: from a file, a folder or the hub, with errors that say where."""

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, TextIO, TypeVar

from jqlight import hub
from jqlight.benchmarks.tables import csv_rows, parquet_rows
from jqlight.errors import ConfigError, DataError
from jqlight.files import stable_hash

_T = TypeVar("_T")

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")

_SUFFIXES = (".json", ".jsonl", ".parquet", ".csv")


def _names(*stems: str) -> tuple[str, ...]:
    return tuple(stem + suffix for stem in stems for suffix in _SUFFIXES)


FILES: Mapping[Split, tuple[str, ...]] = {
    "train": _names("train", "*train*"),
    "validation": _names("validation", "dev", "*dev*", "*validation*"),
    # No wider pattern: the official test files of HotpotQA and MuSiQue have no answers.
    "test": _names("test"),
}
"""File names looked for in a folder, the first pattern that matches wins."""


_OTHER_KINDS = {
    b"version https://git-lfs": "a Git LFS pointer, not the file itself (`git lfs pull` fetches that)",
    b"\x1f\x8b": "compressed by gzip",
    b"pk\x03\x04": "a zip archive",
    b"par1": "a Parquet file",
    b"<": "a web page or XML",
}
"""First bytes, in lower case, to what a file with them is."""


class Record(dict[str, Any]):
    """A JSON object that knows where it was read, so that a missing or mistyped field can be named."""

    def __init__(self, data: Mapping[str, Any], where: str) -> None:
        super().__init__(data)
        self.where = where

    def __missing__(self, key: str) -> Any:
        raise DataError(f"{self.where}: field '{key}' is missing; fields are {sorted(self)}")

    def text(self, key: str) -> str:
        """The string under ``key``; a number as its text, as in a column of both.

        Raises:
            DataError: the field is missing or neither.
        """
        return self.as_text(self[key], key)

    def items_of(self, key: str) -> list[Any]:
        """The list under ``key``.

        Raises:
            DataError: the field is missing or not a list.
        """
        return self._typed(key, list, "a list")

    def texts(self, key: str) -> list[str]:
        """The list of strings (or numbers, as in :meth:`text`) under ``key``.

        Raises:
            DataError: the field is missing or not such a list.
        """
        return [self.as_text(value, key, "a list of strings") for value in self.items_of(key)]

    def aliases(self, key: str) -> list[str]:
        """The strings under ``key``: a list, a single string, or none where it is null, empty or missing.

        Raises:
            DataError: anything else.
        """
        value = self.get(key)
        return [] if value in (None, "") else [value] if isinstance(value, str) else self.texts(key)

    def flag(self, key: str) -> bool:
        """The truth value under ``key``.

        Raises:
            DataError: the field is missing or not true or false.
        """
        return self._typed(key, bool, "true or false")

    def inner(self, key: str) -> "Record":
        """The object under ``key``.

        Raises:
            DataError: the field is missing or not an object.
        """
        return Record(self._typed(key, dict, "an object"), f"{self.where}, field '{key}'")

    def objects(self, key: str) -> list["Record"]:
        """The list of objects under ``key``.

        Raises:
            DataError: the field is missing or not such a list.
        """
        values = self.items_of(key)
        if not all(isinstance(value, Mapping) for value in values):
            raise DataError(f"{self.where}: field '{key}' must hold objects, given {_short(values)}")
        return [Record(value, f"{self.where}, field '{key}', number {i}") for i, value in enumerate(values)]

    def as_text(self, value: Any, key: str, kind: str = "a string") -> str:
        """A value under ``key``, a string or a finite number, as text.

        Raises:
            DataError: it is neither; says that the field must be ``kind``.
        """
        if isinstance(value, str):
            return value
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        if isinstance(value, float) and math.isfinite(value):
            return f"{Decimal(repr(value)):f}"  # no exponent
        raise DataError(f"{self.where}: field '{key}' must be {kind}, given {_short(value)}")

    def _typed(self, key: str, kind: type[_T], name: str) -> _T:
        value = self[key]
        if not isinstance(value, kind):
            raise DataError(f"{self.where}: field '{key}' must be {name}, given {_short(value)}")
        return value


@dataclass(frozen=True)
class HubSource:
    """A benchmark's data set on the hub."""

    name: str
    """Data set id."""
    config: str | None = None
    """Data set configuration."""
    id_field: str | None = None
    """Name of the id field there, where it differs from the official files'."""


def share(records: Iterable[Record], id_field: str, parts: Sequence[Split], split: Split) -> Iterator[Record]:
    """The records of ``split`` when ``parts`` share one source, divided by a hash of the id: disjoint, order-free.

    Of two parts each gets half; of three, training gets eight tenths and the others one tenth each.
    """
    wheel = parts if len(parts) < 3 else ("train",) * 8 + ("validation", "test")
    for record in records:
        if wheel[stable_hash("split", record[id_field]) % len(wheel)] == split:
            yield record


def existing(path: str | Path) -> Path:
    """The path of a data file or folder, from the user's home for a leading ``~``.

    Raises:
        ConfigError: there is nothing.
    """
    found = Path(path).expanduser()
    if not found.exists():
        raise ConfigError(f"data.path: given '{path}', allowed is an existing file or folder in the official format")
    return found


def read_path(
    path: str | Path, split: Split, id_field: str, files: Mapping[Split, Sequence[str]] = FILES
) -> Iterator[Record]:
    """Records of ``split`` in a folder, or in one file that serves all three splits.

    A folder holds a file per split. Without a test file the validation file is halved between validation and test. One
    file alone is divided 8 : 1 : 1 between the splits. Both divisions are by a hash of the record's id: the same on
    every machine, and disjoint.

    Raises:
        ConfigError: ``path`` does not exist, or the folder has no file for the split.
        DataError: a file that is not JSON, or a record without an id.
    """
    path = existing(path)
    if path.is_file():
        yield from share(read_file(path, id_field), id_field, SPLITS, split)
        return
    found = find_file(path, files[split])
    if found is not None:
        records = read_file(found, id_field)
        halved = split == "validation" and find_file(path, files["test"]) is None
        yield from share(records, id_field, ("validation", "test"), split) if halved else records
        return
    source = find_file(path, files["validation"]) if split == "test" else None
    if source is None:
        raise ConfigError(
            f"data.path: folder '{path}' has no file for the {split} split; allowed names are {', '.join(files[split])}"
        )
    yield from share(read_file(source, id_field), id_field, ("validation", "test"), split)


def read_hub(source: HubSource, split: Split, id_field: str) -> Iterator[Record]:
    """Records of ``split``; validation and test are the two halves of the hub's validation split, by a hash of the id.

    Raises:
        HubError: the hub cannot be reached and nothing is cached.
        DataError: a record without an id.
    """
    name = "train" if split == "train" else "validation"
    location = f"hub data set {source.name} ({name})"
    records = (
        as_record({**row, id_field: row.get(source.id_field or id_field)}, location, id_field, location)
        for row in hub.load_rows(source.name, source.config, name)
    )
    yield from records if split == "train" else share(records, id_field, ("validation", "test"), split)


def find_file(folder: Path, patterns: Sequence[str]) -> Path | None:
    """The one file that the first matching pattern names, or None.

    Raises:
        ConfigError: a pattern matches several files.
    """
    for pattern in patterns:
        matches = sorted(folder.glob(pattern))
        if len(matches) > 1:
            raise ConfigError(
                f"data.path: folder '{folder}' has several files for one split ({', '.join(m.name for m in matches)}); "
                f"leave one, or name it {patterns[0].rpartition('.')[0]}{matches[0].suffix}"
            )
        if matches:
            return matches[0]
    return None


def read_file(path: Path, id_field: str) -> Iterator[Record]:
    """Records of a file of JSON Lines, Parquet or CSV, as its suffix says, of another name a JSON array.

    Raises:
        DataError: no text of that kind in UTF-8, an entry that is not an object or has no id, or no entry.
    """
    empty = True
    for location, entry in _entries(path):
        empty = False
        yield as_record(entry, location, id_field, path)
    if empty:
        raise DataError(f"{path}: holds no records")


def _entries(path: Path) -> Iterator[tuple[str, Any]]:
    if path.suffix.lower() == ".parquet":
        yield from parquet_rows(path)
        return
    with open_text(path) as stream:
        if path.suffix.lower() == ".csv":
            yield from csv_rows(path, stream)
            return
        if path.suffix.lower() == ".jsonl":
            for number, line in enumerate(stream, 1):
                if line.strip():
                    yield f"{path} line {number}", parse_json(line, f"{path} line {number}")
            return
        text = stream.read()
    try:
        entries = parse_json(text, str(path))
    except DataError as error:
        if text.lstrip().startswith("{") and "Extra data" in str(error):
            raise DataError(
                f"{path}: holds more than one JSON value; name a file of an object per line .jsonl"
            ) from error
        raise
    if not isinstance(entries, list):
        raise DataError(f"{path}: must hold a JSON array of records, given {_short(entries)}")
    yield from ((f"{path} record number {number}", entry) for number, entry in enumerate(entries, 1))


def as_record(entry: Any, location: str, id_field: str, source: object) -> Record:
    """The entry as a record whose errors name ``source`` and the record's id.

    Raises:
        DataError: the entry is not an object, or has no id; the error names ``location``.
    """
    if not isinstance(entry, Mapping):
        raise DataError(f"{location}: must be an object, given {_short(entry)}")
    identity = entry.get(id_field)
    if not isinstance(identity, str | int) or isinstance(identity, bool) or identity == "":
        raise DataError(f"{location}: field '{id_field}' must be a non-empty id, given {_short(identity)}")
    for key, value in entry.items():
        if not _is_text(value):
            raise DataError(f"{source}: record {_short(identity)}: field '{key}' holds half of a surrogate pair")
    return Record({**entry, id_field: str(identity)}, f"{source}: record {identity}")


@contextmanager
def open_text(path: Path) -> Iterator[TextIO]:
    """A data file as UTF-8 text, with or without a byte-order mark; line ends are as written.

    Raises:
        DataError: a folder, a pipe or the like, a file of another kind, or bytes that are no UTF-8, also while it is
            read.
    """
    if not path.is_file():
        raise DataError(f"{path}: is no plain file; give one of JSON, JSON Lines, Parquet or CSV")
    with path.open("rb") as raw:
        head = raw.read(32)
    for beginning, kind in _OTHER_KINDS.items():
        if head.lower().startswith(beginning):
            raise DataError(f"{path}: is {kind}; give a JSON or JSON Lines file, or Parquet or CSV by that suffix")
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            yield stream
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is no UTF-8 text ({_first_wrong_byte(path)}); save it as UTF-8") from error


def _first_wrong_byte(path: Path) -> str:
    data = path.read_bytes()
    try:
        data.decode()
    except UnicodeDecodeError as error:
        return f"line {data.count(bytes([10]), 0, error.start) + 1}, byte {data[error.start]:#04x}"
    return "while it was read"


def parse_json(text: str, location: str) -> Any:
    """Content of a JSON text.

    Raises:
        DataError: it is none, or is nested too deep; the error names ``location``.
    """
    try:
        return json.loads(text, object_pairs_hook=_object)
    except RecursionError as error:
        raise DataError(f"{location}: nested too deep to be read") from error
    except ValueError as error:
        raise DataError(f"{location}: not JSON ({error})") from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object of these pairs; of two values under one key nobody knows which is meant."""
    made = dict(pairs)
    if len(made) != len(pairs):
        twice = next(key for i, (key, _) in enumerate(pairs) if key in dict(pairs[:i]))
        raise ValueError(f"key '{twice}' stands twice in one object")
    return made


def _is_text(value: Any) -> bool:
    """Whether all strings in ``value`` are text: JSON can spell half of a surrogate pair, which is none."""
    if isinstance(value, str):
        return value.isascii() or not any("\ud800" <= character <= "\udfff" for character in value)
    if isinstance(value, Mapping):
        return all(_is_text(key) and _is_text(inner) for key, inner in value.items())
    return not isinstance(value, list) or all(map(_is_text, value))


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
