import json

import pytest

from jqlight.errors import ConfigError
from jqlight.sweep.file import read_sweep
from jqlight.sweep.folder import PointFolder, State, SweepFolder, read_json, recorded_settings, write_json


@pytest.fixture
def folder(tmp_path):
    return PointFolder(tmp_path / "point")


def test_state_follows_what_lies_there(folder):
    assert folder.state() is State.MISSING
    folder.begin({"q": 0.5})
    assert folder.state() is State.STARTED
    folder.checkpoint.parent.mkdir()
    folder.checkpoint.write_text("weights")
    assert folder.state() is State.UNFINISHED
    folder.finish(exit_code=0)
    assert folder.state() is State.FINISHED
    assert json.loads((folder.path / "finished.json").read_text()) == {"exit_code": 0}


def test_stages_done_survive_a_new_begin(folder):
    folder.begin({"q": 0.5})
    assert folder.done() == []
    folder.add_done("fit")
    folder.begin({"q": 0.5})
    assert folder.done() == ["fit"]
    folder.add_done("test")
    assert folder.done() == ["fit", "test"]


def test_settings_are_compared_as_json_keeps_them(folder):
    settings = {"q": {"class_path": "x", "init_args": {"tau": 0.1}}, "seed": 1, "optimizer.betas": [0.9, 0.95]}
    folder.check(settings)  # there are no files yet
    folder.begin(settings)
    folder.check({**settings, "optimizer.betas": (0.9, 0.95)})
    with pytest.raises(ConfigError, match=r"other settings \(q, trainer.max_steps\); delete the folder"):
        folder.check({**settings, "q": 1.0, "trainer.max_steps": 5})


@pytest.mark.parametrize(
    ("config", "steps"),
    [(None, None), ("trainer: {max_steps: 60}\n", 60), ("trainer: {max_steps: -1}\n", 0), ("model: {}\n", 0), ("", 0)],
)
def test_steps_of_the_run_come_from_its_resolved_config(folder, config, steps):
    folder.begin({})
    if config is not None:
        (folder.path / "config.yaml").write_text(config)
    assert folder.max_steps() == steps


def test_tail_is_the_last_lines_as_a_terminal_would_show_them(folder):
    assert folder.tail(3) == []
    folder.begin({})
    folder.log.write_bytes(b"first\n" + b"x" * 40000 + b"\nstep 1\rstep 2\rstep 3\n\n  \nError: \xff broken\n")
    assert folder.tail(2) == ["step 3", "Error: � broken"]


def test_half_written_json_counts_as_absent(tmp_path):
    path = tmp_path / "a.json"
    assert read_json(path) is None
    path.write_text('{"a": ')
    assert read_json(path) is None
    write_json(path, {"a": 1})
    assert read_json(path) == {"a": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.json"]


def test_notes_of_a_sweep_are_empty_at_first(tmp_path):
    sweep = SweepFolder(tmp_path)
    assert sweep.noted() == {}
    sweep.note(parent_run_id="r", store="s")
    assert SweepFolder(tmp_path).noted() == {"parent_run_id": "r", "store": "s"}


def test_recorded_settings_change_with_the_content_of_the_base_alone(write_sweep, tmp_path):
    sweep = read_sweep(write_sweep("overrides: {trainer.max_steps: 3}\ngrid: {seed: [1]}\n"))
    before = recorded_settings(sweep, sweep.points[0])
    assert {key: value for key, value in before.items() if key != "base"} == {"trainer.max_steps": 3, "seed": 1}
    (tmp_path / "base.yaml").touch()
    assert recorded_settings(sweep, sweep.points[0]) == before
    (tmp_path / "base.yaml").write_text("trainer: {max_steps: 4}\n")
    assert recorded_settings(sweep, sweep.points[0])["base"] != before["base"]
