"""A step is taken as a whole or not at all: what an optimizer may spoil is kept until the step is known to be good."""

import copy
import math
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from jqlight.benchmarks import Example
from jqlight.errors import ConfigError, NonFiniteError
from jqlight.estimators import distributed
from jqlight.tracking.checkpoint_files import not_finite

if TYPE_CHECKING:
    from jqlight.estimators.base import Estimator

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

    def step(self, module: "Estimator", problem: str | None) -> float | None:
        """The optimizer's step with its schedule's, on all ranks or on none; the gradient's norm before clipping.

        None where the step was skipped: it counts as a step, but nothing has moved.

        Args:
            module: whose gradient was summed over this rank's groups.
            problem: what was not finite on the way there, on this rank.

        Raises:
            NonFiniteError: the run is to stop; says what led to it and what stands.
        """
        step, reference = module.global_step, module.step_scale.log_reference
        try:
            _agree(problem, module.device)
            norm = self._step(module)
        except NonFiniteError as error:
            module.step_scale.log_reference = reference
            module.print(self._undo(f"step {step}: {error}"))
            if module.global_step == step:  # Lightning counts what optimizers are asked for
                progress = module.trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress
                progress.increment_ready()
                progress.increment_completed()
            return None
        self.in_a_row = 0
        self._keep()
        scheduler = module.lr_schedulers()
        if scheduler is not None and not isinstance(scheduler, ReduceLROnPlateau):  # that one follows validations
            scheduler.step()  # type: ignore[union-attr]  # one, not a list: one optimizer
        return norm

    def _step(self, module: "Estimator") -> float:
        """Sum the ranks' gradients, clip, step the optimizer; the norm before clipping."""
        module.step_scale.finish(module.device)
        distributed.sum_gradients(module.policy)
        gradients = {name: p.grad for name, p in self._named.items() if p.grad is not None}
        norm = torch.nn.utils.get_total_norm(gradients.values())
        if not math.isfinite(norm):
            worst = not_finite({"state_dict": gradients})
            _agree(f"the gradient's norm is {norm}" + (f", first in {worst}" if worst else ""), module.device)
        torch.nn.utils.clip_grads_with_norm_(self._named.values(), module.max_grad_norm, norm)
        module.one_optimizer.step()
        spoilt = self._spoilt()
        _agree(f"{spoilt} was not finite after the update" if spoilt else None, module.device)
        return norm.item()

    def _spoilt(self) -> str | None:
        """Name of a trained weight, or of a part of the optimizer's state, that is not finite; None where none is."""
        weights, states = self._state()
        tensors = [t for node in (weights, *states.values()) for t in node.values() if isinstance(t, Tensor)]
        numbers = [t for t in tensors if t.is_floating_point() and t.element_size() > 1]
        if bool(torch.nn.utils.get_total_norm(numbers).isfinite()):  # one number to wait for instead of hundreds
            return None
        return not_finite({"state_dict": weights, "optimizer_states": [{"state": states}]})

    def _undo(self, problem: str) -> str:
        """Put everything back to where the last good step left it; the line that tells of the skipped step."""
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


def spoilt_signal(signal: Tensor, example: Example, module: "Estimator") -> str | None:
    """What is wrong with a group's signal, and the weight that is to blame; None where nothing is."""
    if not (signal.isnan() | (signal == math.inf)).any():
        return None
    weight = not_finite({"state_dict": module.state_dict()})
    blamed = f", since {weight} is not finite" if weight else ""
    what = "reward" if module.samples_answers else "log-probability"
    return f"example {example.id}: a {what} is {signal.max().item()}{blamed}"


def _agree(problem: str | None, device: torch.device) -> None:
    """Raise NonFiniteError on every rank where one has a problem."""
    if found := distributed.first(problem, device):
        raise NonFiniteError(found)


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
