"""What both engines promise, on the same tiny model."""

import random
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from engine_reference import log_probs, shifted

from jqlight.errors import EngineError
from jqlight.sampling import Decoding, Request, Stop

pytestmark = pytest.mark.engine
NEVER = Stop(())


def test_a_request_gets_the_same_tokens_in_any_company(engine, requests_):
    together = engine.generate(requests_, NEVER, Decoding())
    order = [7, 2, 11, 0, 5, 9, 1, 10, 3, 8, 6, 4]
    shuffled = engine.generate([requests_[i] for i in order], NEVER, Decoding())
    alone = engine.generate(requests_[5:6], NEVER, Decoding())
    for place, i in enumerate(order):
        assert shuffled[place].token_ids == together[i].token_ids
        assert shuffled[place].logprobs == pytest.approx(together[i].logprobs, abs=1e-4)
    assert alone[0].token_ids == together[5].token_ids


def test_a_thread_during_a_training_step_samples_the_same_and_does_not_change_it(engine, model, requests_):
    """What sampling ahead rests on: gradients, gradient mode and random states of the other thread stay as they are."""

    def gradient():
        model.zero_grad()
        model(torch.tensor([requests_[1].prompt_ids])).logits.square().mean().backward()
        return torch.cat([p.grad.flatten() for p in model.parameters()])

    expected, alone = engine.generate(requests_, NEVER, Decoding()), gradient()
    before, rounds = torch.get_rng_state(), 0
    with ThreadPoolExecutor(1) as threads:
        drawing = threads.submit(engine.generate, requests_, NEVER, Decoding())
        while not drawing.done():
            assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
            assert torch.equal(gradient(), alone)
            rounds += 1
    assert rounds > 0
    assert [c.token_ids for c in drawing.result()] == [c.token_ids for c in expected]
    assert torch.equal(torch.get_rng_state(), before)


def test_other_seeds_give_other_tokens(engine, requests_):
    prompt = requests_[0].prompt_ids
    drawn = engine.generate([Request(prompt, seed, 12) for seed in range(16)], NEVER, Decoding())
    assert len({tuple(completion.token_ids) for completion in drawn}) == 16


def test_budgets_are_per_request(engine, requests_):
    drawn = engine.generate(requests_, NEVER, Decoding())
    assert [len(c.token_ids) for c in drawn] == [r.max_tokens for r in requests_]


def test_log_probs_are_the_models(engine, model, requests_):
    for request, drawn in zip(requests_, engine.generate(requests_, NEVER, Decoding()), strict=True):
        expected = log_probs(model, request.prompt_ids, drawn.token_ids)
        torch.testing.assert_close(torch.tensor(drawn.logprobs), expected, atol=1e-4, rtol=0)


def test_log_probs_do_not_follow_the_temperature(engine, model, requests_):
    decoding = Decoding(temperature=0.6, top_p=0.9, top_k=20)
    for request, drawn in zip(requests_, engine.generate(requests_, NEVER, decoding), strict=True):
        expected = log_probs(model, request.prompt_ids, drawn.token_ids)
        torch.testing.assert_close(torch.tensor(drawn.logprobs), expected, atol=1e-4, rtol=0)


def test_first_tokens_follow_the_models_distribution(engine, model, requests_):
    prompt, draws = list(requests_[1].prompt_ids), 3000
    completions = engine.generate([Request(prompt, seed, 1) for seed in range(draws)], NEVER, Decoding())
    counts = torch.bincount(torch.tensor([c.token_ids[0] for c in completions]), minlength=model.config.vocab_size)
    expected = draws * model(torch.tensor([prompt])).logits[0, -1].softmax(-1).detach()
    common = expected >= 5
    seen = torch.cat([counts[common], counts[~common].sum()[None]])
    wanted = torch.cat([expected[common], expected[~common].sum()[None]])
    statistic, freedom = float(((seen - wanted) ** 2 / wanted).sum()), len(wanted) - 1
    assert statistic < freedom + 4 * (2 * freedom) ** 0.5


@pytest.mark.parametrize("decoding", [Decoding(temperature=0), Decoding(top_k=1), Decoding(top_p=1e-6)])
def test_greedy_takes_the_most_probable_token(engine, model, requests_, decoding):
    prompt = list(requests_[0].prompt_ids)
    drawn = engine.generate([Request(prompt, 3, 8)], NEVER, decoding)[0].token_ids
    for i, token in enumerate(drawn):
        assert token == int(model(torch.tensor([prompt + drawn[:i]])).logits[0, -1].argmax())


def test_a_stop_token_ends_and_is_kept_and_nothing_else_ends(engine, requests_):
    prompt = requests_[0].prompt_ids
    free = engine.generate([Request(prompt, seed, 200) for seed in range(8)], NEVER, Decoding())
    assert any(1 in c.token_ids[:-1] for c in free)  # past <eos>: `stop` is the only rule
    token = free[0].token_ids[20]
    stopped = engine.generate([Request(prompt, seed, 200) for seed in range(8)], Stop((token, 0)), Decoding())
    for before, after in zip(free, stopped, strict=True):
        end = next((i + 1 for i, drawn in enumerate(before.token_ids) if drawn in (token, 0)), 200)
        assert after.token_ids == before.token_ids[:end]
        assert len(after.logprobs) == end


def test_a_stop_string_is_found_across_token_borders(engine, token_format, requests_):
    prompt = requests_[0].prompt_ids
    free = engine.generate([Request(prompt, 5, 60)], NEVER, Decoding())[0]
    text = token_format.tokenizer.convert_ids_to_tokens(free.token_ids)
    string = "".join(text[30:33])
    assert string not in "".join(text[:32])
    stopped = engine.generate([Request(prompt, 5, 60)], Stop((), string), Decoding())[0]
    assert stopped.token_ids == free.token_ids[:33]
    assert stopped.logprobs == pytest.approx(free.logprobs[:33], abs=1e-5)


def test_a_stop_string_may_end_inside_a_token(engine, token_format, requests_):
    prompt = requests_[0].prompt_ids
    merged = token_format.tokenizer.convert_tokens_to_ids("ND.")
    free = engine.generate([Request(prompt, seed, 400) for seed in range(16)], NEVER, Decoding())
    seed, at = next((s, c.token_ids.index(merged)) for s, c in enumerate(free) if merged in c.token_ids[40:])
    head = "".join(token_format.tokenizer.convert_ids_to_tokens(free[seed].token_ids[at - 2 : at]))
    stopped = engine.generate([Request(prompt, seed, 400)], Stop((), head + "N"), Decoding())[0]
    assert stopped.token_ids == free[seed].token_ids[: at + 1]


def test_a_special_token_is_text_for_a_stop_string(engine, token_format, requests_):
    prompt = requests_[0].prompt_ids
    end = token_format.end_ids[0]
    free = engine.generate([Request(prompt, seed, 400) for seed in range(16)], NEVER, Decoding())
    seed, at = next((s, c.token_ids.index(end)) for s, c in enumerate(free) if end in c.token_ids)
    stopped = engine.generate([Request(prompt, seed, 400)], Stop((), "</think>"), Decoding())[0]
    assert stopped.token_ids == free[seed].token_ids[: at + 1]


def test_random_states_are_left_alone(engine, requests_):
    random.seed(1), np.random.seed(2), torch.manual_seed(3)
    states = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()
    engine.generate(requests_, NEVER, Decoding())
    assert random.getstate() == states[0]
    assert (np.random.get_state()[1] == states[1]).all()
    assert torch.equal(torch.get_rng_state(), states[2])


def test_training_continues_after_generating(engine, model, requests_):
    engine.generate(requests_[:2], NEVER, Decoding())
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()
    model(torch.tensor([requests_[0].prompt_ids])).logits.sum().backward()


def test_sync_gives_the_engine_the_new_weights(engine, model, requests_):
    original = {name: weight.clone() for name, weight in model.named_parameters()}
    engine.generate(requests_, NEVER, Decoding())  # fills the prefix cache with the old keys and values
    shifted(model)
    try:
        engine.sync((name, weight.detach()) for name, weight in model.named_parameters())
        gap = 0.0
        for request, drawn in zip(requests_, engine.generate(requests_, NEVER, Decoding()), strict=True):
            expected = log_probs(model, request.prompt_ids, drawn.token_ids)
            gap = max(gap, float((torch.tensor(drawn.logprobs) - expected).abs().max()))
        assert gap < 1e-4
    finally:
        engine.sync(original.items())


def test_sync_works_in_a_validation_step(engine, model, requests_):
    before = engine.generate(requests_[:3], NEVER, Decoding())
    with torch.inference_mode():
        engine.sync((name, weight.detach()) for name, weight in model.named_parameters())
    assert [c.token_ids for c in engine.generate(requests_[:3], NEVER, Decoding())] == [c.token_ids for c in before]


def test_a_request_that_does_not_fit_is_refused(engine, requests_):
    prompt = requests_[0].prompt_ids
    with pytest.raises(EngineError, match=r"do not fit in the engine's 512"):
        engine.generate([Request(prompt, 0, 512 - len(prompt) + 1)], NEVER, Decoding())
    full = engine.generate([Request(prompt, 0, 512 - len(prompt))], NEVER, Decoding())[0]
    assert len(full.token_ids) == 512 - len(prompt)


def test_no_requests_no_completions(engine):
    assert engine.generate([], NEVER, Decoding()) == []
