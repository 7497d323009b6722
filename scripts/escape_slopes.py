"""How the time to leave a cold start grows with its depth: measured slopes against the theory's 1 - q.

python scripts/escape_slopes.py run runs/slopes.csv      (half an hour on 2 cores; goes on where it was stopped)
python scripts/escape_slopes.py fit runs/slopes.csv docs/results/slopes

``run`` trains a model of a few thousand parameters through ``Trainer.fit`` with GARL, plain SGD and no clipping, from
success probabilities p0 that it was pretrained to: one token decides. A run ends when a step's success reaches one
half, or after 4,000 steps, when it counts as "later than that". ``fit`` regresses log T on log 1/p0 for each q by
maximum likelihood with those censored values, and resamples seeds for the intervals.
"""

import argparse
import csv
import math
import tempfile
import warnings
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import torch
from lightning import Callback, Trainer, seed_everything
from scipy import integrate, optimize, stats
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from jqlight.benchmarks import Benchmark, Item
from jqlight.estimators import GARL
from jqlight.policy import PolicyConfig
from jqlight.sampling import SamplerConfig
from jqlight.token_format import Thinking

matplotlib.use("Agg")
import matplotlib.pyplot as plt

EOS, END, A, B, LINE = range(5)
PROMPT = [A, A, LINE]
Q = (0.0, 0.25, 0.5, 0.75, 1.0)
P0 = (0.03, 0.01, 0.003, 0.001, 0.0003, 0.0001)
SEEDS = range(5)
MOST_STEPS, ROLLOUTS, RATE = 4000, 8, 0.002
COLUMNS = ("q", "asked", "p0", "seed", "steps", "escaped")


def make_model(p0: float, seed: int, folder: Path) -> str:
    """Folder of a GPT-2 that thinks at random and then writes the gold answer "b" with probability ``p0``, else "a"."""
    backend = Tokenizer(
        models.WordLevel({"<eos>": EOS, "</think>": END, "a": A, "b": B, "\n": LINE}, unk_token="<eos>")
    )
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    backend.decoder = decoders.Fuse()
    backend.add_special_tokens(["<eos>", "</think>"])
    PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<eos>").save_pretrained(folder)
    torch.manual_seed(seed)
    config = GPT2Config(vocab_size=5, n_embd=16, n_layer=2, n_head=2, n_positions=16, eos_token_id=EOS)
    model = GPT2LMHeadModel(config).eval()
    thoughts = [[END], [A, END], [B, END]]
    texts = torch.tensor([[*PROMPT, *z, y, EOS] + [EOS] * (2 - len(z)) for z, y in product(thoughts, (A, B))])
    ends = torch.tensor([len(PROMPT) + len(z) + 2 for z, _ in product(thoughts, (A, B))])
    weights = torch.tensor([share * (p0 if y == B else 1 - p0) for share, y in product((0.4, 0.3, 0.3), (A, B))])
    counted = torch.arange(1, texts.shape[1]) < ends[:, None]
    counted[:, : len(PROMPT) - 1] = False
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for step in range(1500):
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * (1 - step / 1500)
        log_p = model(input_ids=texts).logits[:, :-1].log_softmax(-1)
        log_p = log_p.gather(-1, texts[:, 1:, None]).squeeze(-1)
        loss = -(weights * (log_p * counted).sum(-1)).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.save_pretrained(folder)
    return str(folder)


class One(Benchmark):
    """One question, over and over."""

    def read(self, split: str) -> list[dict[str, str]]:
        return [{"id": "0"}]

    def item(self, record: dict[str, str]) -> Item:
        return Item("aa", "b")


class Until(Callback):
    """Ends training with the first step whose success is one half; remembers the first and the last."""

    def __init__(self) -> None:
        self.first, self.steps, self.escaped = math.nan, 0, False

    def on_train_batch_end(self, trainer: Trainer, *_: object) -> None:
        success = float(trainer.callback_metrics["train/success"])
        self.first = success if self.steps == 0 else self.first
        self.steps, self.escaped = self.steps + 1, success >= 0.5
        trainer.should_stop = self.escaped


def train(q: float, seed: int, model: str) -> Until:
    """One run from ``model``."""
    seed_everything(seed, verbose=False)
    policy = PolicyConfig(model, thinking=Thinking(start="", separator=""))
    optimizer = partial(torch.optim.SGD, lr=RATE)
    settings: dict[str, Any] = {"rollouts": ROLLOUTS, "max_grad_norm": math.inf, "normalize": False}
    estimator = GARL(policy, SamplerConfig("transformers", 2, 2), q=q, optimizer=optimizer, **settings)
    until = Until()
    silent = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary", "enable_checkpointing"), False)
    length = {"max_steps": MOST_STEPS, "max_epochs": -1, "limit_val_batches": 0}
    trainer = Trainer(accelerator="cpu", callbacks=[until], **length, **silent)
    trainer.fit(estimator, datamodule=One(prompts_per_step=1, max_prompt_tokens=8))
    return until


def run(path: Path) -> None:
    """Append a row for each run that the file does not have."""
    done = set()
    if path.exists():
        done = {(row["q"], row["asked"], row["seed"]) for row in csv.DictReader(path.open(encoding="utf-8"))}
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8", newline="") as file, tempfile.TemporaryDirectory() as scratch:
        writer = csv.writer(file)
        if not done:
            writer.writerow(COLUMNS)
        for seed, p0 in product(SEEDS, P0):
            wanted = [q for q in reversed(Q) if (str(q), str(p0), str(seed)) not in done]
            model = make_model(p0, seed, Path(scratch) / f"{p0}-{seed}") if wanted else ""
            for q in wanted:
                found = train(q, seed, model)
                writer.writerow((q, p0, f"{found.first:.6g}", seed, found.steps, int(found.escaped)))
                file.flush()
                print(f"q {q:<4} p0 {found.first:.2e}  seed {seed}  {found.steps} steps", flush=True)


def slope(rows: pd.DataFrame) -> float:
    """Slope of log T on log 1/p0, T censored at the last step where a run had not escaped (Tobit, normal errors)."""
    x, y = np.log(1 / rows["p0"].to_numpy()), np.log(rows["steps"].to_numpy())
    escaped = rows["escaped"].to_numpy() == 1

    def loss(theta: np.ndarray) -> float:
        residual = y - theta[0] - theta[1] * x
        scale = math.exp(theta[2])
        seen = stats.norm.logpdf(residual[escaped], scale=scale).sum()
        return float(-seen - stats.norm.logsf(residual[~escaped], scale=scale).sum())

    start = np.array([y.mean() - x.mean() * 0.5, 0.5, -0.5])
    found = optimize.minimize(loss, start, method="Nelder-Mead", options={"maxiter": 4000, "fatol": 1e-6})
    return float(found.x[1])


def flow_times(p0: np.ndarray | pd.Series, q: float) -> np.ndarray:
    """Escape times of the gradient flow on one logit, from each p0 to one half, in units of its rate."""
    return np.array([integrate.quad(lambda u: u ** (q - 2) * (1 - u) ** -2, p, 0.5)[0] for p in p0])


def flow_slope(rows: pd.DataFrame, q: float) -> float:
    """The slope that the gradient flow has at the same p0: of its escape time, not of the leading term alone."""
    return float(np.polyfit(np.log(1 / rows["p0"]), np.log(flow_times(rows["p0"], q)), 1)[0])


def draw(rows: pd.DataFrame, path: Path) -> None:
    """Steps to escape against 1/p0, on the flow's curves with one rate for all q and runs."""
    escaped = rows[rows["escaped"] == 1]
    ratios = [np.log(group["steps"] / flow_times(group["p0"], q)) for q, group in escaped.groupby("q")]
    rate = math.exp(float(np.median(np.concatenate(ratios))))
    grid = np.geomspace(rows["p0"].min(), rows["p0"].max(), 60)
    figure, axis = plt.subplots(figsize=(6, 4.2))
    for (q, group), colour in zip(rows.groupby("q"), plt.cm.viridis(np.linspace(0, 0.9, 5)), strict=False):
        seen, late = group[group["escaped"] == 1], group[group["escaped"] == 0]
        axis.loglog(1 / seen["p0"], seen["steps"], "o", color=colour, ms=4, alpha=0.7, label=f"q = {q:g}")
        axis.loglog(1 / late["p0"], late["steps"], "^", color=colour, ms=5, mfc="none")
        axis.loglog(1 / grid, rate * flow_times(grid, q), "-", color=colour, lw=1)
    axis.set(xlabel="1 / p0", ylabel="steps until success is one half", ylim=(None, MOST_STEPS * 1.3))
    axis.legend(frameon=False, title="lines: the flow")
    figure.tight_layout()
    figure.savefig(path, dpi=130)


def fit(path: Path, out: Path, draws: int) -> None:
    """Write slopes.md and the data."""
    rows = pd.read_csv(path)
    generator = np.random.default_rng(0)
    heads = ("q", "runs", "escaped", "slope of log T on log 1/p0", "95% interval", "of the flow, same p0", "1 − q")
    lines = [f"| {' | '.join(heads)} |", f"{'|---' * len(heads)}|"]
    for q, group in rows.groupby("q"):
        by_seed = dict(list(group.groupby("seed")))
        picks = [generator.choice(list(by_seed), len(by_seed)) for _ in range(draws)]
        spread = np.quantile([slope(pd.concat([by_seed[s] for s in pick])) for pick in picks], [0.025, 0.975])
        found, escaped = slope(group), group["escaped"].sum()
        interval = f"{spread[0]:.2f} to {spread[1]:.2f}"
        lines.append(
            f"| {q:g} | {len(group)} | {escaped} | {found:.2f} | {interval} | {flow_slope(group, q):.2f} | {1 - q:g} |"
        )
    out.mkdir(parents=True, exist_ok=True)
    rows.to_csv(out / "runs.csv", index=False)
    draw(rows, out / "slopes.png")
    (out / "slopes.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=("run", "fit"))
    parser.add_argument("file", type=Path)
    parser.add_argument("out", type=Path, nargs="?", help="folder of the table, for fit")
    parser.add_argument("--draws", type=int, default=300, help="resamples of the seeds, for the intervals")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    if options.verb == "run":
        run(options.file)
    elif options.out is None:
        parser.error("fit: give the folder of the table")
    else:
        fit(options.file, options.out, options.draws)


if __name__ == "__main__":
    main()
