"""Attention of a group in two parts against copies of its prompt, forward and backward of one layer, taken in turn.

`python -m perf.attention`: processor seconds of one thread, which compare on a machine that does other work as well.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from jqlight.policy.attention import TwoParts
from perf.common import record
from perf.workload import Shape, Work, describe

CASES = (Work(512, 64, 16, 1), Work(1024, 256, 16, 1), Work(4096, 128, 16, 1))
KINDS = ("two parts", "copies")


def copies(query: Tensor, key: Tensor, value: Tensor, keys: Tensor, values: Tensor, scale: float) -> Tensor:
    """torch's own attention with a mask and a copy of the prompt's keys and values for every row."""
    rows, heads, length, _ = query.shape
    prompt, groups = keys.shape[2], heads // key.shape[1]
    both = [
        torch.cat([shared.expand(rows, -1, -1, -1), own], 2).repeat_interleave(groups, 1)
        for shared, own in ((keys, key), (values, value))
    ]
    seen = torch.ones(length, prompt + length, dtype=torch.bool).tril(prompt)
    return functional.scaled_dot_product_attention(query, *both, attn_mask=seen, scale=scale)


def layer_inputs(work: Work) -> list[Tensor]:
    """Query, key and value of the rows and the prompt's keys and values, laid out as a model does."""
    config = Shape().config()
    heads, key_heads, size = config.num_attention_heads, config.num_key_value_heads, config.head_dim
    rows = [(work.rollouts, work.tokens, each, size) for each in (heads, key_heads, key_heads)]
    shapes = [*rows, *[(1, work.prompt, key_heads, size)] * 2]
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator).transpose(1, 2).requires_grad_() for shape in shapes]


def measure(work: Work, rounds: int) -> None:
    """Record medians, ratios and the largest relative distance between the two, output and gradients."""
    inputs = layer_inputs(work)
    functions: dict[str, Callable[..., Tensor]] = {"two parts": TwoParts.apply, "copies": copies}
    seconds: dict[str, list[float]] = {name: [] for name in KINDS}
    found: dict[str, tuple[Tensor, ...]] = {}
    for turn in range(rounds + 1):  # the first warms up
        for name in KINDS if turn % 2 else KINDS[::-1]:
            start = time.process_time()
            output = functions[name](*inputs, inputs[0].shape[-1] ** -0.5)
            found[name] = (output.detach(), *torch.autograd.grad(output.square().sum(), inputs))
            if turn:
                seconds[name].append(time.process_time() - start)
    ratios = [two / copied for two, copied in zip(*seconds.values(), strict=True)]
    gaps = [((a - b).norm() / b.norm()).item() for a, b in zip(*found.values(), strict=True)]
    record(
        "attention",
        work=describe(work),
        processor_seconds={name: statistics.median(each) for name, each in seconds.items()},
        ratio=statistics.median(ratios),
        ratios=ratios,
        distance=max(gaps),
        threads=1,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="attention in two parts against copies of the prompt")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for work in CASES:
        measure(work, options.rounds)


if __name__ == "__main__":
    main()
