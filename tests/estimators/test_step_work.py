"""What a step asks of tokenizer and engine: no text but of answers that a verifier reads, one call for the batch."""

import pytest
from enumeration import World, fit

from jqlight.benchmarks import Example
from jqlight.estimators import GARL, GRPO, PAFT, RLOO, Estimator, MaxRL, base
from jqlight.sampling import Rollout


@pytest.mark.parametrize(
    ("kind", "verified"), [(GARL, False), (PAFT, False), (GRPO, True), (RLOO, True), (MaxRL, True)]
)
def test_only_verified_answers_become_text(
    kind: type[Estimator], verified: bool, bare_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    estimator = kind(**bare_world.settings(), rollouts=3)
    drawn: list[Rollout] = (bare_world.outputs if verified else bare_world.rationales)[:3]
    examples = [Example(f"q{i}", "", bare_world.prompt_ids, "a", (2, 0), ("a",)) for i in range(2)]
    answers: list[list[int]] = []
    read = estimator.token_format.decode_answer
    monkeypatch.setattr(estimator.token_format, "decode_answer", lambda ids: answers.append(ids) or read(ids))
    monkeypatch.setattr(base, "due", lambda *_: False)  # a step whose rollouts are not kept, as most are not
    lengths = []
    decode = estimator.token_format.decode
    monkeypatch.setattr(estimator.token_format, "decode", lambda ids: lengths.append(len(ids)) or decode(ids))
    fit(estimator, [examples], [[drawn, drawn]])
    assert answers == ([rollout.answer_ids for rollout in drawn] * 2 if verified else [])
    assert verified or max(lengths) <= 32, "the beginning of a rationale, which tells whether it is empty"
    assert len(estimator.sampler.answers) == 1, "one call for both prompts"
