"""Cold and warm renderings of an input: every text that a model is given is made here."""

from transformers import PreTrainedTokenizerBase

from jqlight.thinking import TokenFormat


def cold_ids(text: str, token_format: TokenFormat) -> list[int]:
    """Token ids of the linearised input alone: no description, no format, no chat template."""
    return token_format.encode_prompt(text.rstrip() + "\n")


def warm_text(task: str, text: str, tokenizer: PreTrainedTokenizerBase) -> str:
    """The task's description, then the input, as one user turn of the chat template where the tokenizer has one."""
    message = f"{task.strip()}\n\n{text.strip()}"
    if not tokenizer.chat_template:
        return message + "\n"
    turn = [{"role": "user", "content": message}]
    return str(
        tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True, enable_thinking=True),
    )


def warm_ids(task: str, text: str, token_format: TokenFormat) -> list[int]:
    """Token ids of the warm rendering, thinking opened once.

    Some chat templates open the thinking themselves, others leave it to the model: either way the prompt ends in one
    ``thinking.start``.
    """
    tokenizer = token_format.tokenizer
    prompt = warm_text(task, text, tokenizer)
    if token_format.thinking.start:
        prompt = prompt.removesuffix(token_format.thinking.start)
    return token_format.encode_prompt(prompt, add_special_tokens=not tokenizer.chat_template)
