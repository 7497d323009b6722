"""Metrics over sampled answers, and the verifiers that score one answer."""

from jqlight.metrics.sampled import MajorityAtK, MeanScore, PassAtK, pass_at_k
from jqlight.metrics.verifiers import Verifier
from jqlight.metrics.voting import Vote, majority_vote

__all__ = ["MajorityAtK", "MeanScore", "PassAtK", "Verifier", "Vote", "majority_vote", "pass_at_k"]
