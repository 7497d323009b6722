"""Budgets and phases of the sampler, on an engine that plays back a script."""

import math
from dataclasses import replace

import pytest
from transformers import AutoTokenizer

from jqlight.errors import ConfigError
from jqlight.sampling import Completion, Decoding, Request, Sampler, SamplerConfig, Stop, answer_seed
from jqlight.token_format import Thinking, TokenFormat

CONFIG = SamplerConfig(max_thinking_tokens=6, max_answer_tokens=4)
EOS, END = 1, 4


class ScriptedEngine:
    """Plays one text per request and call, cut as a real engine would cut it, and keeps what it was asked."""

    def __init__(self, token_format: TokenFormat, *phases: list[str]):
        self.token_format = token_format
        self.phases = list(phases)
        self.calls: list[tuple[list[Request], Stop, Decoding]] = []
        self.synced: list[dict] = []
        self.closed = False

    def generate(self, requests, stop, decoding):
        self.calls.append((list(requests), stop, decoding))
        texts = self.phases[len(self.calls) - 1]
        return [self._play(text, request, stop) for text, request in zip(texts, requests, strict=True)]

    def sync(self, weights):
        self.synced.append(dict(weights))

    def close(self):
        self.closed = True

    def _play(self, text, request, stop):
        kept: list[int] = []
        for token in self.token_format.tokenizer.encode(text, add_special_tokens=False)[: request.max_tokens]:
            kept.append(token)
            if token in stop.token_ids or (stop.string and stop.string in self.token_format.decode(kept)):
                break
        return Completion(kept, [-0.5 * (i + 1) for i in range(len(kept))])


@pytest.fixture
def tokenizer(tiny_qwen3):
    return AutoTokenizer.from_pretrained(tiny_qwen3)


@pytest.fixture
def one_token(tokenizer):
    return TokenFormat(tokenizer, Thinking(start="<think>"))


@pytest.fixture
def many_tokens(tokenizer):
    return TokenFormat(tokenizer, Thinking(start="", end="##"))


def sample(token_format, phases, *, seeds=((11,),), answers=True, config=CONFIG):
    engine = ScriptedEngine(token_format, *phases)
    prompts = [token_format.encode_prompt(f"Q{i}") for i in range(len(seeds))]
    rollouts = Sampler(engine, token_format, config).sample(prompts, seeds, answers=answers, decoding=Decoding())
    return rollouts, engine, prompts


def test_a_rationale_that_ends_itself_is_not_forced(one_token):
    [[rollout]], _, _ = sample(one_token, [["abc</think>zzz"], ["\nx<eos>"]])
    assert one_token.decode(rollout.rationale_ids) == "abc</think>"
    assert rollout.forced_ids == []
    assert not rollout.truncated
    assert rollout.rationale_logprobs == [-0.5, -1.0, -1.5, -2.0]
    assert one_token.decode(rollout.answer_ids) == "\nx<eos>"
    assert rollout.answer_logprobs == [-0.5, -1.0, -1.5]


def test_the_end_is_forced_when_the_budget_has_run_out(one_token):
    [[rollout]], engine, [prompt] = sample(one_token, [["abcdefghij"], ["x<eos>"]])
    assert one_token.decode(rollout.rationale_ids) == "abcdef"
    assert rollout.forced_ids == [END]
    assert rollout.truncated
    assert len(rollout.rationale_logprobs) == 6
    assert engine.calls[1][0][0].prompt_ids == [*prompt, *rollout.rationale_ids, END]


def test_a_marker_at_the_very_end_of_the_budget_counts(one_token):
    [[rollout]], _, _ = sample(one_token, [["abcde</think>"], ["x"]])
    assert one_token.decode(rollout.rationale_ids) == "abcde</think>"
    assert not rollout.truncated


def test_an_end_of_sequence_while_thinking_stays_and_the_end_is_forced_behind_it(one_token):
    [[rollout]], engine, [prompt] = sample(one_token, [["ab<eos>c"], ["x<eos>"]])
    assert rollout.rationale_ids[-1] == EOS
    assert one_token.decode(rollout.rationale_ids) == "ab<eos>"
    assert rollout.forced_ids == [END]
    assert engine.calls[1][0][0].prompt_ids == [*prompt, *rollout.rationale_ids, END]


def test_an_empty_budgeted_answer_is_cut(one_token):
    [[rollout]], engine, _ = sample(one_token, [["a</think>"], ["too long an answer"]])
    assert one_token.decode(rollout.answer_ids) == "too "
    assert engine.calls[1][0][0].max_tokens == CONFIG.max_answer_tokens


def test_without_answers_there_is_one_call(one_token):
    [[rollout]], engine, _ = sample(one_token, [["a</think>"]], answers=False)
    assert len(engine.calls) == 1
    assert rollout.answer_ids == [] and rollout.answer_logprobs == []


def test_one_call_per_phase_for_the_whole_batch_in_order(one_token):
    seeds = [[1, 2, 3], [4], [5, 6]]
    thoughts = [f"{i}</think>" for i in range(6)]
    replies = [f"r{i}" for i in range(6)]
    rollouts, engine, prompts = sample(one_token, [thoughts, replies], seeds=seeds)
    assert len(engine.calls) == 2
    assert [len(row) for row in rollouts] == [3, 1, 2]
    flat = [rollout for row in rollouts for rollout in row]
    assert [one_token.decode(r.rationale_ids) for r in flat] == thoughts
    assert [one_token.decode(r.answer_ids) for r in flat] == replies
    asked = engine.calls[0][0]
    assert [r.seed for r in asked] == [1, 2, 3, 4, 5, 6]
    assert [list(r.prompt_ids) for r in asked] == [prompts[i] for i in (0, 0, 0, 1, 2, 2)]
    assert [r.seed for r in engine.calls[1][0]] == [answer_seed(seed) for seed in range(1, 7)]


def test_stops_of_a_one_token_marker(one_token):
    _, engine, _ = sample(one_token, [["a"], ["b"]])
    assert engine.calls[0][1] == Stop((END, EOS))
    assert engine.calls[1][1] == Stop((EOS,))


def test_a_marker_of_several_tokens_is_matched_as_text(many_tokens):
    [[rollout]], engine, _ = sample(many_tokens, [["a#b##c"], ["x"]])
    assert engine.calls[0][1] == Stop((EOS,), "##")
    assert many_tokens.decode(rollout.rationale_ids) == "a#b##"
    assert not rollout.truncated


def test_a_marker_of_several_tokens_is_forced_whole(many_tokens):
    [[rollout]], engine, [prompt] = sample(many_tokens, [["abcde#"], ["x"]])
    assert many_tokens.decode(rollout.rationale_ids) == "abcde#"
    assert rollout.forced_ids == list(many_tokens.end_ids)
    assert len(rollout.forced_ids) == 2
    assert engine.calls[1][0][0].prompt_ids == [*prompt, *rollout.rationale_ids, *many_tokens.end_ids]


def test_only_the_end_of_a_rationale_is_decoded_to_find_a_marker(many_tokens, monkeypatch):
    decoded = []
    decode = many_tokens.decode
    sampler = Sampler(ScriptedEngine(many_tokens), many_tokens, CONFIG)
    monkeypatch.setattr(many_tokens, "decode", lambda ids: decoded.append(len(ids)) or decode(ids))
    letters = many_tokens.tokenizer.encode("abcdefgh" * 20, add_special_tokens=False)
    assert not sampler.ends_thinking(letters)
    assert sampler.ends_thinking([*letters, *many_tokens.end_ids])
    assert not sampler.ends_thinking([])
    assert max(decoded) == 4 * len("##")


def test_a_marker_of_one_token_is_found_without_decoding(one_token, monkeypatch):
    sampler = Sampler(ScriptedEngine(one_token), one_token, CONFIG)
    monkeypatch.setattr(one_token, "decode", None)
    assert sampler.ends_thinking([7, END]) and not sampler.ends_thinking([END, 7])


def test_all_end_of_sequence_ids_end_an_answer(tokenizer):
    token_format = TokenFormat(tokenizer, Thinking(start=""), extra_eos=[7])
    _, engine, _ = sample(token_format, [["a</think>"], ["x"]])
    assert engine.calls[0][1].token_ids == (END, EOS, 7)
    assert engine.calls[1][1].token_ids == (EOS, 7)


def test_prompts_and_seeds_must_pair_up(one_token):
    sampler = Sampler(ScriptedEngine(one_token, []), one_token, CONFIG)
    with pytest.raises(ValueError, match="zip"):
        sampler.sample([[1, 2]], [[1], [2]], answers=False, decoding=Decoding())


def test_decoding_reaches_both_phases(one_token):
    engine = ScriptedEngine(one_token, ["a"], ["b"])
    decoding = replace(Decoding(), temperature=0.3)
    Sampler(engine, one_token, CONFIG).sample([[5]], [[1]], answers=True, decoding=decoding)
    assert [call[2] for call in engine.calls] == [decoding, decoding]


def test_sync_and_close_reach_the_engine(one_token):
    engine = ScriptedEngine(one_token)
    sampler = Sampler(engine, one_token, CONFIG)
    sampler.sync([("w", 1)])
    sampler.close()
    assert engine.synced == [{"w": 1}]
    assert engine.closed


@pytest.mark.parametrize(
    ("name", "value"),
    [(name, v) for name, wrong in {"temperature": (-1, math.inf), "top_p": (0, 1.1, math.nan)}.items() for v in wrong],
)
def test_a_distribution_that_does_not_exist(name, value):
    with pytest.raises(ConfigError, match=r"sampler\.evaluation\.top_k: given -1"):
        SamplerConfig(evaluation=Decoding(top_k=-1))
    with pytest.raises(ConfigError, match=rf"sampler\.evaluation\.{name}: given {value}, allowed is a "):
        SamplerConfig(evaluation=Decoding(**{name: value}))
