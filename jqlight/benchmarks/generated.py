"""Benchmarks that make their own questions, for a bundled model that knows no instructions."""

from typing import Any, ClassVar

from jqlight.benchmarks.base import Benchmark
from jqlight.errors import ConfigError


class Generated(Benchmark):
    """A benchmark without files, whose one scenario is the cold one.

    Args:
        **kwargs: see :class:`Benchmark`; ``path`` is not taken.

    Raises:
        ConfigError: a path, or the warm scenario.
    """

    instead_of_warm: ClassVar[str] = "leave it out"
    """What to do who wants a warm start."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        name = type(self).__name__
        if self.path is not None:
            raise ConfigError(f"data.path: given '{self.path}', but {name} generates its questions; leave it out")
        if self.scenario != "cold":
            raise ConfigError(
                f"data.scenario: given '{self.scenario}', but {name} has the cold start alone; {self.instead_of_warm}"
            )
