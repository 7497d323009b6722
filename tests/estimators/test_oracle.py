"""The exact oracle: expectations over all samples of a model that can be listed, through ``Trainer.fit`` itself."""

import math
from collections.abc import Callable, Sequence
from itertools import combinations_with_replacement, product

import exact
import pytest
import torch
from enumeration import World, fit, groups
from torch import Tensor

from jqlight.estimators import GARL, GRPO, PAFT, RLOO, Estimator, MaxRL
from jqlight.objective import Splice, garl
from jqlight.sampling import Rollout

Q = [0.0, 0.25, 0.5, 0.75, 1.0]
TAU = 0.05  # the mean of three weights is on both sides of it
EXACT = 1e-10  # relative to the gradient's norm; the measured differences are below 1e-14


def relative(computed: Tensor, target: Tensor) -> float:
    return ((computed - target).norm() / target.norm()).item()


def expectation(probabilities: Sequence[float], gradients: Tensor) -> Tensor:
    weights = torch.tensor(probabilities, dtype=torch.float64)
    assert weights.sum().item() == pytest.approx(1, abs=1e-12)
    return weights @ gradients


class Tuples:
    """All M-tuples of rationales, each taken as one optimizer step's rollouts; every fit runs once."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.seen: dict[tuple, Tensor] = {}
        self.drawn: dict[str, Resampled] = {}

    def paft(self, q: float | Splice) -> "Resampled":
        """All pairs with all resamples of two."""
        if repr(q) not in self.drawn:
            with pytest.MonkeyPatch.context() as monkeypatch:
                self.drawn[repr(q)] = Resampled(self.world, q, monkeypatch)
        return self.drawn[repr(q)]

    def garl(self, q: float | Splice, rollouts: int, baseline: bool) -> Tensor:
        """(|Z|^M, parameters), not normalised."""
        key = (repr(q), rollouts, baseline)
        if key not in self.seen:
            settings = self.world.settings()
            estimator = GARL(**settings, q=q, rollouts=rollouts, baseline=baseline, normalize=False)
            self.seen[key] = groups(self.world, product(self.world.rationales, repeat=rollouts), estimator)
        return self.seen[key]

    def probabilities(self, rollouts: int) -> list[float]:
        return [math.prod(p) for p in product(self.world.priors, repeat=rollouts)]


@pytest.fixture(scope="module")
def tuples(world: World) -> Tuples:
    return Tuples(world)


# -- the enumeration itself ------------------------------------------------------------------------------------------


def test_everything_is_listed(world: World, bare_world: World) -> None:
    assert len(world.rationales) == 5 and sum(world.priors) == pytest.approx(1, abs=1e-12)
    outputs = [(bare_world.log_prior(o) + bare_world.log_output(o)).exp().item() for o in bare_world.outputs]
    assert len(outputs) == 35 and sum(outputs) == pytest.approx(1, abs=1e-12)
    assert {tuple(z.forced_ids) for z in world.rationales} == {(), (1,)}
    assert world.example.target_ids == (2, 2, 0) and bare_world.example.target_ids == (2, 0)
    assert world.success().dtype == torch.float64 and 0.01 < world.success().item() < 0.1


@pytest.mark.parametrize("q", Q)
def test_eq_5(world: World, q: float) -> None:
    """All members of the family point the same way: grad ℓ_q = P^-q grad ℓ_0."""
    scaled = world.success().item() ** -q * world.loss_gradient(0.0)
    assert relative(world.loss_gradient(q), scaled) < 1e-12


# -- GARL ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("baseline", [True, False])
@pytest.mark.parametrize("q", Q)
def test_each_step_is_the_papers_sum(world: World, tuples: Tuples, q: float, baseline: bool) -> None:
    """Every tuple's step against 60-digit coefficients and autograd's two score vectors."""
    steps = tuples.garl(q, 3, baseline)
    for indices, step in zip(product(range(5), repeat=3), steps, strict=True):
        weights = exact.garl([world.log_weights[i] for i in indices], q, baseline=baseline, normalize=False)
        coefficients = torch.tensor([[float(x) for x in row] for row in weights], dtype=torch.float64)
        target = -torch.einsum("km,kmp->p", coefficients, world.scores[:, list(indices)])
        assert relative(step, target) < EXACT, indices


@pytest.mark.parametrize("q", [*Q, Splice(TAU)], ids=repr)
def test_baseline_leaves_the_expectation(tuples: Tuples, q: float | Splice) -> None:
    p = tuples.probabilities(3)
    with_baseline, plug_in = (expectation(p, tuples.garl(q, 3, baseline)) for baseline in (True, False))
    assert relative(with_baseline, plug_in) < EXACT


@pytest.mark.parametrize(("rollouts", "baseline"), [(1, False), (2, False), (2, True), (3, False), (3, True)])
def test_q_zero_is_unbiased(world: World, tuples: Tuples, rollouts: int, baseline: bool) -> None:
    mean = expectation(tuples.probabilities(rollouts), tuples.garl(0.0, rollouts, baseline))
    assert relative(mean, world.loss_gradient(0.0)) < EXACT


@pytest.mark.parametrize("q", Q[1:])
def test_bias_falls_with_rollouts(world: World, tuples: Tuples, q: float) -> None:
    target = world.loss_gradient(q)
    bias = [relative(expectation(tuples.probabilities(m), tuples.garl(q, m, False)), target) for m in (1, 2, 3)]
    assert bias[0] > bias[1] > bias[2] > 0.01


def bias_by_counts(world: World, q: float, rollouts: int) -> Tensor:
    """E[plug-in] - grad ℓ_q over all multisets, from the package's coefficients; exact for any M that can be listed."""
    sets = torch.tensor(list(combinations_with_replacement(range(5), rollouts)))
    log_p = torch.tensor(world.priors, dtype=torch.float64).log()[sets].sum(1)
    counts = torch.nn.functional.one_hot(sets, 5).sum(1).double()
    log_p += math.lgamma(rollouts + 1) - torch.lgamma(counts + 1).sum(1)
    log_w = torch.tensor(world.log_weights, dtype=torch.float64)
    coefficients = garl(log_w[sets], q, baseline=False, normalize=False).pathwise
    per_rationale = torch.zeros(len(sets), 5, dtype=torch.float64).scatter_add_(1, sets, coefficients)
    return -(log_p.exp() @ per_rationale) @ world.scores.sum(0) - world.loss_gradient(q)


def leading_bias(world: World, q: float, rollouts: int) -> Tensor:
    """q / (M P^(q+1)) [ (q+1)/2 grad ℓ_1 Var(w) - Cov(g, w) ], g = -w grad log p(z, y*|x*)."""
    prior = torch.tensor(world.priors, dtype=torch.float64)
    w = torch.tensor(world.log_weights, dtype=torch.float64).exp()
    g = -w[:, None] * world.scores.sum(0)
    p = prior @ w
    covariance = (prior * (w - p)) @ g
    variance = prior @ (w - p).square()
    return q / (rollouts * p ** (q + 1)) * ((q + 1) / 2 * world.loss_gradient(1.0) * variance - covariance)


@pytest.mark.parametrize("q", Q[1:])
def test_bias_follows_the_published_expansion(world: World, q: float) -> None:
    bias = {m: m * bias_by_counts(world, q, m) for m in (10, 20, 40)}
    leading = leading_bias(world, q, 1)
    gaps = [relative(bias[m], leading) for m in (20, 40)]
    # What is missing is of the next order, 1/M: it halves with M, and leaves when two values of M are combined.
    assert gaps[1] < 0.07 and gaps[1] < 0.6 * gaps[0]
    extrapolated = relative(2 * bias[40] - bias[20], leading)
    assert extrapolated < 0.01 and extrapolated < 0.5 * relative(2 * bias[20] - bias[10], leading)


def test_counting_and_stepping_agree(world: World, tuples: Tuples) -> None:
    """The bias above, taken from the steps of fit."""
    stepped = expectation(tuples.probabilities(3), tuples.garl(0.75, 3, False)) - world.loss_gradient(0.75)
    assert relative(stepped, bias_by_counts(world, 0.75, 3)) < 1e-9


# -- endpoints, written out ------------------------------------------------------------------------------------------

POOL = (0, 3, 1, 4)  # four different rationales, with and without a forced end


def pool(world: World) -> list[Rollout]:
    return [world.rationales[i] for i in POOL]


def test_q_zero_is_rb_rloo(world: World) -> None:
    """REINFORCE on p(y*|x*, z) with the others' mean as baseline, plus the gradient of the reward itself."""
    terms = []
    for m, z in enumerate(pool(world)):
        others = [world.log_weight(o).exp().item() for i, o in enumerate(pool(world)) if i != m]
        reward = world.log_weight(z).exp()
        terms.append((reward.detach() - sum(others) / 3) * world.log_prior(z) + reward)
    target = world.gradient(-torch.stack(terms).mean())
    step = groups(world, [pool(world)], GARL(**world.settings(), q=0.0, rollouts=4))[0]
    assert relative(step, target) < EXACT


def test_q_one_is_iwae(world: World) -> None:
    """-log of the mean importance weight p(z, y*) / proposal(z), the proposal being the policy held fixed."""
    ratio = torch.stack(
        [(world.log_prior(z) - world.log_prior(z).detach() + world.log_weight(z)).exp() for z in pool(world)]
    )
    target = world.gradient(-ratio.mean().log())
    estimator = GARL(**world.settings(), q=1.0, rollouts=4, baseline=False, normalize=False)
    assert relative(groups(world, [pool(world)], estimator)[0], target) < EXACT


class Draws:
    """Takes ``torch.multinomial``'s place: returns scripted draws, and notes the probabilities it was asked for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, script: Sequence[Sequence[int]]) -> None:
        self.script = iter(script)
        self.probabilities: list[list[float]] = []
        monkeypatch.setattr(torch, "multinomial", self)

    def __call__(self, probabilities: Tensor, draws: int, *, replacement: bool, generator: torch.Generator) -> Tensor:
        drawn = torch.tensor([next(self.script)])
        assert replacement and drawn.shape == (1, draws)
        self.probabilities.append(probabilities[0].tolist())
        return drawn


def test_paft_at_q_one_is_the_em_step(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weight one for each of K rationales drawn from the posterior over the pool."""
    drawn = [1, 3, 1]
    draws = Draws(monkeypatch, [drawn])
    estimator = PAFT(**world.settings(), q=1.0, rollouts=4, num_resamples=3, normalize=False)
    step = groups(world, [pool(world)], estimator)[0]
    completions = [pool(world)[m] for m in drawn]
    target = world.gradient(-torch.stack([world.log_prior(z) + world.log_weight(z) for z in completions]).mean())
    assert relative(step, target) < EXACT
    w = [math.exp(world.log_weights[i]) for i in POOL]
    assert draws.probabilities[0] == pytest.approx([x / sum(w) for x in w], rel=1e-12)


# -- PAFT ------------------------------------------------------------------------------------------------------------


class Resampled:
    """All pairs of rationales with all resamples of two, by fit: gradients (25, 4, parameters) and probabilities."""

    def __init__(self, world: World, q: float | Splice, monkeypatch: pytest.MonkeyPatch) -> None:
        outcomes = list(product(range(2), repeat=2))
        pairs = list(product(world.rationales, repeat=2))
        draws = Draws(monkeypatch, outcomes * len(pairs))
        estimator = PAFT(**world.settings(), q=q, rollouts=2, num_resamples=2, normalize=False)
        steps = groups(world, [pair for pair in pairs for _ in outcomes], estimator)
        self.gradients = steps.view(len(pairs), len(outcomes), -1)
        chances = [
            math.prod(p[m] for m in outcome)
            for p, outcome in zip(draws.probabilities, outcomes * len(pairs), strict=True)
        ]
        self.given_pool = torch.tensor(chances, dtype=torch.float64).view(len(pairs), len(outcomes))

    def pool_means(self) -> Tensor:
        return torch.einsum("po,pog->pg", self.given_pool, self.gradients)


@pytest.mark.parametrize("q", [*Q, Splice(TAU)], ids=repr)
def test_paft_expects_the_pools_plug_in(tuples: Tuples, q: float | Splice) -> None:
    for mean, plug_in in zip(tuples.paft(q).pool_means(), tuples.garl(q, 2, False), strict=True):
        assert relative(mean, plug_in) < EXACT


def total_variance(probabilities: Tensor, gradients: Tensor) -> float:
    """Trace of the covariance."""
    mean = probabilities @ gradients
    return (probabilities @ (gradients - mean).square().sum(1)).item()


@pytest.mark.parametrize("q", Q)
def test_paft_varies_more_than_garl(tuples: Tuples, q: float) -> None:
    resampled = tuples.paft(q)
    p = torch.tensor(tuples.probabilities(2), dtype=torch.float64)
    paft = total_variance((p[:, None] * resampled.given_pool).flatten(), resampled.gradients.flatten(0, 1))
    plug_in = total_variance(p, tuples.garl(q, 2, False))
    assert paft > plug_in > 0
    # What resampling adds is the variance within a pool.
    within = sum(p[i].item() * total_variance(resampled.given_pool[i], resampled.gradients[i]) for i in range(len(p)))
    assert paft - plug_in == pytest.approx(within, rel=1e-9)


# -- estimators on sampled rewards -----------------------------------------------------------------------------------


def pairs_of_outputs(world: World, make: Callable[..., Estimator]) -> Tensor:
    """Expectation over all unordered pairs of (z, ŷ); tests of the step's order invariance are in test_step.py."""
    pairs = list(combinations_with_replacement(world.outputs, 2))
    chance = {id(o): (world.log_prior(o) + world.log_output(o)).exp().item() for o in world.outputs}
    p = [chance[id(a)] * chance[id(b)] * (1 if a is b else 2) for a, b in pairs]
    return expectation(p, groups(world, pairs, make(**world.settings(), rollouts=2)))


def test_rloo_is_unbiased_for_the_success_probability(bare_world: World) -> None:
    assert relative(pairs_of_outputs(bare_world, RLOO), bare_world.loss_gradient(0.0)) < EXACT


def test_maxrl_of_two_expects_the_first_term(bare_world: World) -> None:
    """With its control variate M rollouts give sum_{k<M} (1-P)^(k-1) grad P: for M = 2 grad P itself."""
    assert relative(pairs_of_outputs(bare_world, MaxRL), bare_world.loss_gradient(0.0)) < EXACT


def test_grpo_of_one_group(bare_world: World) -> None:
    right = next(o for o in bare_world.outputs if o.answer_ids == list(bare_world.example.target_ids))
    wrong = next(o for o in bare_world.outputs if o.answer_ids == [0])
    step = groups(bare_world, [[right, wrong, wrong]], GRPO(**bare_world.settings(), rollouts=3, eps=0.0))[0]
    r, w = (bare_world.log_prior(o) + bare_world.log_output(o) for o in (right, wrong))
    deviation = math.sqrt(1 / 3)  # of (1, 0, 0), two degrees of freedom
    target = bare_world.gradient(-(2 / 3 * r - 2 * 1 / 3 * w) / deviation / 3)
    assert relative(step, target) < EXACT


# -- the step around the estimator -----------------------------------------------------------------------------------


@pytest.mark.parametrize("q", [0.25, 1.0])
def test_normalisation_divides_the_step_by_m_to_the_q(world: World, tuples: Tuples, q: float) -> None:
    step = groups(world, [world.rationales[:3]], GARL(**world.settings(), q=q, rollouts=3))[0]
    plain = tuples.garl(q, 3, True)[list(product(range(5), repeat=3)).index((0, 1, 2))]
    assert relative(step * 3**q, plain) < 1e-12


def test_a_batchs_gradient_is_the_mean_over_its_prompts(world: World, three_token_gpt2: str) -> None:
    other = World(three_token_gpt2, id="other", prompt_ids=(0, 2))
    drawn = [world.rationales[:2], other.rationales[2:4]]
    alone = [
        groups(w, [samples], GARL(**w.settings(), q=0.5, rollouts=2))[0] for w, samples in zip((world, other), drawn)
    ]
    estimator = GARL(**world.settings(), q=0.5, rollouts=2)
    together = fit(estimator, [[world.example, other.example]], [drawn])[0]
    assert relative(together, (alone[0] + alone[1]) / 2) < EXACT


@pytest.mark.parametrize(("make", "answers"), [(GARL, False), (PAFT, False), (GRPO, True), (RLOO, True), (MaxRL, True)])
def test_what_is_sampled_and_synced(bare_world: World, make: Callable[..., Estimator], answers: bool) -> None:
    """No answer is drawn for GARL and PAFT; the engine gets weights before the first step and after each."""
    estimator = make(**bare_world.settings(), rollouts=2)
    groups(bare_world, [(bare_world.outputs if answers else bare_world.rationales)[:2]] * 3, estimator)
    assert estimator.sampler.answers == [answers] * 3 and estimator.sampler.syncs == 4
