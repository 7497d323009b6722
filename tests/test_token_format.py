import unicodedata

import pytest
import tokenizers_by_family as families
from tokenizers import AddedToken, normalizers, processors
from transformers import AutoTokenizer

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


@pytest.mark.parametrize(
    ("text", "blank"),
    [
        ("", True),
        (" \n", True),
        (" \n" * 40, True),
        ("so", False),
        (" \n" * 40 + "so", False),
        ("so it is " * 40, False),
    ],
)
@pytest.mark.parametrize("end", ["", "</think>", "</think>so"])
def test_a_rationale_is_blank_where_only_white_space_is_before_its_end(tokenizer, text, end, blank):
    form = TokenFormat(tokenizer, Thinking())
    ids = tokenizer(text + end, add_special_tokens=False).input_ids
    assert form.is_blank(ids) == blank


def test_an_empty_marker_and_a_tokenizer_without_an_end_are_refused(tokenizer):
    with pytest.raises(ConfigError, match=r"policy.thinking.end: given ''"):
        TokenFormat(tokenizer, Thinking(end=""))
    endless = families.smollm_like()
    endless.eos_token = None
    with pytest.raises(ConfigError, match="has no eos_token"):
        TokenFormat(endless, Thinking())


def post_processed(tokenizer, template):
    """The tokenizer with special tokens around every text, as ``add_bos_token`` and ``add_eos_token`` have it."""
    tokens = [(word, tokenizer.convert_tokens_to_ids(word)) for word in template.split() if word != "$A"]
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(single=template, special_tokens=tokens)
    return tokenizer


@pytest.mark.parametrize("template", ["$A <|im_end|>", "<|endoftext|> $A <|im_end|>", "<|endoftext|> $A", "$A"])
@pytest.mark.parametrize("make", [families.qwen_like, families.smollm_like])
def test_what_a_tokenizer_puts_in_front_is_kept_and_what_it_puts_behind_is_not(make, template):
    form = TokenFormat(post_processed(make(), template), Thinking(start="\n<think>"))
    plain = form.tokenizer.encode("Who?\n<think>", add_special_tokens=False)
    front = [form.tokenizer.convert_tokens_to_ids("<|endoftext|>")] if template.startswith("<") else []
    assert form.encode_prompt("Who?") == [*front, *plain]
    assert form.encode_prompt("Who?", add_special_tokens=False) == plain
    assert form.decode(form.encode_target("yes")) == "\n\nyes<|im_end|>"
    assert form.decode(form.end_ids) == "</think>"


SPELLED = [
    "a </think> b",
    "<|im_end|>",
    "<<think>>",
    "x</think></think>y<|endoftext|>",
    "<|im_<|im_end|>end|> 1",
    "</s> <unk>",
]


@pytest.mark.parametrize("text", SPELLED)
def test_a_text_that_spells_control_tokens_is_text(tokenizer, text):
    form = TokenFormat(tokenizer, Thinking(start="\n<think>"))
    # <0x0A> and the like are the letters of what a vocabulary lacks
    control = {i for name, i in tokenizer.get_added_vocab().items() if not name.startswith("<0x")}
    opened = len(control & set(tokenizer.encode("\n<think>", add_special_tokens=False)))
    prompt = form.encode_prompt(form.as_text(text), add_special_tokens=False)
    assert sum(i in control for i in prompt) == opened
    target = form.encode_target(text)
    assert control & set(target) == {form.eos_ids[0]}
    if tokenizer is not FAMILIES["sentencepiece"]:  # which puts a space behind a cut
        assert form.decode(prompt) == text + "\n<think>"
        assert form.read_back(text) == text


@pytest.mark.parametrize("text", ["＜think＞", "a </think＞ b ＜/think＞", "<|IM_END|>", "<|im_end|>"])
def test_a_text_that_spells_a_control_token_once_it_is_normalised_is_text(text):
    tokenizer = families.qwen_like()
    tokenizer.backend_tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.backend_tokenizer.add_tokens([AddedToken(tag, normalized=True) for tag in ("<think>", "</think>")])
    form = TokenFormat(tokenizer, Thinking(start=""))
    control = set(tokenizer.get_added_vocab().values())
    assert not control & set(form.encode_prompt(form.as_text(text)))
    assert control & set(form.encode_target(text)) == {form.eos_ids[0]}


@pytest.mark.parametrize("text", ["Who was first?", "a < b > c", "1 </ think>"])
def test_a_text_without_control_tokens_is_left_as_it_is(tokenizer, text):
    form = TokenFormat(tokenizer, Thinking())
    assert form.as_text(text) == text


@pytest.mark.parametrize(
    ("normalizer", "answer", "written"),
    [
        (normalizers.NFC(), unicodedata.normalize("NFD", "Beyoncé"), unicodedata.normalize("NFC", "Beyoncé")),
        (normalizers.NFKC(), "５０％", "50%"),
        (normalizers.NFKC(), "ﬁnance", "finance"),
        (normalizers.Lowercase(), "Paris", "paris"),
        (normalizers.NFC(), "two  spaces", "two  spaces"),
    ],
)
def test_an_answer_is_what_the_tokenizer_gives_back(normalizer, answer, written):
    tokenizer = families.qwen_like()
    tokenizer.backend_tokenizer.normalizer = normalizer
    form = TokenFormat(tokenizer, Thinking())
    assert form.read_back(answer) == written


def test_an_answer_that_the_tokenizer_lacks_words_for_is_not_given_back(tiny_qwen3):
    form = TokenFormat(AutoTokenizer.from_pretrained(tiny_qwen3), Thinking())
    assert form.read_back("Zürich") is None
    with pytest.raises(ConfigError, match=r"policy\.thinking\.end: given 'ü', allowed is any string that the"):
        TokenFormat(AutoTokenizer.from_pretrained(tiny_qwen3), Thinking(end="ü"))


@pytest.mark.parametrize(
    ("thinking", "use", "message"),
    [
        (
            Thinking(),
            None,
            r"policy.thinking.start: the tokenizer writes '<think>' as id (\d+), but the model has \1 emb",
        ),
        (Thinking(start=""), None, r"policy.thinking.end: the tokenizer writes '</think>' as id"),
        (
            Thinking(start="", end="####"),
            lambda form: form.encode_prompt("a<think>"),
            "policy.name_or_path: .*'<think>'",
        ),
        (
            Thinking("", "####", "</think>"),
            lambda form: form.encode_target("a"),
            "policy.name_or_path: .*'</think>' as id",
        ),
    ],
)
def test_an_id_without_an_embedding_is_refused_where_it_is_written(thinking, use, message):
    tokenizer = families.qwen_like()  # its tags come last
    rows = tokenizer.convert_tokens_to_ids("<think>")
    with pytest.raises(ConfigError, match=message):
        use(TokenFormat(tokenizer, thinking, rows=rows))


def test_an_answer_that_comes_again_is_not_tokenised_again(tiny_qwen3, monkeypatch):
    token_format = TokenFormat(AutoTokenizer.from_pretrained(tiny_qwen3), Thinking())
    target, text = token_format.encode_target("Ghent"), token_format.read_back("Ghent")
    token_format.encode_target("Ghent").clear()  # what is given away is a copy
    monkeypatch.setattr(token_format.tokenizer, "encode", lambda *_, **__: pytest.fail("again"))
    assert token_format.encode_target("Ghent") == target and token_format.read_back("Ghent") == text == "Ghent"


def test_a_separator_that_ends_an_output_is_refused_and_an_answer_with_such_a_token_is_not_given_back():
    tokenizer = families.smollm_like()
    (end,) = tokenizer.encode("Z", add_special_tokens=False)
    with pytest.raises(ConfigError, match=rf"policy\.thinking\.separator: given 'Z', which is written with .*id {end}"):
        TokenFormat(tokenizer, Thinking(separator="Z"), [end])
    form = TokenFormat(tokenizer, Thinking(), [end])
    assert form.read_back("Zürich") is None
    assert form.read_back("Paris") == "Paris"
