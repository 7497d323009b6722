"""Cold and warm renderings, with and without a chat template, and tables in one line per row."""

import pytest

from jqlight.benchmarks import HotpotQA
from jqlight.benchmarks.prompts import HOTPOTQA, cold_ids, joined, linearise_table, warm_ids, warm_text
from jqlight.token_format import Thinking, TokenFormat

TEMPLATE = (
    "{% for m in messages %}<|user|>{{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% if not enable_thinking %}<think></think>{% endif %}{% endif %}"
)


def test_cold_is_the_input_and_the_start_of_thinking(token_format, tokenizer):
    assert tokenizer.decode(cold_ids("1+1 \n", token_format)) == "1+1\n<think>\n"


def test_warm_without_a_chat_template_is_plain_text(token_format, tokenizer):
    assert tokenizer.decode(warm_ids(" Add. ", "1+1", token_format)) == "Add.\n\n1+1\n<think>\n"


def test_warm_goes_through_the_chat_template_in_thinking_mode(token_format, tokenizer):
    tokenizer.chat_template = TEMPLATE
    assert tokenizer.decode(warm_ids("Add.", "1+1", token_format)) == "<|user|>Add.\n\n1+1\n<|assistant|><think>\n"


def test_a_template_that_opens_the_thinking_itself_opens_it_once(token_format, tokenizer):
    tokenizer.chat_template = TEMPLATE.replace("<|assistant|>", "<|assistant|><think>\n")
    assert tokenizer.decode(warm_ids("Add.", "1+1", token_format)).endswith("<|assistant|><think>\n")
    assert tokenizer.decode(warm_ids("Add.", "1+1", token_format)).count("<think>") == 1


def test_a_model_without_thinking_tags(tokenizer):
    plain = TokenFormat(tokenizer, Thinking(start="", end="####", separator=" "))
    tokenizer.chat_template = TEMPLATE
    assert tokenizer.decode(warm_ids("Add.", "1+1", plain)).endswith("1+1\n<|assistant|>")
    assert tokenizer.decode(cold_ids("1+1", plain)) == "1+1\n"


def test_special_tokens_are_added_to_plain_text_only(tokenizer, monkeypatch):
    token_format, added = TokenFormat(tokenizer, Thinking()), []
    encode = token_format.encode_prompt
    monkeypatch.setattr(
        token_format,
        "encode_prompt",
        lambda text, *, add_special_tokens=True: added.append(add_special_tokens) or encode(text),
    )
    cold_ids("x", token_format)
    warm_ids("t", "x", token_format)
    tokenizer.chat_template = TEMPLATE  # has written them itself
    warm_ids("t", "x", token_format)
    assert added == [True, True, False]


def test_the_scenario_chooses_the_rendering(fixtures, token_format):
    folder = str(fixtures / "hotpotqa")
    cold, warm = (HotpotQA(path=folder, scenario=s).bind(token_format).examples("train")[0] for s in ("cold", "warm"))
    assert warm.prompt.startswith(HOTPOTQA)
    assert warm.prompt == f"{HOTPOTQA}\n\n{cold.prompt}"
    assert (warm.answer, warm.target_ids) == (cold.answer, cold.target_ids)
    assert "answer" not in cold.prompt.lower()


def test_warm_text_has_the_task_first(tokenizer):
    assert warm_text("Task.", "Input", tokenizer) == "Task.\n\nInput\n"


@pytest.mark.parametrize(
    ("table", "lines"),
    [
        ([["", "2018", "2019"], ["revenue", "1", "2"]], "revenue | 2018: 1 | 2019: 2"),
        ([["in millions", "2018"], ["revenue", "1"], ["costs", ""]], "in millions\nrevenue | 2018: 1\ncosts"),
        ([["", "a", ""], ["x", "1", "2"]], "x | a: 1 | 2"),  # no header: the value is written alone
        ([["", "a", "a"], ["x", "1", "2"]], "x | a: 1 | a: 2"),
        ([["", "a"], ["x", "1", "9"]], "x | a: 1 | 9"),  # a ragged row loses nothing
        ([["only", "", "row"]], "only | row"),
        ([], ""),
    ],
)
def test_linearise_table(table, lines):
    assert linearise_table(table) == lines


def test_filler_sentences_are_left_out():
    assert joined(["one .", ".", " two", " . "]) == "one . two"
