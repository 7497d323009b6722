"""Real runs that sample one batch ahead: which weights draw what and when, what is logged, resume, errors, threads."""

import threading
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from enumeration import World, quiet_trainer
from letters import STEPS, STOP, Letters, make, train
from lightning import Callback
from torch.utils.data import DataLoader

from jqlight.benchmarks import Example
from jqlight.errors import ConfigError, EngineError
from jqlight.estimators import GARL, GRPO, PAFT, RLOO, Estimator, MaxRL
from jqlight.estimators.rollouts import Lookahead, StepBatch
from jqlight.sampling import Rollout

FRESH = [0, 3, 6]  # the first steps of the passes


def helpers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("lookahead")]


def mass(module: torch.nn.Module) -> float:
    """A number that every weight is part of."""
    return sum(p.detach().double().abs().sum().item() for p in module.parameters())


class Watch(Callback):
    """Examples and weights that each step begins with; what is sampled for it, where, and from which weights."""

    def __init__(self, estimator: Estimator) -> None:
        self.trained: dict[int, list[str]] = {}
        self.weights: dict[int, float] = {}
        self.drawn: dict[int, tuple[list[str], float]] = {}
        self.ahead: set[int] = set()
        self.autocast: set[bool] = set()
        self.validated: list[bool] = []
        sample = estimator.sample

        def watched(batch: Sequence[Example], stage: str, n: int, **settings: int) -> list[list[Rollout]]:
            engine = mass(estimator.sampler.engine.model)
            if stage == "train":
                assert settings["step"] not in self.drawn, "nothing is drawn twice"
                self.drawn[settings["step"]] = [e.id for e in batch], engine
                self.autocast.add(torch.is_autocast_enabled("cpu"))
                if threading.current_thread() in helpers():
                    self.ahead.add(settings["step"])
            else:
                assert not any(thread is threading.current_thread() for thread in helpers())
                self.validated.append(engine == mass(estimator.policy.model))
            return sample(batch, stage, n, **settings)

        estimator.sample = watched

    def on_train_batch_start(self, trainer, module: Estimator, batch: list[Example], batch_idx: int) -> None:
        self.trained[trainer.global_step] = [e.id for e in batch]
        self.weights[trainer.global_step] = mass(module.policy.model)


def test_each_batch_is_drawn_beside_the_step_before_it_from_the_weights_before_that(
    three_token_gpt2: str, tmp_path: Path
) -> None:
    estimator = make(GARL, three_token_gpt2, lookahead=1)
    watch = Watch(estimator)
    course = train(estimator, STEPS, tmp_path, callbacks=[watch])
    assert sorted(watch.drawn) == list(range(STEPS)), "nothing is drawn for a step behind the last"
    assert sorted(set(range(STEPS)) - watch.ahead) == FRESH
    for step, (ids, weights) in watch.drawn.items():
        assert ids == watch.trained[step]
        assert weights == watch.weights[step if step in FRESH else step - 1]
    assert len(set(watch.weights.values())) == STEPS, "the weights move"
    for step, metrics in course.steps.items():
        stale = step not in FRESH
        assert metrics["train/staleness"] == stale
        assert ("train/importance_ratio" in metrics) == ("train/importance_clipped" in metrics) == stale
        assert ("train/logprob_gap" in metrics) == (not stale)
    ratios = [m["train/importance_ratio"] for m in course.steps.values() if "train/importance_ratio" in m]
    assert all(0.5 < ratio < 2 and ratio != 1 for ratio in ratios)
    assert not helpers()


def test_off_means_off(three_token_gpt2: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Lookahead, "_start", lambda *_: pytest.fail("a thread without lookahead"))
    estimator = make(GARL, three_token_gpt2)
    watch = Watch(estimator)
    course = train(estimator, STEPS, tmp_path, callbacks=[watch])
    for step, metrics in course.steps.items():
        assert watch.drawn[step] == (watch.trained[step], watch.weights[step])
        assert not {"train/staleness", "train/importance_ratio", "train/importance_clipped"} & set(metrics)
        assert metrics["train/logprob_gap"] < 1e-5


@pytest.mark.parametrize("kind", [GARL, PAFT, GRPO, RLOO, MaxRL])
def test_the_course_is_the_same_whatever_the_global_random_states(
    kind: type[Estimator], three_token_gpt2: str, tmp_path: Path
) -> None:
    """The engine puts them back from a thread beside the step, so that nothing in a step may take from them."""
    courses = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        courses.append(train(make(kind, three_token_gpt2, lookahead=1), 3, tmp_path / str(seed)).steps)
    assert courses[0] == courses[1]
    assert [m["train/staleness"] for m in courses[0].values()] == [0, 1, 1]


def test_a_validation_within_a_pass_keeps_what_was_drawn(three_token_gpt2: str, tmp_path: Path) -> None:
    estimator = make(GARL, three_token_gpt2, lookahead=1)
    watch = Watch(estimator)
    train(estimator, 6, tmp_path, callbacks=[watch], limit_val_batches=1, val_check_interval=2)
    assert sorted(set(range(6)) - watch.ahead) == [0, 3]
    assert len(watch.validated) > 2 and all(watch.validated), "scores are of the weights after the last step"


@pytest.mark.parametrize("limit", [1, 2])
def test_a_shortened_pass_ends_early(limit: int, three_token_gpt2: str, tmp_path: Path) -> None:
    estimator = make(GARL, three_token_gpt2, lookahead=1)
    watch = Watch(estimator)
    train(estimator, 5, tmp_path, callbacks=[watch], limit_train_batches=limit)
    assert sorted(set(range(5)) - watch.ahead) == list(range(0, 5, limit))
    assert sorted(watch.drawn) == list(range(5))


@pytest.mark.parametrize("kind", [GARL, PAFT])
def test_a_resumed_run_goes_on_with_what_was_drawn_ahead(
    kind: type[Estimator], three_token_gpt2: str, tmp_path: Path
) -> None:
    whole = make(kind, three_token_gpt2, lookahead=1)
    watch = Watch(whole)
    course = train(whole, STEPS, tmp_path / "whole", callbacks=[watch])
    (killed,) = (tmp_path / "whole").glob("*.ckpt")
    resumed = make(kind, three_token_gpt2, lookahead=1)
    rest = Watch(resumed)
    again = train(resumed, STEPS, tmp_path / "second", resume=killed, callbacks=[rest])
    assert rest.trained == {step: watch.trained[step] for step in range(STOP, STEPS)}
    assert rest.drawn == {step: watch.drawn[step] for step in range(STOP + 1, STEPS)}
    assert again.steps == {step: course.steps[step] for step in range(STOP, STEPS)}
    assert [m["train/staleness"] for m in again.steps.values()] == [1, 1, 0]
    for ours, theirs in zip(whole.policy.parameters(), resumed.policy.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_a_new_fit_forgets_what_was_drawn_before_it(three_token_gpt2: str, tmp_path: Path) -> None:
    estimator = make(GARL, three_token_gpt2, lookahead=1)
    estimator.run_seed = 0  # the loader's own, in whose order the first batch is looked up here
    data = Letters(prompts_per_step=2, max_prompt_tokens=6).bind(estimator.token_format)
    first = data.train_dataloader().peek()
    assert first is not None
    estimator.source = Lookahead(lambda batch: pytest.fail("old rollouts"))
    estimator.source._key = 0, [example.id for example in first]
    estimator.source._prefetched = [[Rollout([1], [-1.0])] * 4] * 2
    watch = Watch(estimator)
    course = train(estimator, 1, tmp_path, callbacks=[watch])
    assert watch.drawn[0][0] == [e.id for e in first] and course.steps[0]["train/staleness"] == 0


def test_the_thread_samples_in_the_steps_number_format(three_token_gpt2: str, tmp_path: Path) -> None:
    estimator = make(GARL, three_token_gpt2, lookahead=1)
    watch = Watch(estimator)
    train(estimator, 2, tmp_path, callbacks=[watch], precision="bf16-mixed")
    assert watch.ahead == {1} and watch.autocast == {True}


# -- what may go wrong -------------------------------------------------------------------------------------------------


def test_an_error_in_the_thread_ends_the_run(three_token_gpt2: str, tmp_path: Path) -> None:
    estimator = make(GARL, three_token_gpt2, lookahead=1)
    sample = estimator.sample

    def failing(*args: object, step: int = 0, **settings: object) -> list[list[Rollout]]:
        if helpers() and threading.current_thread() is helpers()[0]:
            raise EngineError(f"no rollouts for step {step}")
        return sample(*args, step=step, **settings)

    estimator.sample = failing
    with pytest.raises(EngineError, match="no rollouts for step 1"):
        train(estimator, STEPS, tmp_path)
    assert not helpers()


def test_an_error_in_the_step_is_the_one_that_is_raised(
    three_token_gpt2: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    estimator = make(GARL, three_token_gpt2, lookahead=1)
    started, draw = [], Estimator.draw

    def failing(self: Estimator, batch: StepBatch) -> list[list[Rollout]]:
        if threading.current_thread() not in helpers():
            return draw(self, batch)
        started.append(batch.step)
        raise ZeroDivisionError

    monkeypatch.setattr(Estimator, "draw", failing)
    monkeypatch.setattr(estimator.all_or_nothing, "step", lambda *_: pytest.fail("the step's own"))
    with pytest.raises(pytest.fail.Exception, match="the step's own"):
        train(estimator, STEPS, tmp_path)
    assert started == [1] and not helpers()


class Plain(Letters):
    """Batches from a loader that knows nothing of what comes next."""

    def train_dataloader(self) -> DataLoader:
        return DataLoader(self.examples("train"), batch_size=2, collate_fn=list)


def test_a_loader_without_peek_is_refused(three_token_gpt2: str) -> None:
    estimator = make(GARL, three_token_gpt2, lookahead=1)
    with pytest.raises(ConfigError, match=r"sampler.lookahead: given 1, allowed is 0 with DataLoader: .*peek"):
        quiet_trainer(max_steps=1).fit(estimator, datamodule=Plain(prompts_per_step=2, max_prompt_tokens=6))


def test_rollouts_are_for_one_batch_and_given_once(world: World) -> None:
    wanted, other = StepBatch(4, [world.example]), StepBatch(5, [world.example])
    drawn = []

    def draw(batch: StepBatch) -> list[list[Rollout]]:
        drawn.append((batch.step, threading.current_thread() in helpers()))
        return [world.rationales[: batch.step]]

    def prefetch() -> Lookahead:
        source = Lookahead(draw)
        with source.prefetching(wanted, nullcontext()):
            pass
        assert drawn.pop() == (4, True)
        return source

    source = prefetch()
    rollouts, ratios = source.rollouts(wanted)
    assert rollouts == [world.rationales[:4]] and ratios is not None and not drawn
    assert source.rollouts(wanted)[1] is None and drawn.pop() == (4, False), "once"
    source = prefetch()
    assert source.rollouts(other)[1] is None and drawn.pop() == (5, False)
    assert source.rollouts(wanted)[1] is None and drawn.pop() == (4, False), "nothing is kept"
    del source
    for thread in helpers():  # of the sources above, which end by themselves when they are garbage
        thread.join(10)
    source = prefetch()
    source.close()
    assert source.rollouts(wanted)[1] is None and not helpers()
