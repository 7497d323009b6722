"""Bytes of data files: UTF-8 with or without a mark, and what else a path may be."""

import json
import os

import pytest

from jqlight.benchmarks.records import read_file
from jqlight.errors import DataError

ROWS = [{"_id": "a", "question": "Who?"}, {"_id": "b", "question": "Où?"}]
TEXT = json.dumps(ROWS, ensure_ascii=False, indent=0)


def read(path):
    return [dict(record) for record in read_file(path, "_id")]


def test_a_byte_order_mark_is_read_over(tmp_path):
    path = tmp_path / "train.json"
    path.write_bytes(b"\xef\xbb\xbf" + TEXT.encode())
    assert read(path) == ROWS


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16", "utf-32", "cp1252"])
def test_another_encoding_is_named_with_its_line(tmp_path, encoding):
    path = tmp_path / "train.json"
    path.write_bytes(TEXT.encode(encoding))
    line = 8 if encoding in ("latin-1", "cp1252") else 1
    with pytest.raises(DataError, match=rf"train\.json: is no UTF-8 text \(line {line}, byte 0x..\); save it as UTF-8"):
        read(path)


@pytest.mark.parametrize("kind", ["folder", "pipe", "loop"])
def test_only_plain_files_are_opened(tmp_path, kind):
    path = tmp_path / "train.json"
    {"folder": path.mkdir, "pipe": lambda: os.mkfifo(path), "loop": lambda: path.symlink_to(path)}[kind]()
    with pytest.raises(DataError, match=r"train\.json: is no plain file"):
        read(path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[" * 100_000, "nested too deep"),
        ("[" + "1" * 5000 + "]", "not JSON"),
        (r'[{"_id": "a", "question": "x \ud800"}]', "record 'a': field 'question' holds half of a surrogate pair"),
        (r'[{"_id": "a", "context": [["t", ["\udc00"]]]}]', "field 'context' holds half of a surrogate pair"),
    ],
)
def test_what_json_can_hold_and_nobody_can_use(tmp_path, text, words):
    path = tmp_path / "train.json"
    path.write_text(text)
    with pytest.raises(DataError, match=words):
        read(path)
