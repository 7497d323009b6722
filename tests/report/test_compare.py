import statistics
from dataclasses import replace

import mlflow
import pytest
from synthetic_runs import STEPS, Fake, log_run, log_sweep

from jqlight.errors import ConfigError
from jqlight.escape import escape_step
from jqlight.report.compare import compare, mean_curve, metric_keys
from jqlight.report.published import compare_with_published, read_published
from jqlight.report.runs import child_records, find_parents, get_run, single_records
from jqlight.report.tables import markdown, summary_table
from jqlight.tracking.mlflow import open_store

RUNS = [
    Fake("GRPO", seed=0, middle=None),
    Fake("GRPO", seed=1, middle=None),
    Fake("GARL", "splice(0.05)", 0, middle=12),
    Fake("GARL", "0.75", 0, middle=20, best=0.8),
    Fake("GARL", "0.75", 1, middle=30, best=0.6),
    Fake("GARL", "1", 0, middle=10),
    Fake("GARL", "1", 1, middle=None),
    Fake("GARL", "0.25", 0, middle=None),
]


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    folder = tmp_path_factory.mktemp("store")
    client = mlflow.MlflowClient(f"sqlite:///{folder}/mlflow.db")
    client.create_experiment("e", artifact_location=(folder / "artifacts").as_uri())
    client.create_experiment("empty")
    return client


@pytest.fixture(scope="module")
def comparison(client):
    parent = log_sweep(client, RUNS)
    return compare(child_records(client, [get_run(client, parent)], metric_keys))


def runs_of(comparison, method):
    return next(runs for setting, runs in comparison.settings().items() if setting.method == method)


def summary(comparison):
    """The summary as it is printed: headings and lines."""
    table = summary_table(comparison).reset_index()
    return list(table.columns), table.to_numpy().tolist()


def test_rows_are_settings_in_order_with_their_seeds(comparison):
    methods = [(setting.method, len(runs)) for setting, runs in comparison.settings().items()]
    assert methods == [("GARL q=0.25", 1), ("GARL q=0.75", 2), ("GARL q=1", 2), ("GARL splice(0.05)", 1), ("GRPO", 2)]
    assert comparison.k == 16


def test_best_validation_and_its_spread_over_seeds(comparison):
    found = runs_of(comparison, "GARL q=0.75")
    assert found["maj"].mean() == pytest.approx(0.7)
    assert found["maj"].std() == pytest.approx(statistics.stdev([0.8, 0.6]))
    # The others are those of the same validation, not each one's own best.
    assert found["best_step"].mean() == 40
    assert found["exact_maj"].mean() == pytest.approx(0.35)
    assert found["pass_1"].mean() == pytest.approx(0.175)
    assert runs_of(comparison, "GRPO")["best_step"].mean() == 20  # the earliest of equals
    assert len(runs_of(comparison, "GARL q=0.25")) == 1


def test_escape_step_is_where_the_running_mean_passes_the_threshold(comparison):
    success = [(step, Fake("GARL", middle=20).success(step)) for step in STEPS]
    expected = next(
        step for i, (step, _) in enumerate(success) if i >= 4 and sum(v for _, v in success[i - 4 : i + 1]) / 5 >= 0.1
    )
    assert escape_step(success) == expected
    assert runs_of(comparison, "GARL q=0.75")["escape"].tolist() == [expected, expected + 10]
    assert runs_of(comparison, "GRPO")["escape"].isna().all()


def test_cost_is_summed_over_the_run(comparison):
    found = runs_of(comparison, "GARL q=1").iloc[0]
    assert found["minutes"] == pytest.approx(1.0)  # 60 steps of 0.25 + 0.25 + 0.4 + 0.1 s
    assert found["tokens"] == pytest.approx(60 * 5 * 4 * 2)


def test_summary_says_how_many_escaped(comparison):
    headings, lines = summary(comparison)
    cells = {line[0]: dict(zip(headings, line)) for line in lines}
    assert cells["GARL q=0.75"]["maj@16"] == "0.700 (0.600, 0.800)"
    assert cells["GARL q=1"]["escape step"] == "10 (1 of 2)"
    assert cells["GRPO"]["escape step"] == "> 60 (0 of 2)"
    assert cells["GARL q=0.25"]["maj@16"] == "0.000"
    assert "test maj@16" not in headings
    assert markdown(summary_table(comparison)).splitlines()[1].startswith("| --- | ---: |")


def test_nobody_escaping_is_shown(client):
    parent = log_sweep(client, [Fake("GRPO", middle=None)], name="stuck")
    table = summary_table(compare(child_records(client, [get_run(client, parent)], metric_keys)))
    assert table["escape step"].tolist() == ["> 60 (0 of 1)"]


def test_mean_curve_is_over_the_runs_that_logged_a_step(comparison):
    curve = mean_curve(runs_of(comparison, "GARL q=0.75"), "val/maj_at_16")
    assert curve.loc[40].tolist() == pytest.approx([0.7, 0.6, 0.8])
    assert curve.loc[60].tolist() == pytest.approx([0.525, 0.45, 0.6])


def test_settings_that_differ_at_the_same_seed_make_rows_of_their_own(client):
    noisy = Fake("GARL", "1", 0, params=(("data.label_noise", "0.3"), ("optimizer.lr", "0.1")))
    clean = Fake("GARL", "1", 0, params=(("data.label_noise", "0"), ("optimizer.lr", "0.1")))
    parents = [get_run(client, log_sweep(client, [run], name=name)) for run, name in ((noisy, "n"), (clean, "c"))]
    found = compare(child_records(client, parents, metric_keys))
    assert list(found.panels()) == [
        "TwoHop, cold, label_noise 0",
        "TwoHop, cold, label_noise 0.3",
    ]
    headings, lines = summary(found)
    assert headings[:3] == ["setting", "method", "n"]
    assert lines[0][:2] == ["TwoHop, cold, label_noise 0", "GARL q=1"]


def test_runs_logged_before_there_was_a_commitment_parameter_share_a_row_with_newer_ones(client):
    old = Fake("GARL", "splice(0.05)", 0, params=(("q", "splice(0.05)"), ("model.q.tau", "0.05")))
    new = Fake("GARL", "splice(0.05)", 0, params=(("commitment", "splice"), ("commitment.tau", "0.05")))
    runs = [old, replace(new, seed=1), new]
    parents = [log_sweep(client, [run], name=f"s{number}") for number, run in enumerate(runs)]
    records = child_records(client, [get_run(client, parent) for parent in parents], metric_keys)
    ((setting, found),) = compare(records).settings().items()
    assert (setting.method, len(found)) == ("GARL splice(0.05)", 3)


def test_seed_alone_makes_no_new_row(client):
    runs = [Fake("GARL", "1", seed, params=(("data.seed", str(seed)),)) for seed in (0, 1)]
    parent = get_run(client, log_sweep(client, runs, name="seeds"))
    assert len(compare(child_records(client, [parent], metric_keys)).settings()) == 1


def test_values_logged_again_after_a_resume_count_once(client):
    experiment = client.get_experiment_by_name("e").experiment_id
    run_id = client.create_run(experiment, run_name="resumed").info.run_id
    for timestamp, step, value in ((1, 1, 0.1), (2, 2, 0.9), (3, 2, 0.2), (4, 3, 0.3)):
        client.log_metric(run_id, "train/success", value, timestamp=timestamp, step=step)
    (record,) = [r for r in single_records(client, "e", metric_keys) if r.run_id == run_id]
    assert record.curve("train/success") == [(1, 0.1), (2, 0.2), (3, 0.3)]


def test_of_a_point_that_was_run_again_the_newest_run_counts(client):
    experiment = client.get_experiment_by_name("e").experiment_id
    parent = log_sweep(client, [Fake("GARL", "1", 0, best=0.1)], name="again")
    log_run(client, experiment, Fake("GARL", "1", 0, best=0.9), parent)
    assert compare(child_records(client, [get_run(client, parent)], metric_keys)).runs["maj"].tolist() == [0.9]


def test_experiment_means_the_newest_sweep_of_each_name(client):
    client.create_experiment("two")
    log_sweep(client, [], experiment="two", name="a")
    newer = log_sweep(client, [], experiment="two", name="a")
    other = log_sweep(client, [], experiment="two", name="b")
    assert {run.info.run_id for run in find_parents(client, "two")} == {newer, other}


def test_what_is_not_there_is_named(client, tmp_path):
    with pytest.raises(ConfigError, match=r"--experiment: given nothing, the store has .*empty"):
        find_parents(client, "nothing")
    with pytest.raises(ConfigError, match="empty holds no runs"):
        single_records(client, "empty", metric_keys)
    with pytest.raises(ConfigError, match="--parent: given 0123"):
        get_run(client, "0123")
    with pytest.raises(ConfigError, match="no MLflow store at"):
        open_store(f"sqlite:///{tmp_path}/none.db", must_exist=True)


SECTION = {
    "source": "a paper",
    "rows": [
        {"benchmark": "TwoHop", "scenario": "cold", "estimator": "GARL", "q": 0.75, "maj_at_16": 38.3, "pass_at_1": 30},
        {"benchmark": "TwoHop", "scenario": "warm", "estimator": "GARL", "q": 0.75, "maj_at_16": 1.5},
    ],
}


def test_published_numbers_are_compared_with_ours_in_percent(comparison):
    source, rows = read_published(SECTION, "f.yaml")
    assert source == "a paper"
    table = compare_with_published(comparison, rows)
    assert table.reset_index().to_numpy().tolist() == [
        ["TwoHop, cold", "GARL q=0.75", "pass@1", "30.0", "17.5 (15.0, 20.0)", "2", "validation"],
        ["TwoHop, cold", "GARL q=0.75", "maj@16", "38.3", "70.0 (60.0, 80.0)", "2", "validation"],
        ["TwoHop, warm", "GARL q=0.75", "maj@16", "1.5", "–", "", ""],
    ]


def test_test_split_goes_before_validation(client):
    parent = log_sweep(client, [Fake("GARL", "0.75")], name="tested")
    (child,) = child_records(client, [get_run(client, parent)], metric_keys)
    client.log_metric(child.run_id, "test/maj_at_16", 0.42, step=60)
    found = compare(child_records(client, [get_run(client, parent)], metric_keys))
    table = compare_with_published(found, read_published(SECTION, "f.yaml")[1])
    assert table["our split"].tolist() == ["validation", "test", ""]
    assert table["ours"].tolist()[1] == "42.0"
    assert summary_table(found)["test maj@16"].tolist() == ["0.420"]


def test_published_rows_are_checked():
    with pytest.raises(ConfigError, match="allowed are benchmark, scenario, estimator, q, pass_at_1"):
        read_published({"rows": [{"benchmark": "FinQA", "maj@16": 3}]}, "f.yaml")
    assert read_published(None, "f.yaml") == ("", [])
