"""The J_Q objective: one loss family and two coefficient arrays per estimator.

For a question x* with gold answer y*, M rationales z_m ~ p(.|x*) and w_m = p(y*|x*, z_m), every estimator's gradient is

    - sum_m [ score_m * grad log p(z_m|x*) + pathwise_m * grad log p(y*|x*, z_m) ]

(Lin & Ie 2026, arXiv 2604.25907). This module computes ``score`` and ``pathwise`` and nothing else: pure functions of
float tensors of shape (B, M), no model, no tokenizer. All of it works on log w in float64, since log w is a sum over
the answer's tokens and w itself underflows. Nothing is clamped: a coefficient of 1e-20 is a fact about the estimator.
"""

import math
from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor

from jqlight.errors import ConfigError, NonFiniteError


class Coefficients(NamedTuple):
    """Weights of the two log-likelihoods, float64, (B, M), already divided by M (and by M^q when normalised)."""

    score: Tensor
    """Weight of grad log p(z_m|x*), the sampled rationale's tokens."""
    pathwise: Tensor
    """Weight of grad log p(y*|x*, z_m), the answer's tokens."""


def log_q(u: Tensor | float, q: float) -> Tensor:
    """The q-logarithm (u^(1-q) - 1) / (1 - q), natural logarithm at q = 1. Lin & Ie (2026), eq. (1).

    Args:
        u: probabilities in [0, 1], any shape. At u = 0 the value is -1 / (1 - q), and -inf at q = 1.
        q: commitment in [0, 1].

    Returns:
        float64 tensor of u's shape, not in log-space; the loss of eq. (3) is its negative.
    """
    log_u = torch.as_tensor(u, dtype=torch.float64).log()
    return log_u if q == 1 else torch.expm1((1 - q) * log_u) / (1 - q)


class Commitment(ABC):
    """How strongly the loss commits to an example: the amplification A(P) of the success probability.

    Called with log P (float64, any shape) it returns log A; the loss's gradient is -A(P) grad P.
    """

    @abstractmethod
    def __call__(self, log_p: Tensor) -> Tensor:
        """Log-amplification log A(P), shape of ``log_p``."""

    @abstractmethod
    def log_effective(self, log_p: Tensor) -> Tensor:
        """log(P A(P)) with its limit at P = 0, shape of ``log_p``: the size of the step along grad log P."""

    @abstractmethod
    def loss(self, p: Tensor | float) -> Tensor:
        """The loss at success probability ``p`` (not in log-space), float64."""

    @abstractmethod
    def q_at(self, log_p: Tensor) -> Tensor:
        """The q that each instance is treated with, shape of ``log_p``; what ``train/q`` averages."""

    def log_bound(self, rollouts: int) -> float:
        """Logarithm of the largest w_m A(w̄) among M rollouts, by which ``normalize`` divides; 0 when there is none."""
        return 0.0

    def at(self, step: int) -> "Commitment":
        """The commitment itself, at every optimizer step; a schedule gives another one."""
        return self


class Tsallis(Commitment):
    """The family J_Q with one q: log A = -q log P. Lin & Ie (2026), eq. (5).

    Args:
        q: commitment in [0, 1]; 0 is reinforcement learning with verifiable rewards, 1 the marginal likelihood.

    Raises:
        ConfigError: q outside [0, 1].
    """

    def __init__(self, q: float) -> None:
        if not 0 <= q <= 1:
            raise ConfigError(f"model.q: given {q}, allowed is a number from 0 (RLVR) to 1 (marginal likelihood)")
        self.q = float(q)

    def __call__(self, log_p: Tensor) -> Tensor:
        """-q log P."""
        # At q = 0 the product with log P = -inf would be NaN; A is 1 there for every P.
        return -self.q * log_p if self.q else torch.zeros_like(log_p)

    def log_effective(self, log_p: Tensor) -> Tensor:
        """(1 - q) log P; 0 at q = 1, also for P = 0."""
        return (1 - self.q) * log_p if self.q != 1 else torch.zeros_like(log_p)

    def loss(self, p: Tensor | float) -> Tensor:
        """-log_q(p). Lin & Ie (2026), eq. (3)."""
        return -log_q(p, self.q)

    def q_at(self, log_p: Tensor) -> Tensor:
        """q for every instance."""
        return torch.full_like(log_p, self.q)

    def log_bound(self, rollouts: int) -> float:
        """q log M: w_m / w̄^q is at most M^q. Lin & Ie (2026), Algorithms 1 and 2."""
        return self.q * math.log(rollouts)

    def __repr__(self) -> str:
        return f"{self.q:g}"


class Splice(Commitment):
    """Spliced commitment A(P) = max(1, tau / P): marginal likelihood while P < tau, RLVR once P >= tau, per instance.

    The loss is 1 - P for P >= tau and (1 - tau) + tau ln(tau / P) below, continuous with its derivative. Ours, not the
    paper's; the derivation is in docs/theory.md. A has no bound M^q, so ``normalize`` does not apply.

    Args:
        tau: success probability in (0, 1] at which an instance counts as within reach.

    Raises:
        ConfigError: tau outside (0, 1].
    """

    def __init__(self, tau: float) -> None:
        if not 0 < tau <= 1:
            raise ConfigError(f"model.q.tau: given {tau}, allowed is a probability above 0 and at most 1, e.g. 0.05")
        self.tau = float(tau)

    def __call__(self, log_p: Tensor) -> Tensor:
        """max(0, log tau - log P)."""
        return (math.log(self.tau) - log_p).clamp_min(0.0)

    def log_effective(self, log_p: Tensor) -> Tensor:
        """max(log P, log tau): no instance is weighted below tau, none above its own P."""
        return log_p.clamp_min(math.log(self.tau))

    def loss(self, p: Tensor | float) -> Tensor:
        """1 - p above tau, (1 - tau) + tau ln(tau / p) below."""
        p = torch.as_tensor(p, dtype=torch.float64)
        return torch.where(p >= self.tau, 1 - p, (1 - self.tau) + self.tau * (math.log(self.tau) - p.log()))

    def q_at(self, log_p: Tensor) -> Tensor:
        """1 below tau, 0 from tau on."""
        return (log_p < math.log(self.tau)).to(log_p.dtype)

    def __repr__(self) -> str:
        return f"splice({self.tau:g})"


def as_commitment(q: "float | Commitment") -> Commitment:
    """``q`` itself when it is a commitment, ``Tsallis(q)`` when it is a number."""
    if not isinstance(q, Commitment) and hasattr(q, "at"):
        raise ConfigError(f"q: given {q!r}, allowed is a number or a commitment; a schedule gives one: q.at(step)")
    return q if isinstance(q, Commitment) else Tsallis(q)


def log_mean_exp(log_w: Tensor) -> Tensor:
    """log of the mean of w over the last axis, (B,); -inf where all are.

    The maximum is taken out of the mean, not of the sum, so that equal weights give their own value exactly.
    """
    top = log_w.amax(-1, keepdim=True)
    top = torch.where(top == -math.inf, 0.0, top)
    return (log_w - top).exp().mean(-1).log() + top.squeeze(-1)


def leave_one_out(log_w: Tensor) -> Tensor:
    """log of the mean of w over the others, (B, M), by a masked log-mean-exp.

    Never by subtracting w_m from the total, which loses every digit when one sample dominates.
    """
    size = log_w.shape[-1]
    others = log_w.unsqueeze(-2).expand(*log_w.shape, size)  # (B, M, M)
    others = others.masked_fill(torch.eye(size, dtype=torch.bool, device=log_w.device), -math.inf)
    return log_mean_exp(others) + math.log(size / (size - 1))


def _check(values: Tensor, minimum: int, what: str) -> Tensor:
    """``values`` as float64 (B, M); NaN, M too small and other shapes are errors."""
    if values.dim() != 2:
        raise ValueError(f"expected a tensor of shape (B, M), got {tuple(values.shape)}")
    if values.shape[1] < minimum:
        raise ConfigError(
            f"model.rollouts: given {values.shape[1]}, but {what} needs at least {minimum}; raise model.rollouts"
            + (" or set model.baseline: false" if what.startswith("the leave-one-out") else "")
        )
    if values.isnan().any():
        rows = values.isnan().any(-1).nonzero().flatten().tolist()
        raise NonFiniteError(f"NaN among the values of groups {rows}")
    return values.double()


def _check_log_w(log_w: Tensor, minimum: int, what: str) -> Tensor:
    log_w = _check(log_w, minimum, what)
    # A sum of log-softmax values can exceed 0 by rounding alone.
    if (log_w > 1e-3).any():
        raise ValueError(f"log-weights are log-probabilities, at most 0; the largest given is {log_w.max():.3g}")
    return log_w


def truncated(log_ratio: Tensor, maximum: float) -> Tensor:
    """log min(rho, maximum) of importance ratios rho = p(z)/b(z) in log-space: what the estimators below may take.

    With z_m ~ b in place of z_m ~ p the factor rho_m keeps the mean of anything. So v_m = rho_m w_m takes w_m's place:
    its mean is unbiased for P, and v_m A(v̄) / M is the gradient of the loss at v̄ with b held fixed (at q = 1 IWAE's
    with proposal b), which is what draws in proportion to v expect in PAFT. A baseline made of the others is multiplied
    by m's own ratio, since E_b[rho_m grad log p(z_m)] is 0 and E_b[grad log p(z_m)] is not. Truncation trades a bias
    for a bounded variance; without it the expectation at q = 0 is the on-policy one.
    """
    return log_ratio.clamp_max(math.log(maximum))


def reweighted(coefficients: Coefficients, log_ratio: Tensor | None) -> Coefficients:
    """``coefficients`` times the importance ratios, (B, M) in log-space, for rollouts drawn by another policy.

    For coefficients whose baseline is made of other rollouts' rewards; None for rollouts of the policy itself.
    """
    if log_ratio is None:
        return coefficients
    return Coefficients(*(values * log_ratio.exp() for values in coefficients))


def garl(
    log_w: Tensor,
    q: float | Commitment,
    *,
    baseline: bool = True,
    normalize: bool = True,
    log_ratio: Tensor | None = None,
    log_unit: Tensor | float = 0.0,
) -> Coefficients:
    """Coefficients of GARL: pathwise w_m A(w̄) / M, score the same minus its leave-one-out baseline.

    Lin & Ie (2026), eq. (12) and Algorithm 1 with ``baseline``; the plug-in of eq. (9) without. At q = 0 this is
    leave-one-out REINFORCE on Rao-Blackwellised rewards, at q = 1 without baseline the IWAE gradient.

    Args:
        log_w: log p(y*|x*, z_m), (B, M), nats, float; -inf is legal. A row that is all -inf gets zeros.
        q: a number in [0, 1] for ``Tsallis(q)``, or any commitment.
        baseline: subtract w̄_¬m A(w̄_¬m), which needs M >= 2 and leaves the expectation as it is.
        normalize: divide by M^q (Tsallis only), which bounds the effective reward by 1.
        log_ratio: log importance ratios (B, M) of rollouts drawn by another policy, see :func:`truncated`; None for 0.
        log_unit: what the coefficients are counted in, nats, a number or (B, 1): they come divided by e^log_unit, so
            that one of e^-800, below float64's range, can be given. 0 is the paper's step, :func:`garl_log_size` a step
            without a scale.

    Raises:
        ConfigError: M = 1 with a baseline.
        NonFiniteError: a NaN log-weight; names the rows.
        ValueError: a positive log-weight, or a shape that is not (B, M).
    """
    log_w = _check_log_w(log_w, 2 if baseline else 1, "the leave-one-out baseline")
    log_ratio = torch.zeros_like(log_w) if log_ratio is None else log_ratio
    log_w = log_w + log_ratio
    commitment, rollouts = as_commitment(q), log_w.shape[1]
    log_mean = log_mean_exp(log_w).unsqueeze(-1)  # (B, 1)
    log_scale = -math.log(rollouts) - (commitment.log_bound(rollouts) if normalize else 0.0) - log_unit
    dead = log_mean == -math.inf
    pathwise = (log_w + commitment(log_mean) + log_scale).exp().masked_fill(dead, 0.0)
    if not baseline:
        return Coefficients(pathwise, pathwise)
    control = (commitment.log_effective(leave_one_out(log_w)) + log_scale + log_ratio).exp().masked_fill(dead, 0.0)
    return Coefficients(pathwise - control, pathwise)


def paft(
    log_w: Tensor,
    q: float | Commitment,
    *,
    num_resamples: int | None = None,
    normalize: bool = True,
    generator: torch.Generator | None = None,
    log_ratio: Tensor | None = None,
    log_unit: Tensor | float = 0.0,
) -> Coefficients:
    """Coefficients of PAFT: w̄ A(w̄) n_m / K for both, n_m counting K draws with probability proportional to w.

    Lin & Ie (2026), eq. (14) and Algorithm 2. Given the pool, its expectation is plug-in GARL; at q = 1 it is the
    EM/TRICE step with weight one per draw. Resampling in log-space keeps it defined when every w underflows.

    Args:
        log_w: log p(y*|x*, z_m), (B, M), nats, float; -inf is legal. A row that is all -inf gets zeros.
        q: a number in [0, 1] for ``Tsallis(q)``, or any commitment.
        num_resamples: K, default M.
        normalize: divide by M^q (Tsallis only).
        generator: source of the draws, on log_w's device.
        log_ratio: log importance ratios (B, M) of rollouts drawn by another policy, see :func:`truncated`; None for 0.
        log_unit: what the coefficients are counted in, nats, as in :func:`garl`; here with :func:`paft_log_size`.

    Raises:
        NonFiniteError: a NaN log-weight; names the rows.
        ValueError: a positive log-weight, or a shape that is not (B, M).
    """
    log_w = _check_log_w(log_w, 1, "PAFT")
    log_w = log_w if log_ratio is None else log_w + log_ratio
    commitment, rollouts = as_commitment(q), log_w.shape[1]
    draws = num_resamples or rollouts
    log_mean = log_mean_exp(log_w).unsqueeze(-1)
    dead = log_mean == -math.inf
    probabilities = torch.where(dead, torch.zeros_like(log_w), log_w).softmax(-1)
    drawn = torch.multinomial(probabilities, draws, replacement=True, generator=generator)  # (B, K)
    counts = torch.zeros_like(log_w).scatter_add_(1, drawn, torch.ones_like(drawn, dtype=log_w.dtype))
    log_scale = -(commitment.log_bound(rollouts) if normalize else 0.0) - log_unit
    step = (commitment.log_effective(log_mean) + log_scale).exp().masked_fill(dead, 0.0)
    weights = step * counts / draws
    return Coefficients(weights, weights)


def garl_log_size(
    log_w: Tensor, q: float | Commitment, *, normalize: bool = True, log_ratio: Tensor | None = None
) -> Tensor:
    """log(M max_m pathwise_m) of GARL's coefficients, (B,) float64, nats; -inf for a row that is all -inf.

    The largest coefficient of a group: no score is larger in magnitude, as A falls and P A(P) grows with P. In units of
    it the largest is 1 / M whatever P is, and the normalisation by M^q, a constant, cancels. Arguments as in
    :func:`garl`.
    """
    log_w = _check_log_w(log_w, 1, "GARL")
    log_w = log_w if log_ratio is None else log_w + log_ratio
    return _log_size(log_w, as_commitment(q), log_w.amax(-1) - log_mean_exp(log_w), normalize)


def paft_log_size(
    log_w: Tensor, q: float | Commitment, *, normalize: bool = True, log_ratio: Tensor | None = None
) -> Tensor:
    """log of the sum of PAFT's coefficients, w̄ A(w̄), (B,) float64, nats; -inf for a row that is all -inf.

    In units of it the coefficients are n_m / K, the shares of the draws. Arguments as in :func:`paft`.
    """
    log_w = _check_log_w(log_w, 1, "PAFT")
    log_w = log_w if log_ratio is None else log_w + log_ratio
    return _log_size(log_w, as_commitment(q), torch.zeros_like(log_w[:, 0]), normalize)


def _log_size(log_w: Tensor, commitment: Commitment, log_lead: Tensor, normalize: bool) -> Tensor:
    log_mean = log_mean_exp(log_w)
    bound = commitment.log_bound(log_w.shape[1]) if normalize else 0.0
    return torch.where(log_mean == -math.inf, -math.inf, log_lead + commitment.log_effective(log_mean) - bound)


def _on_sampled_output(advantage: Tensor) -> Coefficients:
    """One advantage for the tokens of z_m and of the sampled answer alike."""
    return Coefficients(advantage / advantage.shape[1], advantage / advantage.shape[1])


def grpo(rewards: Tensor, *, eps: float = 1e-4, scale: bool = True) -> Coefficients:
    """Coefficients of GRPO: (r_m - mean r) / (std r + eps) / M, for z_m and the sampled answer alike.

    The standard deviation is the sample one (M - 1), as in the common implementations. Without ``scale`` the advantage
    is not divided by it. A group without a learning signal (all rewards equal) gets zeros.

    Args:
        rewards: (B, M), float, 1 for an exact match and 0 otherwise.
        eps: added to the standard deviation.
        scale: divide by the standard deviation.

    Raises:
        ConfigError: M = 1.
        NonFiniteError: a NaN reward.
    """
    rewards = _check(rewards, 2, "a group-relative advantage")
    centred = rewards - rewards.mean(-1, keepdim=True)
    return _on_sampled_output(centred / (rewards.std(-1, keepdim=True) + eps) if scale else centred)


def rloo(rewards: Tensor) -> Coefficients:
    """Coefficients of RLOO: (r_m - mean of the others) / M, for z_m and the sampled answer alike.

    Args:
        rewards: (B, M), float.

    Raises:
        ConfigError: M = 1.
        NonFiniteError: a NaN reward.
    """
    rewards = _check(rewards, 2, "a leave-one-out reward")
    size = rewards.shape[1]
    return _on_sampled_output(rewards - (rewards.sum(-1, keepdim=True) - rewards) / (size - 1))


def maxrl(rewards: Tensor) -> Coefficients:
    """Coefficients of MaxRL with its control variate: (r_m - r̄) / (r̄ M), zero for a group without success.

    Tajwar et al. (2026), arXiv 2602.02710; for z_m and the sampled answer alike.

    Args:
        rewards: (B, M), float, not negative.

    Raises:
        ConfigError: M = 1.
        NonFiniteError: a NaN reward.
    """
    rewards = _check(rewards, 2, "a group-relative advantage")
    mean = rewards.mean(-1, keepdim=True)
    return _on_sampled_output(torch.where(mean > 0, (rewards - mean) / mean.clamp_min(1e-300), 0.0))
