"""What docs/theory.md states and scripts/theory_figures.py draws, as numbers."""

import importlib.util
import math
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor

from jqlight.objective import Splice, Tsallis, paft

SCRIPT = Path(__file__).parent.parent / "scripts/theory_figures.py"


@pytest.fixture(scope="module")
def theory() -> ModuleType:
    spec = importlib.util.spec_from_file_location("theory_figures", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def integrals(u: float) -> tuple[float, float]:
    """Of 1/(u (1-u)²) and 1/(u² (1-u)²)."""
    logit = math.log(u / (1 - u))
    return logit + 1 / (1 - u), 2 * logit + 1 / (1 - u) - 1 / u


@pytest.mark.parametrize("p0", [1e-2, 1e-5, 1e-8])
def test_escape_times_in_closed_form(theory: ModuleType, p0: float) -> None:
    (fast, slow), (fast_end, slow_end) = integrals(p0), integrals(0.5)
    assert theory.escape_time(Tsallis(1.0), p0) == pytest.approx(fast_end - fast, rel=1e-6)
    assert theory.escape_time(Tsallis(0.0), p0) == pytest.approx(slow_end - slow, rel=1e-6)


@pytest.mark.parametrize("tau", [0.02, 0.2])
@pytest.mark.parametrize("p0", [1e-3, 1e-8])
def test_escape_time_of_the_splice(theory: ModuleType, tau: float, p0: float) -> None:
    (fast, _), (fast_tau, slow_tau), (_, slow_end) = integrals(p0), integrals(tau), integrals(0.5)
    closed = (fast_tau - fast) / tau + slow_end - slow_tau
    assert theory.escape_time(Splice(tau), p0) == pytest.approx(closed, rel=1e-6)
    assert theory.splice_escape(tau, p0) == pytest.approx(closed)


def test_escape_is_logarithmic_for_the_splice_alone(theory: ModuleType) -> None:
    """A hundred times smaller p0 costs ln(100) / tau, and 100^(1-q) times as long at q < 1."""
    more = [theory.escape_time(Splice(0.05), p0) for p0 in (1e-6, 1e-8)]
    assert more[1] - more[0] == pytest.approx(math.log(100) / 0.05, rel=1e-4)
    for q in (0.0, 0.25, 0.5):
        slower = [theory.escape_time(Tsallis(q), p0) for p0 in (1e-6, 1e-8)]
        assert slower[1] / slower[0] == pytest.approx(100 ** (1 - q), rel=0.02)
        assert slower[1] == pytest.approx(theory.escape_asymptote(q, 1e-8), rel=0.02)


@pytest.mark.parametrize("q", [0.25, 0.5, 0.75, 1.0])
def test_minimisers_are_escort_distributions(theory: ModuleType, q: float) -> None:
    shares = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64)
    powers = [share ** (1 / q) for share in shares.tolist()]
    found = theory.minimiser(shares, Tsallis(q))
    assert found.tolist() == pytest.approx([x / sum(powers) for x in powers], abs=1e-6)
    torch.testing.assert_close(theory.escort(shares, q), found, rtol=0, atol=1e-6)


def test_minimiser_of_the_splice_under_label_noise(theory: ModuleType) -> None:
    tau, shares = 0.05, [0.7, 0.2, 0.1]
    found = theory.minimiser(torch.tensor(shares, dtype=torch.float64), Splice(tau))
    noise = [tau * a / 0.7 for a in shares[1:]]
    assert found.tolist() == pytest.approx([1 - sum(noise), *noise], abs=1e-5)


@pytest.mark.parametrize("q", [0.25, 0.75, 1.0])
def test_spread_over_questions_costs_in_proportion_to_q(q: float) -> None:
    """B.1: mean loss of P̄ ± d less that of P̄ is q/2 P̄^(-q-1) d², to fourth order in d; nothing at q = 0."""
    mean, loss = 0.3, lambda p, q: Tsallis(q).loss(p).item()
    for spread, tolerance in ((1e-2, 1e-2), (1e-3, 1e-4)):
        excess = [(loss(mean + spread, c) + loss(mean - spread, c)) / 2 - loss(mean, c) for c in (q, 0.0)]
        assert excess[0] == pytest.approx(q / 2 * mean ** (-q - 1) * spread**2, rel=tolerance)
        assert excess[1] == pytest.approx(0, abs=1e-15)


def test_the_loss_is_a_proper_score_at_q_one_only(theory: ModuleType) -> None:
    """B.3: the true distribution has the least expected loss at q = 1, and below loses to its escort."""
    truth = torch.tensor([0.6, 0.3, 0.1], dtype=torch.float64)
    stated = torch.randn(200, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).softmax(-1)
    cost = {q: lambda p, q=q: (truth * Tsallis(q).loss(p)).sum(-1) for q in (0.5, 0.9, 1.0)}
    assert (cost[1.0](stated) > cost[1.0](truth)).all()
    for q in (0.5, 0.9):
        escort = theory.escort(truth, q)
        assert cost[q](escort) < cost[q](truth) - 1e-4 and (cost[q](stated) > cost[q](escort)).all()


def test_near_certainty_time_does_not_depend_on_q(theory: ModuleType) -> None:
    """C.1: from 1 - d to 1 - d' it is 1/d' - 1/d; from 1e-3 to 1/2 the same q are two orders apart."""
    late = [theory.escape_time(Tsallis(q), 0.99, 0.9999) for q in (0.0, 0.5, 1.0)]
    assert late == pytest.approx([1e4 - 1e2] * 3, rel=2e-3)
    early = [theory.escape_time(Tsallis(q), 1e-3) for q in (0.0, 1.0)]
    assert early[0] > 100 * early[1]


def drift(q: float, wrong: Tensor, noise: float) -> Tensor:
    """Flow of the wrong answer's probability under ``noise``, by the package's amplification."""
    amplification = [Tsallis(q)(p.log()).exp() for p in (wrong, 1 - wrong)]
    return noise * amplification[0] - (1 - noise) * amplification[1]


@pytest.mark.parametrize("q", [0.5, 0.75, 1.0])
def test_wrong_labels_are_learnt_in_time_and_up_to_odds_set_by_q(q: float) -> None:
    """C.2: time η^(q+1) / ((q+1) ε) while η^q is small, and odds (ε/(1-ε))^(1/q) in the end."""
    noise = 0.3
    for small, tolerance in ((1e-2, 0.03), (1e-3, 3e-3)):  # of η^q, by which the right labels' pull is neglected
        reached = small ** (1 / q)
        eta = torch.linspace(0, 1, 20_001, dtype=torch.float64)[1:].square() * reached
        time = torch.trapezoid(1 / drift(q, eta, noise), eta).item()
        assert time == pytest.approx(reached ** (q + 1) / ((q + 1) * noise), rel=tolerance)
    odds = (noise / (1 - noise)) ** (1 / q)
    rest = torch.tensor(odds / (1 + odds), dtype=torch.float64)
    assert drift(q, rest, noise).item() == pytest.approx(0, abs=1e-12)
    assert drift(q, rest * 0.99, noise) > 0 > drift(q, rest * 1.01, noise)


def test_the_drawn_model_is_consistent(theory: ModuleType) -> None:
    model = theory.Enumerable()
    drawn, chance = model.groups(5)
    assert chance.sum().item() == pytest.approx(1) and drawn.shape == (56, 5)
    mean, _ = model.moments(0.0, 5, baseline=True)
    torch.testing.assert_close(mean, model.gradient(0.0))
    logits = torch.cat([model.prior.log(), torch.logit(model.w)]).requires_grad_()
    p = (logits[:4].softmax(0) * logits[4:].sigmoid()).sum()
    (exact,) = torch.autograd.grad((1 - p**0.25) / 0.25, logits)
    torch.testing.assert_close(model.gradient(0.75), exact)


@pytest.mark.parametrize("q", [0.25, 0.75, 1.0])
def test_drawn_bias_approaches_the_expansion(theory: ModuleType, q: float) -> None:
    model = theory.Enumerable()
    gaps = []
    for rollouts in (16, 32):
        bias = model.moments(q, rollouts, baseline=False)[0] - model.gradient(q)
        leading = model.leading_bias(q, rollouts)
        gaps.append(((bias - leading).norm() / leading.norm()).item())
    assert gaps[1] < 0.07 and gaps[1] < 0.65 * gaps[0]


def test_drawn_variances(theory: ModuleType) -> None:
    """PAFT's exact curve against sampled draws; it lies above the plug-in's, which lies above the baseline's."""
    model, q, rollouts = theory.Enumerable(), 0.75, 4
    seeded = torch.Generator().manual_seed(0)
    exact = model.paft_variance(q, rollouts)
    sampled = model.sampled_variance(lambda w: paft(w, q, normalize=False, generator=seeded), rollouts)
    assert sampled == pytest.approx(exact, rel=0.03)
    plug_in, baseline = (model.moments(q, rollouts, baseline=b)[1] for b in (False, True))
    assert exact > 1.1 * plug_in > 1.1 * baseline


def test_figures_are_drawn(theory: ModuleType, tmp_path: Path) -> None:
    for name in ("loss", "escort"):
        getattr(theory, f"draw_{name}")(tmp_path / f"{name}.png")
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    document = (SCRIPT.parent.parent / "docs/theory.md").read_text()
    for name in ("loss", "escape", "escort", "bias"):
        assert f"images/theory_{name}.png" in document
        assert (SCRIPT.parent.parent / f"docs/images/theory_{name}.png").is_file()
