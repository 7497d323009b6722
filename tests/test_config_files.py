"""Reading YAML of settings: bases, numbers and dates, and mistakes as one sentence each."""

import os
import re
from pathlib import Path

import pytest

from jqlight.config_files import SHIPPED, find_file, read_config, read_yaml
from jqlight.errors import ConfigError


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write a file into the working directory; its path."""
    monkeypatch.chdir(tmp_path)

    def write(name, text):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path.relative_to(tmp_path)

    return write


def test_bases_come_in_front_relative_to_the_file_that_names_them(write):
    write("shared/paper.yaml", "q: 1\n")
    write("warm.yaml", "base: shared/paper.yaml\nq: 2\n")
    write("logging.yaml", "log: 3\n")
    cold = write("cold.yaml", "base: [warm.yaml, logging.yaml]\nq: 4\n")
    read = [(str(path), content) for path, content in read_config(cold)]
    assert read == [
        ("shared/paper.yaml", {"q": 1}),
        ("warm.yaml", {"q": 2}),
        ("logging.yaml", {"log": 3}),
        ("cold.yaml", {"q": 4}),
    ]


@pytest.mark.parametrize(
    ("base", "sentence"),
    [
        ("none.yaml", "config: none.yaml does not exist (base of a.yaml); those that come with jqlight are finqa"),
        ("a.yaml", "config: a.yaml is based on itself (base of a.yaml); take it out of base"),
        ("[3]", "config: a.yaml: base: given [3], allowed is a file or a list of files"),
        ("3", "config: a.yaml: base: given 3, allowed is a file or a list of files"),
        ("{b: c}", "config: a.yaml: base: given {'b': 'c'}, allowed is a file or a list of files"),
        ("''", "config: a.yaml: base: given '', allowed is a file or a list of files"),
    ],
)
def test_a_wrong_base(write, base, sentence):
    path = write("a.yaml", f"base: {base}\nq: 1\n")
    with pytest.raises(ConfigError, match=re.escape(sentence)):
        list(read_config(path))


def test_files_that_stand_on_each_other_are_counted_before_they_fill_the_memory(write):
    for n in range(40):
        write(f"c{n}.yaml", f"base: [c{n + 1}.yaml, c{n + 1}.yaml]\n")
    write("c40.yaml", "q: 1\n")
    with pytest.raises(ConfigError, match=r"^config: c0.yaml is based on more than 100 files"):
        list(read_config(Path("c0.yaml")))
    for n in range(300):
        write(f"d{n}.yaml", f"base: d{n + 1}.yaml\n")
    with pytest.raises(ConfigError, match=r"^config: d0.yaml stands on a chain of more than 100 files"):
        list(read_config(Path("d0.yaml")))


def test_what_is_no_plain_file_is_not_opened(write):
    os.mkfifo("pipe.yaml")
    Path("link.yaml").symlink_to("link.yaml")
    path = write("there/a.yaml", "base: ../round/a.yaml\n")
    Path("round").symlink_to("there")
    for given, sentence in {
        "pipe.yaml": "config: pipe.yaml is no plain file",
        "link.yaml": "config: link.yaml is a link that leads nowhere",
        path: "config: round/a.yaml is based on itself (base of there/a.yaml)",
    }.items():
        with pytest.raises(ConfigError, match=f"^{re.escape(sentence)}"):
            list(read_config(Path(given)))


def test_numbers_and_dates_are_read_as_people_write_them(write):
    path = write("a.yaml", "\ufefflr: 1e-5\nrate: 2.5E3\nday: 2026-11-26\nname: 1e-5m\ncount: 12\nat: 12:30:45\n")
    read = {"lr": 1e-5, "rate": 2500.0, "day": "2026-11-26", "name": "1e-5m", "count": 12, "at": "12:30:45"}
    assert read_yaml(path, "a") == read


def test_a_key_may_return_in_another_section_and_override_what_is_merged_in(write):
    path = write("a.yaml", "a: &a {q: 1, lr: 2}\nb: {<<: *a, q: 3}\n")
    assert read_yaml(path, "a") == {"a": {"q": 1, "lr": 2}, "b": {"q": 3, "lr": 2}}


_BOMB = "a0: &a0 [1, 1]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 40))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("model: 1\ndata: 2\n\nmodel: 3\n", "it: model is given twice, in lines 1 and 4; keep one"),
        ("model: {q: 1, q: 2}\n", "it: q is given twice, in lines 1 and 1; keep one"),
        ("a: !!binary aGVsbG8=\n", "it is not YAML (line 1, column 4: could not determine a constructor"),
        ("a: !!set {x, y}\n", "it is not YAML (line 1, column 4: could not determine a constructor"),
        ("model:\n  q: 1\n  'q': 2\n", "it: q is given twice, in lines 2 and 3; keep one"),
        ("a: [1\nb: }", "it is not YAML (line 2, column 2: "),
        (b"name: caf\xe9\n", "it is not YAML ('utf-8' codec can't decode byte 0xe9 in position 9"),
        ("a: !!python/object:os.system x\n", "it is not YAML (line 1, column 4: could not determine a constructor"),
        ("a: 1\n---\nb: 2\n", "it is not YAML (line 2, column 1: but found another document)"),
        ("[" * 5000, "it is not YAML (nested too deep)"),
        ("a: " + "x" * 2**20, "it holds 1,048,579 bytes, allowed are 1,048,576"),
        (_BOMB, "it holds more than 200,000 values when its aliases are written out"),
        ("a: &a [*a]\n", "it holds more than 200,000 values when its aliases are written out"),
    ],
    ids=lambda text: str(text)[:20],
)
def test_a_mistake_is_one_sentence(write, text, sentence):
    path = write("a.yaml", text)
    with pytest.raises(ConfigError, match=f"^{re.escape(sentence)}") as told:
        read_yaml(path, "it")
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("given", ["quickstart", "quickstart.yaml", "conf/quickstart.yaml", "conf/quickstart"])
def test_a_shipped_config_is_found_from_any_folder(given, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files = list(read_config(find_file(given, "conf")))
    assert files[-1][1]["model"]["class_path"] == "jqlight.estimators.GARL"


def test_a_file_that_is_there_comes_before_a_shipped_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "quickstart.yaml").write_text("seed_everything: 3")
    assert find_file("quickstart.yaml", "conf") == Path("quickstart.yaml")
    assert find_file("quickstart", "conf") == SHIPPED / "conf" / "quickstart.yaml"


@pytest.mark.parametrize("given", ["there/quickstart.yaml", "../conf/quickstart.yaml", "quickstart.yml", "no_such"])
def test_nothing_else_is_a_shipped_config(given, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"does not exist.*hotpotqa_cold, .*quickstart"):
        list(read_config(find_file(given, "conf")))
