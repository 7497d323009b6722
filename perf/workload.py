"""The work that is measured: a small Qwen3 with random weights, prompts of exact length, rollouts of exact length."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from jqlight.benchmarks import Benchmark, Example, Item
from jqlight.estimators import GARL, GRPO, PAFT, RLOO, Estimator, MaxRL
from jqlight.policy import Continuation, Group, PolicyConfig
from jqlight.sampling import Completion, Decoding, Request, Rollout, Sampler, SamplerConfig, Stop
from jqlight.token_format import Thinking

FOLDER = Path("models")
END, EOS = 1, 0
"""Token ids of end of thinking and end of sequence; every other id is a word."""
ANSWER = 8
"""Sampled tokens of an answer; the rest of a rollout is its rationale."""


@dataclass(frozen=True)
class Shape:
    """Sizes of the model; 12.6 M parameters by default."""

    vocab: int = 8192
    hidden: int = 384
    layers: int = 6

    def config(self) -> Qwen3Config:
        heads = self.hidden // 64
        return Qwen3Config(
            vocab_size=self.vocab,
            hidden_size=self.hidden,
            intermediate_size=self.hidden * 8 // 3,
            num_hidden_layers=self.layers,
            num_attention_heads=heads,
            num_key_value_heads=max(1, heads // 3),
            head_dim=64,
            max_position_embeddings=8192,
            tie_word_embeddings=True,
            eos_token_id=EOS,
            pad_token_id=EOS,
        )


@dataclass(frozen=True)
class Qwen3Shape(Shape):
    """Sizes of Qwen3-0.6B, 596 M parameters."""

    vocab: int = 151936
    hidden: int = 1024
    layers: int = 28

    def config(self) -> Qwen3Config:
        config = super().config()
        config.update({"intermediate_size": 3072, "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128})
        return config


@dataclass(frozen=True)
class Work:
    """One step: prompts of ``prompt`` tokens, ``rollouts`` of each, ``tokens`` sampled in each."""

    prompt: int = 512
    tokens: int = 64
    rollouts: int = 16
    prompts: int = 2

    @property
    def sampled(self) -> int:
        """Sampled tokens of a step."""
        return self.prompts * self.rollouts * self.tokens


def make_model(shape: Shape | None = None) -> str:
    """Folder of a model with random weights and its word-level tokenizer, made on first use."""
    shape = shape or Shape()
    folder = FOLDER / f"random-qwen3-{shape.vocab}-{shape.hidden}-{shape.layers}"
    if (folder / "model.safetensors").is_file():
        return str(folder)
    vocabulary = {"<eos>": EOS, "<end>": END} | {f"w{i}": i for i in range(2, shape.vocab)}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="w2"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<eos>", pad_token="<eos>")
    torch.manual_seed(0)
    model = Qwen3ForCausalLM(shape.config())
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)
    return str(folder)


def words(count: int, vocab: int, seed: int) -> str:
    """``count`` random words, one token each."""
    generator = torch.Generator().manual_seed(seed)
    return " ".join(f"w{i}" for i in torch.randint(2, vocab, (count,), generator=generator).tolist())


class Words(Benchmark):
    """Random prompts of exact length, each with an answer as long as a sampled one, or for half of them one word."""

    def __init__(self, work: Work, steps: int, vocab: int, *, mixed: bool = False) -> None:
        super().__init__(prompts_per_step=work.prompts, max_prompt_tokens=work.prompt)
        self.work, self.steps, self.vocab, self.mixed = work, steps, vocab, mixed

    def read(self, split: str) -> Iterator[dict[str, str]]:
        for i in range(self.steps * self.work.prompts if split == "train" else 0):
            yield {"id": str(i), "text": words(self.work.prompt, self.vocab, i)}

    def item(self, record: dict[str, str]) -> Item:
        number = int(record["id"])
        return Item(record["text"], words(1 if self.mixed and number % 2 else ANSWER - 1, self.vocab, number + 10**6))


def odd_share(ids: Sequence[int]) -> float:
    """The reward of both trainers: share of odd token ids, different in nearly every rollout."""
    return sum(i % 2 for i in ids) / len(ids)


class OddReward:
    """Reward estimators with `odd_share` instead of the exact match."""

    def signal(self, example: Example, rollouts: Sequence[Rollout], group: Group) -> Tensor:
        return torch.tensor([odd_share(r.rationale_ids + r.answer_ids) for r in rollouts], dtype=torch.float64)


ESTIMATORS: dict[str, type[Estimator]] = {"GARL": GARL, "PAFT": PAFT} | {
    cls.__name__: type(cls.__name__, (OddReward, cls), {}) for cls in (GRPO, RLOO, MaxRL)
}


THINKING = Thinking(start="", end="<end>", separator="")


def estimator(name: str, work: Work, model: str, sampler: dict[str, Any] | None = None, **policy: Any) -> Estimator:
    """The LightningModule of that name, with AdamW, on rollouts of exactly ``work.tokens`` tokens."""
    os.environ["PL_GLOBAL_SEED"] = "0"
    limits = SamplerConfig(max_thinking_tokens=work.tokens - ANSWER, max_answer_tokens=ANSWER, **(sampler or {}))
    config = PolicyConfig(model, thinking=THINKING, **policy)
    module = ESTIMATORS[name](policy=config, sampler=limits, rollouts=work.rollouts)
    module.configure_optimizers = lambda: torch.optim.AdamW(module.parameters(), lr=1e-4)
    return module


def quiet_trainer(steps: int, *callbacks: Callback, device: str = "cpu", **settings: Any) -> Trainer:
    """A Trainer on one device that writes nothing and does nothing but training steps."""
    return Trainer(
        accelerator="gpu" if device == "cuda" else device,
        devices=1,
        max_steps=steps,
        logger=False,
        enable_progress_bar=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        limit_val_batches=0,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        callbacks=list(callbacks),
        **settings,
    )


def never_stop(sampler: Sampler) -> None:
    """Let no rollout end before its budget, as ``ignore_eos`` does for TRL."""
    generate = sampler.engine.generate

    def whole(requests: Sequence[Request], stop: Stop, decoding: Decoding) -> list[Completion]:
        return generate(requests, Stop(()), decoding)

    sampler.engine.generate = whole


def group_inputs(work: Work, vocab: int) -> list[tuple[list[int], list[Continuation]]]:
    """Random token ids of one step: per prompt its ids and its continuations, an answer behind each rationale."""
    generator = torch.Generator().manual_seed(0)

    def draw(count: int) -> list[int]:
        return torch.randint(2, vocab, (count,), generator=generator).tolist()

    answer = min(ANSWER, work.tokens // 2)
    return [
        (draw(work.prompt), [Continuation(draw(work.tokens - answer), [], draw(answer)) for _ in range(work.rollouts)])
        for _ in range(work.prompts)
    ]


def training_flops(shape: Shape, work: Work, live: float | None = None) -> float:
    """FLOPs that the gradient of one step needs: each prompt once, causal attention, two per multiply-add.

    A backward costs two forwards. ``live`` is the number of rollouts of a prompt that have one; None for all.
    """
    rows = work.rollouts if live is None else live
    prompt, row = _forward_flops(shape, work)
    return work.prompts * (3 * prompt + (work.rollouts + 2 * rows) * row)


def sampling_flops(shape: Shape, work: Work) -> float:
    """FLOPs of drawing the rollouts of one step: one forward of every token, each prompt once."""
    prompt, row = _forward_flops(shape, work)
    return work.prompts * (prompt + work.rollouts * row)


def _forward_flops(shape: Shape, work: Work) -> tuple[float, float]:
    """FLOPs of a prompt, and of one continuation behind it."""
    config = shape.config()
    width, kv_width = (config.head_dim * n for n in (config.num_attention_heads, config.num_key_value_heads))
    layer = config.hidden_size * (2 * width + 2 * kv_width + 3 * config.intermediate_size)
    body, pair = 2 * layer * shape.layers, 4 * width * shape.layers
    p, c = work.prompt, work.tokens
    head = 2 * shape.hidden * shape.vocab
    return p * body + pair * p * p / 2, c * (body + head) + pair * (c * p + c * c / 2)


def describe(work: Work) -> dict[str, int]:
    """``work`` as it is recorded."""
    return asdict(work)
