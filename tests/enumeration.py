"""A language model so small that every rationale and every output can be listed, and a fit that takes them as samples.

Nothing here uses the package's objective or policy: probabilities come from the plain transformers model by autograd.
"""

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from pathlib import Path

import torch
from lightning import Trainer
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from jqlight.benchmarks import Benchmark, Example
from jqlight.estimators import Estimator
from jqlight.policy import PolicyConfig
from jqlight.sampling import Rollout, SamplerConfig
from jqlight.token_format import Thinking, TokenFormat

EOS, END, A = range(3)
PROMPT = (A, END, A, A)
MAX_THINKING, MAX_ANSWER = 2, 2


def save_three_token_gpt2(folder: Path) -> str:
    """Path of a GPT-2 whose vocabulary is end of sequence, end of thinking and the letter a."""
    backend = Tokenizer(models.WordLevel({"<eos>": EOS, "</think>": END, "a": A}, unk_token="<eos>"))
    backend.pre_tokenizer = pre_tokenizers.Split("a", behavior="isolated")
    backend.decoder = decoders.Fuse()
    backend.add_special_tokens(["<eos>", "</think>"])
    PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<eos>").save_pretrained(folder)
    config = GPT2Config(vocab_size=3, n_embd=8, n_layer=2, n_head=2, n_positions=16, eos_token_id=EOS, bos_token_id=EOS)
    # This seed spreads p(z) over 0.04 .. 0.58 and w over 0.01 .. 0.13: no rationale may be idle in an expectation.
    generator = torch.Generator().manual_seed(9)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        model = GPT2LMHeadModel(config)
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.3)
    model.save_pretrained(folder)
    return str(folder)


def sequences(ends: Sequence[int], longest: int) -> list[list[int]]:
    """Every token sequence that stops at the first of ``ends`` or at its ``longest`` token."""
    whole, open_ = [], [[]]
    for length in range(1, longest + 1):
        grown = [[*start, token] for start, token in product(open_, range(3))]
        whole += [s for s in grown if s[-1] in ends or length == longest]
        open_ = [s for s in grown if s[-1] not in ends]
    return whole


@dataclass(frozen=True)
class World:
    """One example under one tiny model: what can be sampled, and everything exact about it."""

    path: str
    separator: str = "a"
    id: str = "only"
    prompt_ids: tuple[int, ...] = PROMPT

    @cached_property
    def model(self) -> GPT2LMHeadModel:
        return GPT2LMHeadModel.from_pretrained(self.path, dtype=torch.float64).eval()

    @cached_property
    def thinking(self) -> Thinking:
        return Thinking(start="", end="</think>", separator=self.separator)

    @cached_property
    def example(self) -> Example:
        format_ = TokenFormat(PreTrainedTokenizerFast.from_pretrained(self.path), self.thinking)
        return Example(self.id, "", self.prompt_ids, "a", tuple(format_.encode_target("a")), ("a",))

    def token_log_p(self, context: Sequence[int], tokens: Sequence[int]) -> Tensor:
        """log p of each of ``tokens`` behind the prompt and ``context``, with graph."""
        ids = torch.tensor([[*self.prompt_ids, *context, *tokens]])
        log_p = self.model(input_ids=ids, use_cache=False).logits[0].log_softmax(-1)
        start = len(self.prompt_ids) + len(context)
        return log_p[start - 1 : -1].gather(1, torch.tensor(tokens).unsqueeze(1)).squeeze(1)

    @cached_property
    def rationales(self) -> list[Rollout]:
        """Every z: ended by the model, by its end of sequence, or by the budget (the last two have a forced end)."""
        return [
            Rollout(z, self.token_log_p([], z).tolist(), [] if z[-1] == END else [END])
            for z in sequences((END, EOS), MAX_THINKING)
        ]

    @cached_property
    def outputs(self) -> list[Rollout]:
        """Every (z, ŷ)."""
        return [
            replace(z, answer_ids=y, answer_logprobs=self.token_log_p(z.rationale_ids + z.forced_ids, y).tolist())
            for z in self.rationales
            for y in sequences((EOS,), MAX_ANSWER)
        ]

    def log_prior(self, rollout: Rollout) -> Tensor:
        """log p(z|x*): the sampled tokens alone."""
        return self.token_log_p([], rollout.rationale_ids).sum()

    def log_weight(self, rollout: Rollout) -> Tensor:
        """log p(y*|x*, z): separator, answer and end of sequence."""
        return self.token_log_p(rollout.rationale_ids + rollout.forced_ids, list(self.example.target_ids)).sum()

    def log_output(self, rollout: Rollout) -> Tensor:
        """log p(ŷ|x*, z)."""
        return self.token_log_p(rollout.rationale_ids + rollout.forced_ids, rollout.answer_ids).sum()

    def success(self) -> Tensor:
        """P = p(y*|x*), summed over every z, with graph."""
        return torch.stack([(self.log_prior(z) + self.log_weight(z)).exp() for z in self.rationales]).sum()

    def gradient(self, value: Tensor) -> Tensor:
        """d value / d theta, flat, by autograd."""
        parts = torch.autograd.grad(value, list(self.model.parameters()))
        return torch.cat([part.flatten() for part in parts])

    def loss_gradient(self, q: float) -> Tensor:
        """grad of -log_q(P)."""
        p = self.success()
        return self.gradient(-p.log() if q == 1 else (1 - p ** (1 - q)) / (1 - q))

    @cached_property
    def priors(self) -> list[float]:
        return [self.log_prior(z).exp().item() for z in self.rationales]

    @cached_property
    def log_weights(self) -> list[float]:
        return [self.log_weight(z).item() for z in self.rationales]

    @cached_property
    def scores(self) -> Tensor:
        """grad log p(z|x*) and grad log p(y*|x*, z) of every z, (2, |Z|, parameters)."""
        terms = [[self.gradient(f(z)) for z in self.rationales] for f in (self.log_prior, self.log_weight)]
        return torch.stack([torch.stack(rows) for rows in terms])

    def settings(self, **policy: object) -> dict:
        """``policy`` and ``sampler`` of an estimator in this world."""
        return {
            "policy": PolicyConfig(self.path, thinking=self.thinking, **policy),
            "sampler": SamplerConfig("transformers", max_thinking_tokens=MAX_THINKING, max_answer_tokens=MAX_ANSWER),
            "max_grad_norm": float("inf"),
        }


class Enumeration:
    """Takes a sampler's place: each call returns the next batch of the script."""

    def __init__(self, script: Iterable[list[list[Rollout]]]) -> None:
        self.script = iter(script)
        self.answers: list[bool] = []
        self.syncs = 0

    def sample(self, prompts: Sequence, seeds: Sequence, *, answers: bool, decoding: object) -> list[list[Rollout]]:
        batch = next(self.script)
        assert [len(row) for row in batch] == [len(row) for row in seeds] and len(batch) == len(prompts)
        self.answers.append(answers)
        return batch

    def sync(self, weights: Iterable) -> None:
        self.syncs += 1

    def close(self) -> None:
        pass


class Recorder(torch.optim.Optimizer):
    """Notes the gradient of each step and leaves the weights alone."""

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__(list(module.parameters()), {"lr": 0.0})
        self.gradients: list[Tensor] = []

    def step(self, closure: object = None) -> None:
        grads = [p.grad for group in self.param_groups for p in group["params"]]
        self.gradients.append(torch.cat([g.flatten() for g in grads]).clone())


class InOrder:
    """A training loader of given batches."""

    def __init__(self, batches: list[list[Example]]) -> None:
        self.batches, self.position = batches, 0

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[Example]]:
        for position, batch in enumerate(self.batches, 1):
            self.position = position
            yield batch

    def peek(self) -> list[Example] | None:
        return self.batches[self.position] if self.position < len(self.batches) else None


class Batches(Benchmark):
    """The given batches, once, in their order."""

    def __init__(self, batches: list[list[Example]]) -> None:
        super().__init__()
        self.batches = batches

    def setup(self, stage: str) -> None:
        pass

    def examples(self, split: str) -> list[Example]:
        return [example for batch in self.batches for example in batch]

    def train_dataloader(self) -> InOrder:
        return InOrder(self.batches)


def quiet_trainer(**settings: object) -> Trainer:
    """A real Trainer on one CPU that writes nothing."""
    silent = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    defaults = {"accelerator": "cpu", "devices": 1, "enable_model_summary": False, "limit_val_batches": 0}
    return Trainer(**{**defaults, **silent, "max_epochs": 1, **settings})


def fit(
    estimator: Estimator,
    batches: list[list[Example]],
    script: Iterable[list[list[Rollout]]],
    *,
    dtype: torch.dtype = torch.float64,
    optimizer: Callable[[list[torch.nn.Parameter]], torch.optim.Optimizer] | None = None,
    **trainer: object,
) -> Tensor:
    """The gradient of each optimizer step of ``Trainer.fit``, (steps, parameters), with frozen weights.

    ``optimizer`` makes another one than the recorder, of which only its course is of interest.
    """
    estimator.policy.load()
    estimator.policy.model.to(dtype)
    estimator.sampler = Enumeration(script)
    recorder = Recorder(estimator.policy)
    estimator.optimizer = lambda parameters: recorder if optimizer is None else optimizer(parameters)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quiet_trainer(**trainer).fit(estimator, datamodule=Batches(batches))
    assert len(recorder.gradients) == (0 if optimizer else len(batches))
    return torch.stack(recorder.gradients) if recorder.gradients else torch.empty(0)


def groups(world: World, samples: Iterable[Sequence[Rollout]], estimator: Estimator) -> Tensor:
    """One step's gradient per group of ``samples`` on the world's own example, (groups, parameters)."""
    script = [[list(group)] for group in samples]
    return fit(estimator, [[world.example]] * len(script), script)
