"""Training rollouts kept for people: the numbers of the step itself, at the right steps, once also after a resume."""

import json
import math
from pathlib import Path

import exact
import pytest
from enumeration import END, EOS, World, fit
from letters import STEPS, STOP, make, train
from lightning.pytorch.loggers import CSVLogger

from jqlight.estimators import GARL, GRPO, PAFT, SFT, Estimator, kept_rollouts
from jqlight.policy.forward import Network


class Keeper(CSVLogger):
    """Keeps what a run's logger would write, by file."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.tables: dict[tuple[str, int], list[dict]] = {}

    def log_samples(self, stage: str, step: int, rows: list[dict]) -> None:
        assert (stage, step) not in self.tables, "a step is kept once"
        self.tables[stage, step] = json.loads(json.dumps(rows, allow_nan=False))


def step_rows(estimator: Estimator, world: World, rollouts: list, folder: Path) -> list[dict]:
    keeper = Keeper(folder)
    fit(estimator, [[world.example]], [[rollouts]], logger=keeper)
    return keeper.tables["train", 1]


@pytest.mark.parametrize("scale", ["raw", "batch"])
def test_weight_and_log_likelihood_are_those_of_the_gradient(world: World, tmp_path: Path, scale: str) -> None:
    estimator = GARL(**world.settings(), q=0.5, rollouts=5, scale=scale)
    rows = step_rows(estimator, world, world.rationales, tmp_path)
    score, pathwise = exact.garl(world.log_weights, 0.5, baseline=True, normalize=True)
    for part, name in ((score, "weight"), (pathwise, "answer_weight")):
        total = sum(abs(float(c)) for c in part)
        assert [row[name] for row in rows] == pytest.approx([float(c) / total for c in part], rel=1e-9)
    assert min(row["weight"] for row in rows) < 0, "the baseline pushes some away"
    assert [row["log_likelihood"] for row in rows] == pytest.approx(world.log_weights, rel=1e-12)
    assert [row["truncated"] for row in rows] == [bool(z.forced_ids) for z in world.rationales]
    assert [row["length"] for row in rows] == [len(z.rationale_ids) for z in world.rationales]
    assert [row["empty"] for row in rows] == [z.rationale_ids in ([END], [EOS]) for z in world.rationales]
    unsampled = {"answer": None, "verdicts": None, "reward": None}
    assert all({**row, **unsampled} == row and row["id"] == "only" and row["reference"] == "a" for row in rows)
    assert [row["sample"] for row in rows] == list(range(5))


def test_sampled_answers_are_kept_with_verdicts_and_rewards(bare_world: World, tmp_path: Path) -> None:
    gold = list(bare_world.example.target_ids)
    outputs = sorted(bare_world.outputs, key=lambda output: output.answer_ids != gold)[2:8]
    right = [output.answer_ids == gold for output in outputs]
    assert sum(right) == 3
    estimator = GRPO(**bare_world.settings(), rollouts=6)
    rows = step_rows(estimator, bare_world, outputs, tmp_path)
    answers = [estimator.token_format.decode_answer(output.answer_ids) for output in outputs]
    assert [row["answer"] for row in rows] == answers
    assert [row["reward"] for row in rows] == [row["verdicts"]["exact"] for row in rows] == list(map(float, right))
    assert [row["weight"] > 0 for row in rows] == right
    assert math.fsum(abs(row["weight"]) for row in rows) == pytest.approx(1)
    assert {row["log_likelihood"] for row in rows} == {None}, "the step scored other answers than the gold one"


def test_a_group_without_a_signal_has_no_weight(world: World, tmp_path: Path) -> None:
    wrong = [o for o in world.outputs if o.answer_ids[0] == END][:3]
    rows = step_rows(GRPO(**world.settings(), rollouts=3), world, wrong, tmp_path)
    assert [row["weight"] for row in rows] == [0.0] * 3


def test_the_written_output_of_sft_is_kept(world: World, tmp_path: Path) -> None:
    keeper = Keeper(tmp_path)
    fit(SFT(**world.settings()), [[world.example]], [], logger=keeper)
    (row,) = keeper.tables["train", 1]
    assert (row["weight"], row["empty"], row["rationale"]) == (1.0, True, "</think>")


VALIDATED = {
    "limit_val_batches": 1,
    "val_check_interval": 3,
    "check_val_every_n_epoch": None,
    "num_sanity_val_steps": 1,
}


def test_steps_before_validations_and_the_first_and_last_are_kept(three_token_gpt2: str, tmp_path: Path) -> None:
    keeper = Keeper(tmp_path)
    train(make(GARL, three_token_gpt2), STEPS, tmp_path, logger=keeper, **VALIDATED)
    assert [step for stage, step in keeper.tables if stage == "train"] == [1, 3, 6, STEPS]
    assert [step for stage, step in keeper.tables if stage == "val"] == [0, 3, 6]
    for rows in (rows for (stage, _), rows in keeper.tables.items() if stage == "train"):
        groups = {id_: [row["sample"] for row in rows if row["id"] == id_] for id_ in (row["id"] for row in rows)}
        assert list(groups.values()) in ([[0, 1, 2, 3]], [[0, 1, 2, 3]] * 2)
    for row in keeper.tables["val", 3]:
        assert {"truncated", "empty", "length"} <= row.keys()


def test_without_validations_every_so_many_steps_are_kept(three_token_gpt2: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(kept_rollouts, "EVERY", 2)
    keeper = Keeper(tmp_path)
    train(make(PAFT, three_token_gpt2), 5, tmp_path, logger=keeper)
    assert list(keeper.tables) == [("train", step) for step in (1, 2, 4, 5)]


def test_a_step_that_began_again_has_each_group_once(world: World, tmp_path: Path, monkeypatch) -> None:
    """Memory runs out in the step's last forward pass, when the first group has already been kept."""
    run, passes, last = Network._run, [], math.inf

    def running_out(self: Network, *args: object) -> object:
        passes.append(args)
        if len(passes) == last:
            raise MemoryError
        return run(self, *args)

    monkeypatch.setattr(Network, "_run", running_out)
    tables = []
    for name in ("quiet", "again"):
        keeper = Keeper(tmp_path / name)
        estimator = GARL(**world.settings(), q=0.75, rollouts=5)
        fit(estimator, [[world.example] * 2], [[world.rationales] * 2], logger=keeper)
        tables.append(keeper.tables["train", 1])
        last = 2 * len(passes)  # the second run's last undisturbed one
    assert [row["sample"] for row in tables[1]] == list(range(5)) * 2
    assert estimator.step_log.out_of_memory == 1
    for quiet, again in zip(*tables, strict=True):
        assert again == {name: pytest.approx(v) if isinstance(v, float) else v for name, v in quiet.items()}


def test_a_resumed_run_keeps_the_rows_of_an_uninterrupted_one(three_token_gpt2: str, tmp_path: Path) -> None:
    whole, first, second = (Keeper(tmp_path / name) for name in ("whole", "first", "second"))
    train(make(GARL, three_token_gpt2), STEPS, tmp_path / "whole", logger=whole, **VALIDATED)
    train(make(GARL, three_token_gpt2), STOP + 1, tmp_path / "first", logger=first, **VALIDATED)  # one step is lost
    (stopped,) = (tmp_path / "first").glob("*.ckpt")
    train(make(GARL, three_token_gpt2), STEPS, tmp_path / "second", logger=second, resume=stopped, **VALIDATED)
    del first.tables["train", STOP + 1]  # that run's last step
    assert {**first.tables, **second.tables} == whole.tables
