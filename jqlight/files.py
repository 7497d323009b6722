"""Files that are replaced in one step, JSON Lines, and hashes that are the same on every machine."""

import errno
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from hashlib import blake2b
from pathlib import Path
from typing import Any


def stable_hash(*parts: object, separator: str = "\0") -> int:
    """A 64-bit integer that depends on ``parts`` alone: the same in every process, on every machine."""
    text = separator.join(map(str, parts))
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big")


def write_text(path: Path, text: str) -> None:
    """Write a text file in one step: readers see the old content or the new. Makes the folder where it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_beside(path) as partial:
        partial.write_text(text, encoding="utf-8")


@contextmanager
def written_beside(path: Path) -> Iterator[Path]:
    """A path beside ``path`` to write to, which takes its name when the block ends well and goes when it does not.

    Raises:
        OSError: the system's refusal behind whatever the block raises, with ``path`` in it.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        with naming(path):
            yield partial
            partial.replace(path)
    except BaseException:
        with suppress(OSError):
            shutil.rmtree(partial) if partial.is_dir() else partial.unlink(missing_ok=True)
        raise


def must_exist(folder: Path) -> None:
    """Raise FileNotFoundError for a folder that is not there any more, instead of writing into a new one."""
    if not folder.is_dir():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(folder))


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """A block that writes to ``path``; what the system refuses names it, which libraries' own errors do not."""
    try:
        yield
    except Exception as error:
        seen: BaseException | None = error
        while seen is not None and not (isinstance(seen, OSError) and seen.errno):
            seen = seen.__cause__ or seen.__context__
        number = seen.errno if isinstance(seen, OSError) else None
        if number is None and (told := re.search(r"\(os error (\d+)\)", str(error))):  # of libraries in Rust
            number = int(told[1])
        named = isinstance(error, OSError) and error.filename and not str(error.filename).endswith(".partial")
        if number is None or named:
            raise
        raise OSError(number, os.strerror(number), str(path)) from error


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file in one step, see :func:`write_text`."""
    write_text(path, json.dumps(content, indent=1) + "\n")


def read_json(path: Path) -> Any:
    """Content of a JSON file; None when it is missing or was cut off while being written."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, RecursionError, ValueError):  # also bytes that are no text
        return None


def json_lines(rows: Iterable[Mapping[str, Any]]) -> str:
    """The rows as JSON Lines, one object a line; what JSON does not know is written as its text."""
    return "".join(json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in rows)


def can_write(folder: Path) -> bool:
    """Whether this process can write to a folder, or make it where it is missing."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    return os.access(there, os.W_OK | os.X_OK)
