"""Forward and backward of one group against its sizes, and how the time grows: `make bench-scaling`.

One size varies at a time, the others stay as in `BASE`. ``slopes`` are those of neighbouring points on double
logarithmic axes: 0 where the size costs nothing, 1 where the time is proportional to it. Model FLOPs come with the
seconds: where both slopes agree the growth is that of the work, where they do not it is the machine's.

    python -m perf.scaling            measure, append to results.jsonl, draw
    python -m perf.scaling --draw     draw the newest result again
"""

import argparse
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import Qwen3ForCausalLM

from jqlight.objective import Coefficients
from jqlight.policy import Policy, PolicyConfig
from perf.common import QUIET_CORES, RESULTS, alternate, median, record
from perf.workload import Shape, Work, describe, group_inputs, make_model, training_flops

FIGURE = Path("docs/images/performance_scaling.png")
BASE = Work(prompt=512, tokens=64, rollouts=16, prompts=1)
MODELS = (
    Shape(hidden=192, layers=3),
    Shape(hidden=256, layers=4),
    Shape(),
    Shape(hidden=512, layers=8),
    Shape(8192, 768, 10),
)
LABELS = {
    "prompt": "prompt length P (tokens)",
    "tokens": "continuation length C (tokens)",
    "rollouts": "rollouts per prompt M",
    "vocabulary": "vocabulary V (tokens)",
    "parameters": "parameters without embedding",
}


def points() -> dict[str, list[tuple[float, Work, Shape]]]:
    """Size -> its values, with the work and the model of each."""
    return {
        "prompt": [(p, replace(BASE, prompt=p), Shape()) for p in (64, 128, 256, 512, 1024, 2048, 4096)],
        "tokens": [(c, replace(BASE, tokens=c), Shape()) for c in (8, 16, 32, 64, 128, 256, 512)],
        "rollouts": [(m, replace(BASE, rollouts=m), Shape()) for m in (1, 2, 4, 8, 16, 32, 64)],
        "vocabulary": [(v, BASE, Shape(vocab=v)) for v in (2048, 8192, 32768, 65536, 131072)],
        "parameters": [(body_parameters(shape), BASE, shape) for shape in MODELS],
    }


def body_parameters(shape: Shape) -> int:
    """Weights of the matrices without the embedding."""
    with torch.device("meta"):
        model = Qwen3ForCausalLM(shape.config())
    return sum(p.numel() for name, p in model.named_parameters() if "embed" not in name and p.ndim == 2)


def one_group(work: Work, shape: Shape) -> Callable[[], None]:
    """Scoring and gradient of a group on a model of this shape."""
    policy = Policy(PolicyConfig(make_model(), micro_batch_tokens=1 << 16))
    torch.manual_seed(0)
    policy.model = Qwen3ForCausalLM(shape.config()).train()
    [(prompt, continuations)] = group_inputs(work, shape.vocab)
    score, pathwise = torch.randn(2, work.rollouts)

    def run() -> None:
        policy.zero_grad()
        group = policy.group(prompt, continuations)
        group.log_answer()
        group.backward(Coefficients(score, pathwise), scale=1.0)

    return run


def measure(values: list[tuple[float, Work, Shape]], repetitions: int) -> dict[str, Any]:
    """Median seconds, model FLOPs and slopes of one size."""
    timings = [alternate({"": one_group(work, shape)}, repetitions)[""] for _, work, shape in values]
    sizes, seconds = [size for size, _, _ in values], [median(t) for t in timings]
    flops = [training_flops(shape, work) for _, work, shape in values]
    return {
        "sizes": sizes,
        "seconds": seconds,
        "gflop": [f / 1e9 for f in flops],
        "slopes": slopes(sizes, seconds),
        "flop_slopes": slopes(sizes, flops),
        "quiet": [f"{sum(one.foreign < QUIET_CORES for one in t)}/{len(t)}" for t in timings],
    }


def slopes(x: list[float], y: list[float]) -> list[float]:
    """Slopes between neighbouring points on double logarithmic axes."""
    return [math.log(y[i + 1] / y[i]) / math.log(x[i + 1] / x[i]) for i in range(len(x) - 1)]


def short(size: float) -> str:
    """For example 64, 8k (of 1024) or 9.4M (of 10^6)."""
    if size < 1024:
        return f"{size:g}"
    return f"{size / 1024:g}k" if size % 1024 == 0 and size < 1e6 else f"{size / 1e6:.3g}M"


def draw(path: Path = FIGURE) -> None:
    """Draw the newest result of results.jsonl."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    lines = [json.loads(line) for line in RESULTS.read_text().splitlines()]
    found = [line for line in lines if line["benchmark"] == "scaling"][-1]["sizes"]
    figure, grid = plt.subplots(2, 3, figsize=(11, 6.4), layout="constrained", sharey=True)
    panels = list(grid.flat)
    rate = max(g / s for one in found.values() for g, s in zip(one["gflop"], one["seconds"], strict=True))
    for axes, (name, one) in zip(panels, found.items(), strict=False):
        floor = [g / rate for g in one["gflop"]]
        axes.loglog(one["sizes"], one["seconds"], "o-", ms=5, color="#0072B2", label="measured")
        axes.loglog(one["sizes"], floor, "--", lw=1.4, color="#D55E00", label=f"model FLOPs at {rate:.0f} GFLOP/s")
        middle = [(one["sizes"][i] * one["sizes"][i + 1]) ** 0.5 for i in range(len(one["slopes"]))]
        for x, y, slope in zip(middle, one["seconds"][1:], one["slopes"], strict=True):
            axes.annotate(f"{slope:.2f}", (x, y), textcoords="offset points", xytext=(0, 7), ha="center", fontsize=8)
        axes.set_xticks(one["sizes"], [short(x) for x in one["sizes"]])
        axes.set_yticks((0.2, 0.5, 1, 2, 5, 10), ("0.2", "0.5", "1", "2", "5", "10"))
        axes.minorticks_off()
        axes.set_xlabel(LABELS[name])
        axes.grid(True, which="major", color="#e6e6e6", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    for row in grid:
        row[0].set_ylabel("forward and backward (s)")
    panels[5].axis("off")
    panels[5].legend(*panels[0].get_legend_handles_labels(), loc="upper left", frameon=False)
    panels[5].text(0.04, 0.68, "numbers: slope between two points", transform=panels[5].transAxes)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description="how the gradient's time grows")
    parser.add_argument("--draw", action="store_true", help="only draw the newest result")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", choices=list(LABELS), nargs="*", default=list(LABELS))
    options = parser.parse_args()
    if not options.draw:
        torch.set_num_threads(options.threads)
        sizes = {name: measure(v, options.repetitions) for name, v in points().items() if name in options.only}
        record("scaling", base=describe(BASE), shape=vars(Shape()), sizes=sizes, threads=options.threads)
    draw()


if __name__ == "__main__":
    main()
