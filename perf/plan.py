"""What models of three sizes need in memory, and where the time of their step would go: `python -m perf.plan`.

Computed, not measured: memory by the package's own ``plan_memory``, time from the work that the mathematics asks and
the rates below, which are assumptions. Prints the tables of docs/cluster.md.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, PretrainedConfig, Qwen3Config

from jqlight.estimators.memory_plan import MemoryPlan, plan_memory
from jqlight.machine import GIB
from jqlight.policy import LoRA
from jqlight.policy.adapters import adapter_numbers
from jqlight.sampling.memory import CACHE_SHARE, cache_token_bytes

CARD_GIB, PEAK_FLOPS, BANDWIDTH = 80, 989e12, 3.35e12
"""An H100's memory, dense bfloat16 rate and memory bandwidth, by its data sheet."""
TRAINING_SHARE, BANDWIDTH_SHARE, LINK = 0.1, 0.5, 50e9
"""Assumed: parts of the two that training and decoding reach, and bytes a second between nodes (400 Gbit/s)."""
PROMPT, ROLLOUT, ROLLOUTS, PROMPTS, AT_ONCE = 1500, 540, 32, 16, 128
"""Typical lengths of a HotpotQA step, conf/base/paper.yaml's rollouts and prompts, sampler.max_num_seqs."""
LONGEST_PROMPT, LONGEST_ROLLOUT = 4096, 3073
"""Those of conf/hotpotqa.yaml, which memory is planned for."""

QWEN = {"vocab_size": 151936, "head_dim": 128, "num_key_value_heads": 8}
MODELS: dict[str, PretrainedConfig] = {
    "0.6B (Qwen3)": Qwen3Config(
        **QWEN,
        hidden_size=1024,
        intermediate_size=3072,
        num_hidden_layers=28,
        num_attention_heads=16,
        tie_word_embeddings=True,
    ),
    "8B (Qwen3)": Qwen3Config(
        **QWEN, hidden_size=4096, intermediate_size=12288, num_hidden_layers=36, num_attention_heads=32
    ),
    "70B (Llama 3)": LlamaConfig(
        vocab_size=128256,
        hidden_size=8192,
        intermediate_size=28672,
        num_hidden_layers=80,
        num_attention_heads=64,
        num_key_value_heads=8,
    ),
}


@dataclass(frozen=True)
class Model:
    """A model's config with the number of its parameters."""

    name: str
    config: PretrainedConfig
    numbers: int

    def plan(self, lora: LoRA | None) -> MemoryPlan:
        """Memory of one rank: weights in float32, or under adapters in bfloat16."""
        token = cache_token_bytes(self.config, "bfloat16")
        return plan_memory(
            self.config,
            numbers=self.numbers,
            trained=self.numbers if lora is None else adapter_numbers(self.config, lora),
            dtype="float32" if lora is None else "bfloat16",
            state=8.0,
            prompt=LONGEST_PROMPT,
            rollouts=ROLLOUTS,
            rollout_tokens=LONGEST_ROLLOUT,
            cache=min(CACHE_SHARE * CARD_GIB * GIB, AT_ONCE * (LONGEST_PROMPT + LONGEST_ROLLOUT) * token),
        )

    def seconds(self, ranks: int) -> dict[str, float]:
        """Seconds of a step's parts on so many GPUs, prompts divided among them."""
        prompts = PROMPTS / ranks
        trained = prompts * (PROMPT + ROLLOUTS * ROLLOUT)
        read = 2 * self.numbers + AT_ONCE * (PROMPT + ROLLOUT / 2) * cache_token_bytes(self.config, "bfloat16")
        return {
            # Each decoded token of AT_ONCE sequences reads the weights once and every sequence's cache.
            "sampling": prompts * ROLLOUTS / AT_ONCE * ROLLOUT * read / (BANDWIDTH_SHARE * BANDWIDTH),
            # Two FLOPs a parameter and token forward, four backward; attention left out.
            "training": 6 * self.numbers * trained / (TRAINING_SHARE * PEAK_FLOPS),
            # A ring moves every gradient about twice.
            "gradients between ranks": 2 * 4 * self.numbers / LINK if ranks > 1 else 0.0,
            "sync": 6 * self.numbers / (BANDWIDTH_SHARE * BANDWIDTH),
        }


def models() -> Iterator[Model]:
    """The three models; none of their weights exists."""
    for name, config in MODELS.items():
        with torch.device("meta"):
            numbers = sum(p.numel() for p in AutoModelForCausalLM.from_config(config).parameters())
        yield Model(name, config, numbers)


def memory_row(model: Model, lora: LoRA | None) -> str:
    plan = model.plan(lora)
    parts = (plan.weights, plan.gradients, plan.optimizer, plan.engine, plan.cache)
    least, kind = sum(parts) / GIB, "whole" if lora is None else f"adapters, r = {lora.r}"
    # What is left must hold at least the passes of one micro-batch; a tenth of a card is little for that.
    verdict = "yes" if least < 0.9 * CARD_GIB else "no"
    sizes = [size / GIB for size in (*parts, plan.checkpointed)]
    cells = [f"{size:.2g}" if size < 10 else f"{size:.0f}" for size in (*sizes, plan.undo / GIB, least)]
    return f"| {model.name}, {kind} | " + " | ".join(cells) + f" | {verdict} |"


def main() -> None:
    print("| GiB | weights | gradients | AdamW | engine | cache | a group | host | held | fits |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    known = list(models())
    for model in known:
        for lora in (None, LoRA(r=16)):
            print(memory_row(model, lora))
    print("\n| seconds a step | GPUs | sampling | training | gradients between ranks | sync |")
    print("|---|---|---|---|---|---|")
    for model in known[:2]:
        for ranks in (1, 8):
            cells = " | ".join(f"{value:.2g}" for value in model.seconds(ranks).values())
            print(f"| {model.name} | {ranks} | {cells} |")


if __name__ == "__main__":
    main()
