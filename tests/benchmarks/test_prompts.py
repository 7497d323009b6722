"""Cold and warm renderings, with and without a chat template, and tables in one line per row."""

import pytest

from jqlight.benchmarks import HotpotQA
from jqlight.benchmarks.prompts import HOTPOTQA, cold_ids, joined, linearise_table, warm_ids
from jqlight.errors import ConfigError
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


TURN = "{% for m in messages %}<|user|>{{ m['content'] }}\n{% endfor %}{% if add_generation_prompt %}<|assistant|>\n"
SWITCH = "{% if thinking is defined and thinking %}<think>{% else %}</think>{% endif %}"


@pytest.mark.parametrize(
    ("start", "written", "end"),
    [
        ("<think>\n", "", "<|assistant|>\n<think>\n"),
        ("<think>\n", "<think>\n", "<|assistant|>\n<think>\n"),
        ("<think>\n", "<think>", "<|assistant|>\n<think>\n"),
        ("<think>\n", "<think>\n\n", "<|assistant|>\n<think>\n"),
        ("\n<think>", "<think>\n", "<|assistant|>\n<think>"),
        ("<think>", " <think>", "<|assistant|>\n <think>"),
        ("", "<think>\n", "<|assistant|>\n<think>\n"),
    ],
)
def test_white_space_around_the_marker_is_the_settings_own(tokenizer, start, written, end):
    tokenizer.chat_template = TURN + written + "{% endif %}"
    prompt = tokenizer.decode(warm_ids("Add.", "1+1", TokenFormat(tokenizer, Thinking(start=start))))
    assert prompt == "<|user|>Add.\n\n1+1\n" + end


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("<think>\n\n</think>\n\n", r"closes the thinking itself, it ends in '\\n<\|assistant\|>\\n<think>"),
        (SWITCH, r"closes the thinking itself.*</think>'; give .* policy.thinking.template_arguments"),
        ("<think><think>", "opens the thinking and goes on.*<think><think>'"),
        ("<think>\nOkay", "opens the thinking and goes on.*Okay'"),
        (
            "{{ raise_exception('A system message is required') }}",
            r"refuses a user turn \(A system message is required",
        ),
        ("{{ nothing.at.all }}", "chat template refuses a user turn .*undefined"),
    ],
)
def test_a_template_that_does_not_leave_the_thinking_to_the_model_is_shown(token_format, tokenizer, written, message):
    tokenizer.chat_template = TURN + written + "{% endif %}"
    with pytest.raises(ConfigError, match=message):
        warm_ids("Add.", "1+1", token_format)


def test_a_template_that_leaves_the_question_out_is_shown(token_format, tokenizer):
    tokenizer.chat_template = "<|user|>hello<|assistant|>"
    with pytest.raises(ConfigError, match=r"does not hold the task and the question as they are: '<\|user\|>hello"):
        warm_ids("Add.", "1+1", token_format)


def test_a_templates_own_switch_is_a_setting(tokenizer):
    tokenizer.chat_template = TURN + SWITCH + "{% endif %}"
    form = TokenFormat(tokenizer, Thinking(template_arguments={"thinking": True}))
    assert tokenizer.decode(warm_ids("Add.", "1+1", form)).endswith("1+1\n<|assistant|>\n<think>\n")
    tokenizer.chat_template = TEMPLATE
    off = TokenFormat(tokenizer, Thinking(start="", end="####", template_arguments={"enable_thinking": False}))
    assert tokenizer.decode(warm_ids("Add.", "1+1", off)).endswith("<|assistant|><think></think>")


@pytest.mark.parametrize(
    ("dated", "arguments", "told"),
    [
        ("{{ strftime_now('%d %b %Y') }}", {}, 1),
        ("{{ date_string if date_string is defined else strftime_now('%Y') }}", {}, 1),
        ("{{ date_string if date_string is defined else strftime_now('%Y') }} ", {"date_string": "26 Jul 2024"}, 0),
        ("2024", {}, 0),
    ],
)
def test_a_date_in_the_prompt_is_told_once(tokenizer, caplog, dated, arguments, told):
    tokenizer.chat_template = dated + TURN + "{% endif %}"
    form = TokenFormat(tokenizer, Thinking(template_arguments=arguments))
    for _ in range(2):
        warm_ids("Add.", "1+1", form)
    assert sum("today's date" in record.getMessage() for record in caplog.records) == told


@pytest.mark.parametrize("template", [None, TURN + "{% endif %}"])
@pytest.mark.parametrize("text", ["a </think> b", "<|assistant|>yes<eos>", "<think>"])
def test_a_question_that_spells_a_marker_does_not_become_one(tokenizer, token_format, template, text):
    tokenizer.chat_template = template
    plain = [i for i in warm_ids("Add.", "x", token_format) if i < 5]  # the special tokens come first
    assert [i for i in warm_ids("Add.", text, token_format) if i < 5] == plain
    assert text in tokenizer.decode(warm_ids("Add.", text, token_format))
    cold = cold_ids(text, token_format)
    assert tokenizer.decode(cold) == text + "\n<think>\n"
    assert sum(i < 5 for i in cold) == 1


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
