"""Benchmarks: questions with gold answers as LightningDataModules."""

from jqlight.benchmarks.base import Benchmark
from jqlight.benchmarks.examples import Example, Item
from jqlight.benchmarks.finqa import FinQA
from jqlight.benchmarks.hotpotqa import HotpotQA
from jqlight.benchmarks.khop import KHop
from jqlight.benchmarks.musique import MuSiQue
from jqlight.benchmarks.records import HubSource, Record, Split
from jqlight.benchmarks.twohop import TwoHop

__all__ = [
    "Benchmark",
    "Example",
    "FinQA",
    "HotpotQA",
    "HubSource",
    "Item",
    "KHop",
    "MuSiQue",
    "Record",
    "Split",
    "TwoHop",
]
