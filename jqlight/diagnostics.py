"""What one batch of log-weights says about the estimate of P.

Pure functions of log w, (B, M), in log-space float64, each a mean over the batch's groups unless said otherwise. Groups
whose log-weights are all -inf are counted by ``dead_groups`` and left out of every mean that has no value at P = 0.
"""

import math

import torch
from torch import Tensor

from jqlight.escape import EscapeMonitor, StallMonitor
from jqlight.objective import Coefficients, Commitment, Splice, log_mean_exp

__all__ = [
    "EscapeMonitor",
    "StallMonitor",
    "distinct_rationales",
    "effective_sample_size",
    "leave_one_out_spread",
    "logprob_gap",
    "max_amplified_advantage",
    "relative_bias",
    "relative_variance",
    "update_size",
    "weight_diagnostics",
]

_SAMPLE = 1 << 14
"""Numbers of a tensor that :func:`update_size` looks at: the whole of a small model, some of a large one."""


def relative_variance(log_w: Tensor) -> Tensor:
    """Sample variance of w over w̄², (B,): M - 1 degrees of freedom, 0 for M = 1, not in log-space."""
    rollouts = log_w.shape[-1]
    ratio = (log_w - log_mean_exp(log_w).unsqueeze(-1)).exp()  # w_m / w̄, at most M
    return (ratio - 1).square().sum(-1) / max(1, rollouts - 1)


def effective_sample_size(log_w: Tensor) -> Tensor:
    """(sum w)² / sum w², (B,), between 1 and M, not in log-space."""
    return (2 * log_w.logsumexp(-1) - (2 * log_w).logsumexp(-1)).exp()


def leave_one_out_spread(log_w: Tensor) -> Tensor:
    """Jackknife standard error of w̄ as a share of w̄, (B,): the spread of the leave-one-out means, sqrt(Var(w)/M)/w̄."""
    return (relative_variance(log_w) / log_w.shape[-1]).sqrt()


def relative_bias(log_w: Tensor, q: Tensor | float) -> Tensor:
    """Delta-method estimate q(q+1)/2 · Var(w) / (M w̄²) of the plug-in's relative bias, (B,), not in log-space."""
    return q * (q + 1) / 2 * relative_variance(log_w) / log_w.shape[-1]


def weight_diagnostics(log_w: Tensor, commitment: Commitment) -> dict[str, float]:
    """Diagnostics of one batch of log-weights by name; see docs/metrics.md for each one's unit.

    Args:
        log_w: (B, M), float64, log p(y*|x*, z_m).
        commitment: the one in force at this step.
    """
    log_mean = log_mean_exp(log_w)
    q = commitment.q_at(log_mean)
    living = log_mean > -math.inf
    alive = log_w[living]
    values = {
        "dead_groups": float(len(log_w) - len(alive)),
        "success": log_mean.exp().mean().item(),
        "q": q.mean().item(),
    }
    if isinstance(commitment, Splice):
        values["below_tau"] = (log_mean < math.log(commitment.tau)).double().mean().item()
    if len(alive):
        values |= {
            "log_success": log_mean[living].mean().item(),
            "success_spread": leave_one_out_spread(alive).mean().item(),
            "effective_sample_size": effective_sample_size(alive).mean().item(),
            "relative_bias": relative_bias(alive, q[living]).mean().item(),
        }
    return values


def max_amplified_advantage(coefficients: Coefficients) -> float:
    """Largest M · score over all samples: the max of c_m / M^q in Lin & Ie (2026), Figure 3."""
    return (coefficients.score.shape[-1] * coefficients.score).max().item()


def distinct_rationales(coefficients: Coefficients) -> float:
    """Mean number of rationales per group with a non-zero weight: for PAFT, how many distinct ones were drawn."""
    return (coefficients.pathwise != 0).sum(-1).double().mean().item()


@torch.no_grad()
def update_size(optimizer: torch.optim.Optimizer) -> float | None:
    """Root mean square of m / (sqrt(v) + eps), the last update in units of the learning rate; None but for Adam's kin.

    Over the numbers that have had a gradient, in samples of at most ``_SAMPLE`` a tensor. Adam makes it 1 at its first
    step and some tenths later, whatever the gradient's size, unless that is below epsilon: then it is their ratio.
    """
    total, count = 0.0, 0
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            state = optimizer.state.get(parameter, {})
            if not {"step", "exp_avg", "exp_avg_sq"} <= state.keys() or "eps" not in group:
                continue
            beta1, beta2 = (float(beta) for beta in group["betas"])
            step = float(state["step"])
            stride = max(1, parameter.numel() // _SAMPLE)
            mean = state["exp_avg"].flatten()[::stride].double() / (1 - beta1**step)
            root = (state["exp_avg_sq"].flatten()[::stride].double() / (1 - beta2**step)).sqrt()
            moved = mean != 0
            total += (mean / (root + float(group["eps"])))[moved].square().sum().item()
            count += int(moved.sum())
    return math.sqrt(total / count) if count else None


def logprob_gap(engine: list[list[float]], trainer: list[Tensor]) -> float:
    """Largest |engine log-prob - trainer log-prob| over sampled tokens, nats; 0 when none was sampled.

    Args:
        engine: per rollout, the engine's log-probability of each sampled token.
        trainer: per rollout, the trainer's, same lengths.
    """
    ours = torch.cat([t.double().cpu() for t in trainer]) if trainer else torch.empty(0)
    theirs = torch.tensor([p for row in engine for p in row], dtype=torch.float64)
    return (ours - theirs).abs().max().item() if len(theirs) else 0.0
