"""PassAtK, MajorityAtK and MeanScore as torchmetrics."""

import itertools
import math
import pickle

import pytest
import torch

from jqlight.metrics import MajorityAtK, MeanScore, PassAtK, pass_at_k
from jqlight.metrics.verifiers import exact_match, substring_match, token_f1

PREDICTIONS = [["a", "b", "a", ""], ["x", "y", "z", "y"], ["", "", "", ""]]
REFERENCES = [["a"], ["y", "x"], ["q"]]


@pytest.mark.parametrize("n", [1, 2, 5, 7])
def test_pass_at_k_is_the_share_of_subsets_with_a_success(n):
    for successes, k in itertools.product(range(n + 1), range(1, n + 1)):
        subsets = list(itertools.combinations([1] * successes + [0] * (n - successes), k))
        assert pass_at_k(n, successes, k) == pytest.approx(sum(map(any, subsets)) / len(subsets), abs=1e-12)


def test_pass_at_k_with_many_samples():
    assert pass_at_k(10_000, 3, 100) == pytest.approx(1 - math.comb(9997, 100) / math.comb(10_000, 100), rel=1e-9)


def test_pass_at_k_metric_by_hand():
    metric = PassAtK(2, exact_match)
    metric.update(PREDICTIONS, REFERENCES)
    # 2 of 4 right: 1 - C(2,2)/C(4,2) = 5/6; 3 of 4 (x, y, y): 1; none: 0.
    assert metric.compute().item() == pytest.approx((5 / 6 + 1 + 0) / 3)


def test_pass_at_k_counts_scores_from_the_threshold_on():
    for threshold, expected in [(0.5, 1.0), (0.7, 0.0)]:
        metric = PassAtK(1, token_f1, threshold=threshold)
        metric.update([["a b c"]], [["a"]])  # F1 = 0.5
        assert metric.compute().item() == expected


def test_majority_metric_by_hand():
    metric = MajorityAtK(4, exact_match)
    metric.update(PREDICTIONS, REFERENCES)
    assert metric.compute().item() == pytest.approx((1 + 1 + 0) / 3)
    assert metric.tie_rate.item() == 0
    assert metric.unanswered_rate.item() == pytest.approx((1 / 4 + 0 + 1) / 3)
    metric.update([["r", "w", "r", "w"]], [["r"]])
    assert metric.compute().item() == pytest.approx((1 + 1 + 0 + 0.5) / 4)
    assert metric.tie_rate.item() == pytest.approx(1 / 4)


def test_majority_of_some_of_the_samples():
    metric = MajorityAtK(1, exact_match)
    metric.update([["r", "w", "w", ""]], [["r"]])
    assert metric.compute().item() == pytest.approx(1 / 4)
    assert metric.unanswered_rate.item() == pytest.approx(1 / 4)


def test_majority_uses_the_normaliser():
    answers = [["0.5", "50%", "0.7", "0.7"]]
    for normalise, expected in [(str, 0.0), (lambda a: {"50%": "0.5"}.get(a, a), 0.5)]:
        metric = MajorityAtK(4, exact_match, normalise)
        metric.update(answers, [["0.5", "50%"]])
        assert metric.compute().item() == pytest.approx(expected)


def test_mean_score_weighs_questions_alike():
    metric = MeanScore(exact_match)
    metric.update([["a", "b"], ["c", "c", "c", "d"]], [["a"], ["c"]])
    assert metric.compute().item() == pytest.approx((1 / 2 + 3 / 4) / 2)


def test_the_default_verifier_is_the_papers():
    assert PassAtK(1).verifier is substring_match
    assert MajorityAtK(1).verifier is substring_match


@pytest.mark.parametrize("make", [lambda: PassAtK(2), lambda: MajorityAtK(2), lambda: MeanScore(substring_match)])
class TestLikeAnyTorchmetric:
    def test_flags_and_bounds(self, make):
        metric = make()
        assert metric.higher_is_better is True
        assert metric.is_differentiable is False
        assert metric.full_state_update is False
        assert (metric.plot_lower_bound, metric.plot_upper_bound) == (0.0, 1.0)

    def test_value_is_a_float64_scalar_in_range(self, make):
        metric = make()
        metric.update(PREDICTIONS, REFERENCES)
        value = metric.compute()
        assert value.shape == ()
        assert value.dtype == torch.float64
        assert 0 < value < 1

    def test_batches_add_up_bit_for_bit_in_any_order(self, make):
        whole, parts = make(), make()
        whole.update(PREDICTIONS, REFERENCES)
        for i in (2, 0, 1):
            parts.update(PREDICTIONS[i : i + 1], REFERENCES[i : i + 1])
        assert torch.equal(whole.compute(), parts.compute())

    def test_forward_gives_the_batch_value_and_counts_once(self, make):
        metric, batch = make(), make()
        metric.update(PREDICTIONS[:1], REFERENCES[:1])
        batch.update(PREDICTIONS[1:], REFERENCES[1:])
        assert torch.equal(metric(PREDICTIONS[1:], REFERENCES[1:]), batch.compute())
        batch.update(PREDICTIONS[:1], REFERENCES[:1])
        assert torch.equal(metric.compute(), batch.compute())

    def test_pickle_and_clone_keep_what_was_counted(self, make):
        metric = make()
        metric.update(PREDICTIONS, REFERENCES)
        for copy in (pickle.loads(pickle.dumps(metric)), metric.clone()):
            assert torch.equal(copy.compute(), metric.compute())
            copy.update(PREDICTIONS[2:], REFERENCES[2:])
            assert copy.compute() < metric.compute()

    def test_reset_forgets(self, make):
        metric, fresh = make(), make()
        metric.update(PREDICTIONS[:1], REFERENCES[:1])
        metric.compute()
        metric.reset()
        for m in (metric, fresh):
            m.update(PREDICTIONS[1:], REFERENCES[1:])
        assert torch.equal(metric.compute(), fresh.compute())

    def test_no_questions_is_nan_not_zero(self, make):
        metric = make()
        metric.update([], [])
        assert metric.compute().isnan()

    def test_plot(self, make):
        matplotlib = pytest.importorskip("matplotlib")
        matplotlib.use("agg")
        metric = make()
        metric.update(PREDICTIONS, REFERENCES)
        figure, axes = metric.plot()
        assert axes.get_ylim()[0] <= 0 and axes.get_ylim()[1] >= 1
        matplotlib.pyplot.close(figure)

    def test_questions_and_references_must_match(self, make):
        with pytest.raises(ValueError, match="predictions for 3 questions and references for 2"):
            make().update(PREDICTIONS, REFERENCES[:2])


@pytest.mark.parametrize("metric", [PassAtK(5), MajorityAtK(5)])
def test_too_few_samples_says_what_to_do(metric):
    with pytest.raises(
        ValueError, match="k = 5 needs at least 5 samples per question, got 4; draw more samples, or lower k"
    ):
        metric.update(PREDICTIONS, REFERENCES)


@pytest.mark.parametrize("kind", [PassAtK, MajorityAtK])
def test_k_below_one_is_refused(kind):
    with pytest.raises(ValueError, match="k: given 0, allowed is 1 or more"):
        kind(0)
