"""A step is taken as a whole or not at all: what an optimizer may spoil is kept until the step is known to be good."""

import copy
from typing import Any, Literal

import torch
from torch import Tensor, nn

from jqlight.errors import ConfigError, NonFiniteError
from jqlight.tracking.checkpoint_files import not_finite

OnNonFinite = Literal["stop", "skip"]

MOST_SKIPPED = 10
"""Steps in a row that are passed over; with more, something is wrong that another batch does not mend."""


class AllOrNothing:
    """Weights and optimizer state as the last good step left them, and what happens to a step that is not one.

    The copy lies in host memory, 12 bytes a trainable parameter with AdamW in float32; on a GPU's side it is made
    behind the step's own work.

    Args:
        on_nonfinite: stop (the run) or skip (the step).

    Attributes:
        skipped: steps passed over since the run began.
        in_a_row: those since the last good one.

    Raises:
        ConfigError: something else.
    """

    def __init__(self, on_nonfinite: OnNonFinite) -> None:
        if on_nonfinite not in ("stop", "skip"):
            raise ConfigError(f"model.on_nonfinite: given {on_nonfinite!r}, allowed are stop and skip")
        self.kind = on_nonfinite
        self.skipped = self.in_a_row = 0
        self._named: dict[str, nn.Parameter] = {}
        self._optimizer: torch.optim.Optimizer | None = None
        self._kept: dict[str, Any] = {}

    def begin(self, module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Keep what training starts from, of the trainable parameters of ``module``."""
        self._named = {name: p for name, p in module.named_parameters() if p.requires_grad}
        self._optimizer, self._kept = optimizer, {}
        self._keep()

    def spoilt(self) -> str | None:
        """Name of a trained weight, or of a part of the optimizer's state, that is not finite; None where none is."""
        weights, states = self._state()
        tensors = [t for node in (weights, *states.values()) for t in node.values() if isinstance(t, Tensor)]
        numbers = [t for t in tensors if t.is_floating_point() and t.element_size() > 1]
        if bool(torch.nn.utils.get_total_norm(numbers).isfinite()):  # one number to wait for instead of hundreds
            return None
        return not_finite({"state_dict": weights, "optimizer_states": [{"state": states}]})

    def done(self) -> None:
        """The step was good: keep what it led to."""
        self.in_a_row = 0
        self._keep()

    def undo(self, problem: str) -> str:
        """Put everything back to where the last good step left it; the line that tells of the skipped step.

        Raises:
            NonFiniteError: the run is to stop; says what led to it and what stands.
        """
        self._restore()
        if self.kind == "stop":
            raise NonFiniteError(
                f"{problem}; weights and optimizer are those before the step. Lower optimizer.lr, compute in float32, "
                "or pass over such steps with model.on_nonfinite: skip"
            )
        self.skipped, self.in_a_row = self.skipped + 1, self.in_a_row + 1
        if self.in_a_row > MOST_SKIPPED:
            raise NonFiniteError(
                f"{problem}; {MOST_SKIPPED} steps before it were skipped already, all in a row. Weights and optimizer "
                "are those before them; lower optimizer.lr, or compute in float32"
            )
        return f"{problem}; the step is skipped, {self.in_a_row} in a row and {self.skipped} in all."

    def state_dict(self) -> dict[str, int]:
        """What a resumed run counts on from."""
        return {"skipped": self.skipped, "in_a_row": self.in_a_row}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue from ``state_dict``."""
        self.skipped, self.in_a_row = state["skipped"], state["in_a_row"]

    def _state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        assert self._optimizer is not None, "begin() comes first"
        weights = {name: p.detach() for name, p in self._named.items()}
        state = self._optimizer.state
        return weights, {name: state[p] for name, p in self._named.items() if p in state}

    def _keep(self) -> None:
        assert self._optimizer is not None, "begin() comes first"
        weights, _ = self._state()
        state = self._optimizer.state_dict()["state"]
        self._kept = _copied({"weights": weights, "state": state}, self._kept)

    def _restore(self) -> None:
        assert self._optimizer is not None, "begin() comes first"
        if torch.cuda.is_available():
            torch.cuda.synchronize()  # the host does not wait for its copies otherwise
        for name, parameter in self._named.items():
            parameter.data.copy_(self._kept["weights"][name])
        groups = self._optimizer.state_dict()["param_groups"]
        self._optimizer.load_state_dict({"state": copy.deepcopy(self._kept["state"]), "param_groups": groups})


def _copied(node: Any, old: Any) -> Any:
    """A copy of nested dictionaries of tensors in host memory, in that of ``old`` where it has the same form."""
    if isinstance(node, Tensor):
        fits = isinstance(old, Tensor) and old.shape == node.shape and old.dtype == node.dtype
        kept = old if fits else torch.empty_like(node, device="cpu", pin_memory=node.is_cuda)
        return kept.copy_(node, non_blocking=True)
    if isinstance(node, dict):
        before = old if isinstance(old, dict) else {}
        return {key: _copied(value, before.get(key)) for key, value in node.items()}
    return copy.deepcopy(node)
