"""Benchmarks: questions with gold answers as LightningDataModules."""

from jqlight.benchmarks.base import Benchmark, Example, Item
from jqlight.benchmarks.loading import HubSource, Record, Split

__all__ = ["Benchmark", "Example", "HubSource", "Item", "Record", "Split"]
