import pytest
import tokenizers_by_family as families

from jqlight.errors import ConfigError
from jqlight.sampling import Sampler, SamplerConfig
from jqlight.token_format import Thinking, TokenFormat

FAMILIES = {
    "qwen": families.qwen_like(),
    "smollm": families.smollm_like(),
    "sentencepiece": families.sentencepiece_like(),
}
ANSWERS = [
    "yes",
    "17 October 1931",
    "-14.5%",
    "$ 35 million",
    "Angela Merkel",
    "São Paulo",
    '(A) and "B"',
    "中国",
    "\n x",
]
SEPARATORS = ["\n\n", "\n", " ", "", " Answer: "]


@pytest.fixture(params=list(FAMILIES))
def tokenizer(request):
    return FAMILIES[request.param]


def test_families_differ_in_what_a_marker_is():
    lengths = {name: len(TokenFormat(tokenizer, Thinking()).end_ids) for name, tokenizer in FAMILIES.items()}
    assert lengths["qwen"] == 1
    assert lengths["smollm"] > 1
    assert lengths["sentencepiece"] > 1


@pytest.mark.parametrize("end", ["</think>", "Answer:", "\n####"])
def test_forced_tokens_spell_the_marker(tokenizer, end):
    form = TokenFormat(tokenizer, Thinking(end=end))
    assert form.decode(form.end_ids) == end


@pytest.mark.parametrize("separator", SEPARATORS)
@pytest.mark.parametrize("answer", ANSWERS)
def test_scored_tokens_are_the_answers_own_text_behind_the_marker(tokenizer, separator, answer):
    form = TokenFormat(tokenizer, Thinking(separator=separator))
    target = form.encode_target(answer)
    assert target[-1] == tokenizer.eos_token_id
    assert form.decode([*form.end_ids, *target[:-1]]) == "</think>" + separator + answer
    assert form.decode_answer(target) == answer.strip()


def test_a_target_is_what_the_model_itself_would_write_where_the_marker_stays_whole(tokenizer):
    form = TokenFormat(tokenizer, Thinking(separator="\n"))
    joint = tokenizer.encode("</think>\nyes", add_special_tokens=False)
    if tuple(joint[: len(form.end_ids)]) == form.end_ids:
        assert form.encode_target("yes")[:-1] == joint[len(form.end_ids) :]
    else:  # merged across the border: the forced marker and the answer are tokenised apart
        assert len(form.end_ids) + len(form.encode_target("yes")) - 1 > len(joint)


def test_the_prompt_ends_where_thinking_begins(tokenizer):
    form = TokenFormat(tokenizer, Thinking(start="\n<think>"))
    assert form.decode(form.encode_prompt("Who was first?", add_special_tokens=False)) == "Who was first?\n<think>"


def test_a_rationale_ends_wherever_its_text_holds_the_marker(tokenizer):
    form = TokenFormat(tokenizer, Thinking())
    sampler = Sampler(None, form, SamplerConfig())
    thought = tokenizer.encode("A was born in 1903. </think>", add_special_tokens=False)
    assert sampler.ends_thinking(thought)
    assert not sampler.ends_thinking(thought[:-1])
    assert not sampler.ends_thinking([])
    spelled = tokenizer.convert_tokens_to_ids(list("</think>"))
    assert form.decode(spelled) == "</think>"
    assert sampler.ends_thinking(spelled) == (len(form.end_ids) > 1)


def test_an_empty_marker_and_a_tokenizer_without_an_end_are_refused(tokenizer):
    with pytest.raises(ConfigError, match=r"policy.thinking.end: given ''"):
        TokenFormat(tokenizer, Thinking(end=""))
    endless = families.smollm_like()
    endless.eos_token = None
    with pytest.raises(ConfigError, match="has no eos_token"):
        TokenFormat(endless, Thinking())
