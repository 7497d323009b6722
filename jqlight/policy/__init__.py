"""The trained causal LM: log-probabilities of rationales and answers, and the gradient of their weighted sum."""

from jqlight.policy.batching import Continuation
from jqlight.policy.config import LoRA, PolicyConfig
from jqlight.policy.group import Group
from jqlight.policy.model import Policy

__all__ = ["Continuation", "Group", "LoRA", "Policy", "PolicyConfig"]
