"""Bytes of data files: UTF-8 with or without a mark, and what else a path may be."""

import gzip
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
        ('[{"_id": "a", "question": "x", "question": "y"}]', r"not JSON \(key 'question' stands twice in one object\)"),
        ('[{"_id": "a", "qa": {"b": 1, "c": 2, "b": 1}}]', "key 'b' stands twice"),
        ('{"_id": "a"}\n{"_id": "b"}', r"more than one JSON value; name a file of an object per line \.jsonl"),
        ('[{"_id": true}]', "must be a non-empty id, given True"),
    ],
)
def test_what_json_can_hold_and_nobody_can_use(tmp_path, text, words):
    path = tmp_path / "train.json"
    path.write_text(text)
    with pytest.raises(DataError, match=words):
        read(path)


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (gzip.compress(TEXT.encode()), "compressed by gzip"),
        (b"PK\x03\x04rest", "a zip archive"),
        (b"PAR1rest", "a Parquet file"),
        (b"<!DOCTYPE html><p>Sign in", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n", "a Git LFS pointer"),
    ],
)
def test_a_file_of_another_kind_is_named(tmp_path, content, kind):
    path = tmp_path / "train.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"train\.json: is {kind}.*; give a JSON or JSON Lines file"):
        read(path)


def test_the_suffix_may_be_in_capitals(tmp_path):
    path = tmp_path / "train.JSONL"
    path.write_text("\r\n".join(map(json.dumps, ROWS)))
    assert read(path) == ROWS
