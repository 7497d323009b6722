from itertools import product

from jqlight.sampling import answer_seed, rollout_seed

ROLLOUT = 5849244186827855107
ANSWER = 8555160813174591179


def test_seeds_are_fixed_for_ever():
    # A change here would change every published run.
    assert rollout_seed(0, "train", 1, "5a7a", 3) == ROLLOUT
    assert answer_seed(ROLLOUT) == ANSWER


def test_seeds_are_distinct_and_fit_in_63_bits():
    seeds = {
        rollout_seed(run, stage, step, example, m)
        for run, stage, step, example, m in product((0, 1), ("train", "val"), (0, 1, 11), ("1", "a", "1a"), range(16))
    }
    assert len(seeds) == 2 * 2 * 3 * 3 * 16
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert len({answer_seed(seed) for seed in seeds} | seeds) == 2 * len(seeds)


def test_neighbouring_fields_do_not_run_together():
    assert rollout_seed(0, "train", 1, "11", 1) != rollout_seed(0, "train", 11, "1", 1)
    assert rollout_seed(0, "train", 1, "1", 11) != rollout_seed(0, "train", 1, "11", 1)
