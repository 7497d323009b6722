"""Draw the figures of docs/theory.md from the package's own functions.

python scripts/theory_figures.py [folder, default docs/images]        (about 20 seconds on one CPU core)
"""

import argparse
import math
from collections.abc import Callable
from itertools import combinations_with_replacement
from pathlib import Path

import matplotlib
import torch
from torch import Tensor

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from jqlight.objective import Coefficients, Commitment, Splice, Tsallis, garl, paft

Q = (0.0, 0.25, 0.5, 0.75, 1.0)
TAU = 0.05
# Dark to light blue-yellow (cividis) for the ordered q, and the vermilion of Okabe and Ito for the splice: told apart
# with every common colour-vision deficiency and in grey.
COLOURS = {q: matplotlib.colormaps["cividis"](0.0 + 0.85 * q) for q in Q}
SPLICE_COLOUR = "#D55E00"
GREY = "#666666"

# -- the mathematics that is drawn -------------------------------------------------------------------------------------


def escape_time(commitment: Commitment, start: float, end: float = 0.5, points: int = 200_001) -> float:
    """Time of the gradient flow on P = sigmoid(theta) from P = ``start`` to ``end``.

    d theta / dt = A(P) P (1 - P), integrated over theta by the trapezium rule.
    """
    logits = torch.logit(torch.tensor([start, end], dtype=torch.float64))
    theta = torch.linspace(*logits.tolist(), points, dtype=torch.float64)
    log_p, log_rest = torch.nn.functional.logsigmoid(theta), torch.nn.functional.logsigmoid(-theta)
    return torch.trapezoid((-commitment(log_p) - log_p - log_rest).exp(), theta).item()


def escape_asymptote(q: float, start: float) -> float:
    """Leading term of the escape time for small ``start``: p0^-(1-q) / (1-q), and ln(1/p0) at q = 1."""
    return math.log(1 / start) if q == 1 else start ** -(1 - q) / (1 - q)


def splice_escape(tau: float, start: float, end: float = 0.5) -> float:
    """Escape time of the splice in closed form, for start < tau < end."""

    def slow(u: float) -> float:  # integral of 1 / (u² (1 - u)²)
        return 2 * math.log(u / (1 - u)) + 1 / (1 - u) - 1 / u

    def fast(u: float) -> float:  # integral of 1 / (u (1 - u)²)
        return math.log(u / (1 - u)) + 1 / (1 - u)

    return (fast(tau) - fast(start)) / tau + slow(end) - slow(tau)


def escort(shares: Tensor, q: float) -> Tensor:
    """The distribution proportional to shares^(1/q)."""
    return (shares.log() / q).softmax(-1)


def minimiser(shares: Tensor, commitment: Commitment) -> Tensor:
    """The categorical distribution with the least mean loss over labels of frequencies ``shares``, by L-BFGS."""
    logits = torch.zeros_like(shares, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [logits], max_iter=500, tolerance_grad=1e-12, tolerance_change=1e-18, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = (shares * commitment.loss(logits.softmax(-1))).sum()
        value.backward()
        return value

    optimizer.step(closure)
    return logits.detach().softmax(-1)


class Enumerable:
    """Four rationales z with p(z) = softmax(theta) and p(y*|z) = sigmoid(phi_z): eight parameters, all exact."""

    prior = torch.tensor([0.5, 0.3, 0.15, 0.05], dtype=torch.float64)
    w = torch.tensor([0.02, 0.1, 0.3, 0.7], dtype=torch.float64)

    def __init__(self) -> None:
        identity = torch.eye(4, dtype=torch.float64)
        zeros = torch.zeros(4, 4, dtype=torch.float64)
        self.of_rationale = torch.cat([identity - self.prior, zeros], 1)  # (4, 8), grad log p(z)
        self.of_answer = torch.cat([zeros, torch.diag(1 - self.w)], 1)  # (4, 8), grad log p(y*|z)
        self.of_both = self.of_rationale + self.of_answer
        self.p = self.prior @ self.w

    def gradient(self, q: float) -> Tensor:
        """grad ℓ_q, (8,)."""
        return -(self.p**-q) * (self.prior * self.w) @ self.of_both

    def step(self, drawn: Tensor, coefficients: Coefficients) -> Tensor:
        """Gradient estimates of groups ``drawn`` (N, M), (N, 8)."""
        score = torch.einsum("nm,nmp->np", coefficients.score, self.of_rationale[drawn])
        return -score - torch.einsum("nm,nmp->np", coefficients.pathwise, self.of_answer[drawn])

    def groups(self, rollouts: int) -> tuple[Tensor, Tensor]:
        """Every multiset of ``rollouts`` rationales, (N, M), and its probability, (N,)."""
        drawn = torch.tensor(list(combinations_with_replacement(range(4), rollouts)))
        counts = torch.nn.functional.one_hot(drawn, 4).sum(1)
        orders = math.lgamma(rollouts + 1) - torch.lgamma(counts + 1.0).sum(1).double()
        return drawn, (orders + self.prior.log()[drawn].sum(1)).exp()

    def moments(self, q: float, rollouts: int, *, baseline: bool) -> tuple[Tensor, float]:
        """Mean (8,) and total variance of GARL's gradient estimate, exactly."""
        drawn, chance = self.groups(rollouts)
        steps = self.step(drawn, garl(self.w[drawn].log(), q, baseline=baseline, normalize=False))
        mean = chance @ steps
        return mean, (chance @ (steps - mean).square().sum(1)).item()

    def paft_variance(self, q: float, rollouts: int) -> float:
        """Total variance of PAFT's estimate with K = M, exactly: GARL's plus what the draws add within each pool."""
        drawn, chance = self.groups(rollouts)
        log_w = self.w[drawn].log()
        whole = paft(log_w, q, num_resamples=1, normalize=False).pathwise.sum(1)  # the same for every draw
        share = log_w.softmax(1)
        of_both = self.of_both[drawn]
        mean = torch.einsum("nm,nmp->np", share, of_both)
        spread = (share * of_both.square().sum(2)).sum(1) - mean.square().sum(1)
        within = (chance @ (whole.square() * spread)).item() / rollouts
        return self.moments(q, rollouts, baseline=False)[1] + within

    def leading_bias(self, q: float, rollouts: int) -> Tensor:
        """q / (M P^(q+1)) · [(q+1)/2 · grad ℓ_1 · Var(w) - Cov(g, w)], (8,)."""
        g = -self.w[:, None] * self.of_both
        excess = self.prior * (self.w - self.p)
        variance = self.prior @ (self.w - self.p).square()
        return q / (rollouts * self.p ** (q + 1)) * ((q + 1) / 2 * self.gradient(1.0) * variance - excess @ g)

    def sampled_variance(self, estimate: Callable[[Tensor], Coefficients], rollouts: int, count: int = 40_000) -> float:
        """Total variance over ``count`` sampled groups."""
        generator = torch.Generator().manual_seed(rollouts)
        drawn = torch.multinomial(self.prior, count * rollouts, True, generator=generator).view(count, rollouts)
        return self.step(drawn, estimate(self.w[drawn].log())).var(0).sum().item()


# -- the figures -------------------------------------------------------------------------------------------------------


def members() -> list[tuple[Commitment, str, dict]]:
    """The five members of the family and the splice, with label and line style."""
    lines: list[tuple[Commitment, str, dict]] = [(Tsallis(q), f"q = {q:g}", {"color": COLOURS[q]}) for q in Q]
    return [*lines, (Splice(TAU), f"splice, τ = {TAU:g}", {"color": SPLICE_COLOUR, "linestyle": (0, (4, 1.5))})]


def finish(axes: Axes, title: str, x: str, y: str) -> None:
    axes.set(xlabel=x, ylabel=y)
    axes.set_title(title, loc="left", fontsize=10.5, fontweight="bold")
    axes.grid(True, color="#e6e6e6", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def draw_loss(path: Path) -> None:
    figure, (loss, weight) = plt.subplots(1, 2, figsize=(10, 3.9), layout="constrained")
    p = torch.linspace(1e-3, 1, 1000, dtype=torch.float64)
    small = torch.logspace(-8, 0, 400, dtype=torch.float64)
    for commitment, label, style in members():
        loss.plot(p, commitment.loss(p), label=label, **style)
        weight.loglog(small, commitment.log_effective(small.log()).exp(), **style)
    loss.set(ylim=(0, 3.2), xlim=(0, 1))
    weight.set(ylim=(1e-8, 3), xlim=(1e-8, 1))
    finish(loss, "Loss", "success probability P", "loss ℓ(P)")
    finish(weight, "Weight of an example", "success probability P", "P · A(P), length of the step along ∇ log P")
    loss.legend(frameon=False, fontsize=9)
    figure.savefig(path, dpi=150)


def draw_escape(path: Path) -> None:
    figure, axes = plt.subplots(figsize=(7.2, 4.3), layout="constrained")
    starts = [10 ** -(k / 4) for k in range(4, 33)]
    for commitment, label, style in members():
        axes.loglog(starts, [escape_time(commitment, p0) for p0 in starts], label=label, **style)
        if isinstance(commitment, Tsallis):
            dots = starts[2::3]
            values = [escape_asymptote(commitment.q, p) for p in dots]
            axes.loglog(dots, values, "o", ms=4, mfc="none", color=style["color"])
    dots = [p for p in starts[2::3] if p < TAU]
    axes.loglog(dots, [splice_escape(TAU, p) for p in dots], "o", ms=4, mfc="none", color=SPLICE_COLOUR)
    axes.plot([], [], "o", ms=4, mfc="none", color=GREY, label="leading term for small p₀ (splice: exact)")
    axes.set(xlim=(0.15, 8e-9), ylim=(1, 3e8))
    finish(
        axes, "Escape from a cold start", "success probability at the start, p₀", "time until P = 1/2 (gradient flow)"
    )
    axes.legend(frameon=False, fontsize=9, loc="upper left")
    figure.savefig(path, dpi=150)


def draw_escort(path: Path) -> None:
    figure, axes = plt.subplots(figsize=(7.2, 3.6), layout="constrained")
    shares = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64)
    width = 0.2
    for column, q in enumerate(Q[1:]):
        x = [j + (column - 1.5) * width for j in range(4)]
        axes.bar(x, escort(shares, q), width * 0.92, color=COLOURS[q], label=f"q = {q:g}")
        axes.plot(x, minimiser(shares, Tsallis(q)), "o", ms=5, mfc="white", mec="black", mew=1)
    axes.plot([], [], "o", ms=5, mfc="white", mec="black", mew=1, label="minimiser found from the loss")
    for j, share in enumerate(shares.tolist()):
        axes.hlines(share, j - 0.42, j + 0.42, color=SPLICE_COLOUR, linewidth=1.6, label="α" if j == 0 else None)
    axes.set_xticks(range(4), [f"label {j + 1}\nα = {share:g}" for j, share in enumerate(shares.tolist())])
    axes.set_ylim(-0.012, 0.78)
    finish(axes, "What each q converges to: bars α^(1/q), normalised", "", "probability at the minimum")
    axes.grid(False, axis="x")
    axes.legend(frameon=False, fontsize=9)
    figure.savefig(path, dpi=150)


def draw_bias(path: Path) -> None:
    figure, (bias, variance) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    model, sizes = Enumerable(), [2, 3, 4, 6, 8, 12, 16, 24, 32]
    for q in Q[1:]:
        length = model.gradient(q).norm()
        exact = [((model.moments(q, m, baseline=False)[0] - model.gradient(q)).norm() / length).item() for m in sizes]
        bias.loglog(sizes, exact, "o-", ms=4, color=COLOURS[q], label=f"q = {q:g}")
        leading = [(model.leading_bias(q, m).norm() / length).item() for m in sizes]
        bias.loglog(sizes, leading, "--", linewidth=1, color=COLOURS[q])
    bias.plot([], [], "--", linewidth=1, color=GREY, label="published expansion")
    q = 0.75
    length = model.gradient(q).square().sum().item()
    curves = {
        "PAFT (K = M)": ("#D55E00", lambda m: model.paft_variance(q, m)),
        "GARL, plug-in": ("#0072B2", lambda m: model.moments(q, m, baseline=False)[1]),
        "GARL, baseline": ("#000000", lambda m: model.moments(q, m, baseline=True)[1]),
    }
    for label, (colour, exactly) in curves.items():
        variance.loglog(sizes, [exactly(m) / length for m in sizes], color=colour, label=label)
    seeded = torch.Generator().manual_seed(0)
    sampled = {
        "#D55E00": lambda log_w: paft(log_w, q, normalize=False, generator=seeded),
        "#0072B2": lambda log_w: garl(log_w, q, baseline=False, normalize=False),
        "#000000": lambda log_w: garl(log_w, q, normalize=False),
    }
    for colour, estimate in sampled.items():
        dots = [model.sampled_variance(estimate, m) / length for m in sizes]
        variance.loglog(sizes, dots, "o", ms=4, mfc="none", color=colour)
    variance.plot([], [], "o", ms=4, mfc="none", color=GREY, label="40,000 sampled groups")
    for axes, ticks in ((bias, (0.02, 0.05, 0.1, 0.2, 0.5, 1)), (variance, (0.25, 0.5, 1, 2))):
        axes.set_xticks((2, 4, 8, 16, 32), ("2", "4", "8", "16", "32"))
        axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
    finish(bias, "Bias of GARL and PAFT", "rollouts M", "‖E[gradient] − ∇ℓ‖ / ‖∇ℓ‖")
    finish(variance, f"Variance at q = {q:g}", "rollouts M", "trace of the covariance / ‖∇ℓ‖²")
    bias.legend(frameon=False, fontsize=9)
    variance.legend(frameon=False, fontsize=9)
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=Path("docs/images"))
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    plt.rcParams.update({"font.size": 10, "lines.linewidth": 1.8, "svg.hashsalt": "jqlight"})
    for name, draw in {"loss": draw_loss, "escape": draw_escape, "escort": draw_escort, "bias": draw_bias}.items():
        draw(folder / f"theory_{name}.png")
        print(folder / f"theory_{name}.png")


if __name__ == "__main__":
    main()
