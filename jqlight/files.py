"""Files that are replaced in one step, JSON Lines, and hashes that are the same on every machine."""

import json
import os
from collections.abc import Iterable, Mapping
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
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file in one step, see :func:`write_text`."""
    write_text(path, json.dumps(content, indent=1) + "\n")


def read_json(path: Path) -> Any:
    """Content of a JSON file; None when it is missing or was cut off while being written."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError):
        return None


def json_lines(rows: Iterable[Mapping[str, Any]]) -> str:
    """The rows as JSON Lines, one object a line; what JSON does not know is written as its text."""
    return "".join(json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in rows)


def can_write(folder: Path) -> bool:
    """Whether this process can write to a folder, or make it where it is missing."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    return os.access(there, os.W_OK | os.X_OK)
