"""Sampling: engines behind one small protocol, and the thinking and answering phases composed on top of it."""

from jqlight.sampling.build import build_sampler, vllm_version
from jqlight.sampling.engine import Completion, Decoding, Engine, Request, Rollout, SamplerConfig, Stop
from jqlight.sampling.sampler import Sampler
from jqlight.sampling.seeds import answer_seed, rollout_seed

__all__ = [
    "Completion",
    "Decoding",
    "Engine",
    "Request",
    "Rollout",
    "Sampler",
    "SamplerConfig",
    "Stop",
    "answer_seed",
    "build_sampler",
    "rollout_seed",
    "vllm_version",
]
