import re

import pytest
import yaml

from jqlight.errors import ConfigError
from jqlight.sweep.file import read_sweep


def settings(sweep):
    return [point.settings for point in sweep.points]


def test_grid_is_every_combination_in_file_order(write_sweep):
    sweep = read_sweep(write_sweep("grid: {q: [0, 0.5], seed: [0, 1]}\n"))
    assert settings(sweep) == [
        {"q": 0.0, "seed": 0},
        {"q": 0.0, "seed": 1},
        {"q": 0.5, "seed": 0},
        {"q": 0.5, "seed": 1},
    ]
    assert [point.name for point in sweep.points] == ["q0-seed0", "q0-seed1", "q0.5-seed0", "q0.5-seed1"]


def test_points_are_each_crossed_with_the_grid(write_sweep):
    text = "grid: {seed: [0, 1]}\npoints:\n - {estimator: GARL, q: [0.5, 1]}\n - {estimator: GRPO}\n"
    names = [point.name for point in read_sweep(write_sweep(text)).points]
    assert names == [
        "GARL-q0.5-seed0",
        "GARL-q0.5-seed1",
        "GARL-q1-seed0",
        "GARL-q1-seed1",
        "GRPO-seed0",
        "GRPO-seed1",
    ]


def test_exclude_takes_out_and_include_adds(write_sweep):
    text = (
        "grid: {estimator: [GARL, PAFT], q: [0.0, 0.5]}\n"
        "exclude: [{estimator: PAFT, q: 0}]\n"
        "include: [{estimator: GRPO, seed: [3, 4]}]\n"
    )
    assert settings(read_sweep(write_sweep(text))) == [
        {"estimator": "GARL", "q": 0.0},
        {"estimator": "GARL", "q": 0.5},
        {"estimator": "PAFT", "q": 0.5},
        {"estimator": "GRPO", "seed": 3},
        {"estimator": "GRPO", "seed": 4},
    ]


def test_estimator_without_q_is_run_once_for_all_q(write_sweep):
    sweep = read_sweep(write_sweep("grid: {estimator: [GARL, GRPO], q: [0.25, 0.75]}\n"))
    assert [point.name for point in sweep.points] == ["GARL-q0.25", "GARL-q0.75", "GRPO"]


@pytest.mark.parametrize("key", ["q", "model.q", "model.init_args.q"])
def test_spellings_of_a_key_are_one_axis(write_sweep, key):
    assert settings(read_sweep(write_sweep(f"grid: {{{key}: [0.5]}}\n"))) == [{"q": 0.5}]


def test_command_line_names_classes_first_and_the_points_settings_last(write_sweep):
    text = (
        "overrides: {trainer.max_steps: 60, model.init_args.rollouts: 4, seed: 9}\n"
        "grid: {q: [{splice: 0.05}], seed: [1], benchmark: [TwoHop], estimator: [jqlight.estimators.PAFT]}\n"
    )
    sweep = read_sweep(write_sweep(text))
    arguments = sweep.fit_arguments(sweep.points[0])
    assert arguments[:2] == ["--config", str(sweep.path.parent / "base.yaml")]
    assert arguments[2:] == [
        *("--data", "jqlight.benchmarks.TwoHop"),
        *("--model", "jqlight.estimators.PAFT"),
        *("--trainer.max_steps", "60"),
        *("--model.rollouts", "4"),
        *("--seed_everything", "1"),
        *("--model.q", '{"class_path": "jqlight.objective.Splice", "init_args": {"tau": 0.05}}'),
    ]


def test_a_point_may_have_a_base_of_its_own(write_sweep, tmp_path):
    (tmp_path / "finqa_cold.yaml").write_text("{}\n")
    sweep = read_sweep(write_sweep("base: base.yaml\ngrid: {base: [base.yaml, finqa_cold.yaml], q: [0.5]}\n"))
    assert [point.name for point in sweep.points] == ["base-q0.5", "finqa_cold-q0.5"]
    assert sweep.fit_arguments(sweep.points[1])[1] == str(tmp_path / "finqa_cold.yaml")
    assert "--base" not in sweep.fit_arguments(sweep.points[1])


def test_command_line_settings_win_over_the_files(write_sweep):
    path = write_sweep("overrides: {trainer.max_steps: 60}\ngrid: {q: [0.5]}\n")
    sweep = read_sweep(path, {"trainer.max_steps": 2, "data.init_args.path": "/data"}, "other")
    assert sweep.overrides == {"trainer.max_steps": 2, "data.path": "/data"}
    assert sweep.name == "other"


def test_points_that_would_share_a_name_are_told_apart_for_good(write_sweep):
    both = read_sweep(write_sweep("grid: {data.path: [/a/x y, /a/x:y]}\n")).points
    assert len({point.name for point in both}) == 2
    more = read_sweep(write_sweep("grid: {data.path: [/b, /a/x y, /a/x:y]}\n")).points
    assert {point.name for point in both} < {point.name for point in more}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("grids: {q: [0]}\n", "given section 'grids', allowed are base, experiment"),
        ("grid: {q: [1.5]}\n", "grid: q: given 1.5, allowed is a number in [0, 1], {splice: tau}"),
        ("grid: {q: [{spline: 1}]}\n", "grid: q: given {'spline': 1}"),
        ("grid: {estimator: [GARLIC]}\n", "grid: estimator: given 'GARLIC', allowed is GARL, PAFT, GRPO"),
        ("grid: {rollouts: [4]}\n", "given 'rollouts', allowed is base, benchmark, scenario, estimator, q, seed or a"),
        ("grid: {seed: [0.5]}\n", "grid: seed: given 0.5, allowed is a whole number"),
        ("grid: {q: []}\n", "grid: q: given no value"),
        ("grid: {q: [0], model.init_args.q: [1]}\n", "names the axis q a second time"),
        ("grid: {q: [0]}\npoints: [{q: 1}]\n", "q is set by grid and by points"),
        ("grid: {q: [0]}\nexclude: [{q: 1}]\n", "exclude: {'q': 1} matches no point"),
        ("overrides: {trainer.max_steps: 1}\n", "no points"),
        ("grid: 3\n", "grid: given 3, allowed is a list of mappings"),
        ("overrides: 3\ngrid: {q: [0]}\n", "overrides: given 3, allowed is a mapping"),
        ("base: nowhere.yaml\ngrid: {q: [0]}\n", "base: given nowhere.yaml, but there is no file at"),
        ("base:\ngrid: {q: [0]}\n", "base is missing"),
        ("- 1\n", "given a list"),
        ("grid: {q: [0]\n", "not readable as YAML"),
    ],
)
def test_mistakes_are_named(tmp_path, write_sweep, text, message):
    path = write_sweep(text)
    if text == "- 1\n":
        path.write_text(text)
    with pytest.raises(ConfigError, match=re.escape(message)):
        read_sweep(path)


def test_axis_given_on_the_command_line_is_refused(write_sweep):
    with pytest.raises(ConfigError, match=r"--model\.q is an axis"):
        read_sweep(write_sweep("grid: {q: [0]}\n"), {"model.q": 1})


def test_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.yaml: No such file"):
        read_sweep(tmp_path / "none.yaml")


HUGE = {
    "grid": {"grid": {key: list(range(1000)) for key in ("seed", "model.rollouts", "model.samples")}},
    "points": {"points": [{"seed": list(range(1000)), "model.rollouts": list(range(1000))}]},
    "include": {"include": [{"seed": list(range(6000))}]},
    "points x grid": {"points": [{"seed": list(range(100))}], "grid": {"model.rollouts": list(range(100))}},
}


@pytest.mark.parametrize("section", HUGE)
def test_points_are_counted_before_they_are_made(write_sweep, section):
    path = write_sweep(yaml.safe_dump(HUGE[section]), "sweep.yaml")
    with pytest.raises(ConfigError, match=rf"sweep\.yaml: {section}: gives [\d,]+ points, allowed are 5,000"):
        read_sweep(path)


@pytest.mark.parametrize("name", ["../../x", "a/b", ".x", "a\nb", "x" * 101])
def test_a_name_that_is_none(write_sweep, name):
    path = write_sweep("grid: {q: [0.5]}\n")
    with pytest.raises(ConfigError, match=r"--name: given .* allowed are letters"):
        read_sweep(path, name=name)
    for key in ("name", "experiment"):
        with pytest.raises(ConfigError, match=f"{key}: given .* allowed are letters"):
            read_sweep(write_sweep(yaml.safe_dump({"grid": {"q": [0.5]}, key: name})))


@pytest.mark.parametrize("estimator", ["../../GARL", "a..b", ".GARL", "GARL.", "a/b.c", ""])
def test_a_class_path_that_is_none(write_sweep, estimator):
    with pytest.raises(ConfigError, match=r"sweep\.yaml: points: estimator: given"):
        read_sweep(write_sweep(yaml.safe_dump({"points": [{"estimator": estimator}]}), "sweep.yaml"))


@pytest.mark.parametrize("value", ["..", "../..", ".hidden", "日本", ""])
def test_a_points_folder_is_always_inside_the_sweeps(write_sweep, value):
    (point,) = read_sweep(write_sweep(yaml.safe_dump({"grid": {"data.path": [value]}}))).points
    assert point.name.strip(".") and "/" not in point.name
