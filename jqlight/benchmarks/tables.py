"""Records in tables: Parquet and CSV files, a row a record, a column a field."""

import csv
import datetime
from collections import Counter
from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, TextIO

from jqlight.errors import DataError

_LONGEST_CELL = 2**30  # Python's own limit of 131,072 characters is shorter than some contexts


def parquet_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Where a row stands, and its fields as in JSON; a date is its ISO text, an exact decimal its digits.

    Raises:
        DataError: no Parquet file, or a column that is there twice.
    """
    import pyarrow
    import pyarrow.parquet

    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            _check_columns(path, file.schema_arrow.names)
            for batch in file.iter_batches(batch_size=1024):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path} row {number}", {name: _as_in_json(value) for name, value in row.items()}
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        reason = str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
        raise DataError(f"{path}: cannot be read as Parquet ({reason})") from error


def csv_rows(path: Path, stream: TextIO) -> Iterator[tuple[str, dict[str, Any]]]:
    """Where a row stands, and its fields, all of them texts as they were written.

    Args:
        path: of the file, for errors.
        stream: its text, opened with ``newline=""``; columns are separated by commas and named in the first row.

    Raises:
        DataError: another separator, a column that is there twice, a row of another length, or a quote left open.
    """
    csv.field_size_limit(_LONGEST_CELL)
    reader = csv.reader(stream, strict=True)
    try:
        names = next(reader, [])
        if len(names) == 1 and (other := next((mark for mark in ";\t|" if mark in names[0]), None)):
            raise DataError(f"{path}: columns are separated by {other!r}, allowed are commas; save it with those")
        _check_columns(path, names)
        for row in reader:
            if row and len(row) != len(names):
                raise DataError(
                    f"{path} line {reader.line_num}: has {len(row)} cells, the first row names {len(names)} columns; "
                    "texts that hold commas or line ends need double quotes"
                )
            if row:
                yield f"{path} line {reader.line_num}", dict(zip(names, row))
    except csv.Error as error:
        raise DataError(f"{path} line {reader.line_num}: not CSV ({error})") from error


def _check_columns(path: Path, names: Sequence[str]) -> None:
    if twice := [name for name, number in Counter(names).items() if number > 1]:
        raise DataError(f"{path}: column '{twice[0]}' is there twice; give each a name of its own")


def _as_in_json(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _as_in_json(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_as_in_json(inner) for inner in value]
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    return str(value) if isinstance(value, Decimal) else value
