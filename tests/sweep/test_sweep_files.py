"""Every file in sweeps/: it reads, and `jqlight fit` takes what it says."""

from pathlib import Path

import pytest

from jqlight.names import format_value
from jqlight.report.compare import Setting
from jqlight.report.published import read_published
from jqlight.sweep.file import read_sweep

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "sweeps").glob("*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_file_reads_and_begins_with_its_command(path):
    sweep = read_sweep(path)
    assert sweep.points
    assert path.read_text().startswith(f"# jqlight sweep sweeps/{path.name}")
    source, rows = read_published(sweep.published, str(path))
    assert bool(source) == bool(rows)
    assert all(0 <= percent <= 100 for row in rows for percent in row.percent.values())


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_fit_accepts_every_kind_of_point(path, tmp_path, monkeypatch):
    from jqlight.cli.fit import RunCLI

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JQLIGHT_RUN_DIR", "")
    sweep = read_sweep(path)
    kinds = {}
    for point in sweep.points:
        without_seed = {key: format_value(value) for key, value in point.settings.items() if key != "seed"}
        kinds.setdefault(str(without_seed), point)
    for number, point in enumerate(kinds.values()):
        cli = RunCLI("fit", [*sweep.fit_arguments(point), "--run_dir", str(tmp_path / str(number))])
        hparams = cli.model.hparams
        assert hparams["estimator"] == point.settings.get("estimator", "GARL")
        if "q" in point.settings:
            q = hparams["q"]
            assert (q if isinstance(q, str) else f"{q:g}") == format_value(point.settings["q"])
        else:  # the base config's, of an estimator that has one
            assert ("q" in hparams) == (hparams["estimator"] in ("GARL", "PAFT"))


@pytest.mark.parametrize("name", ["finqa_cold_q", "table2_cold", "table3_warm"])
def test_published_results_are_those_of_points_in_the_file(name):
    sweep = read_sweep(ROOT / "sweeps" / f"{name}.yaml")
    _, rows = read_published(sweep.published, name)
    asked = {(point.settings["estimator"], format_value(point.settings.get("q", ""))) for point in sweep.points}
    published = {(row.setting.estimator, row.setting.q) for row in rows if row.setting.estimator != "base"}
    assert published <= asked
    places = {Setting(row.setting.benchmark, row.setting.scenario, "", "").panel for row in rows}
    assert places <= {
        f"{benchmark}, {scenario}" for benchmark in ("FinQA", "HotpotQA", "MuSiQue") for scenario in ("cold", "warm")
    }
