"""The automatic token budget."""

import pytest
import torch
from naive_policy import load

from jqlight.objective import Coefficients
from jqlight.policy import Continuation, memory


@pytest.mark.parametrize("free_gib", [0.01, 0.3, 1.0, 1.1, 40.0])
def test_auto_is_what_fits_in_four_fifths_of_the_rest(
    tiny_qwen3: str, monkeypatch: pytest.MonkeyPatch, free_gib: float
) -> None:
    model = load(tiny_qwen3, torch.float32).model
    free, pending = int(free_gib * 2**30), 10_000_000
    monkeypatch.setattr(memory, "_free_bytes", lambda device: free)
    budget = memory.make_budget(model, "auto", pending=pending).tokens
    taken = pending + 4 * sum(p.numel() for p in model.parameters())
    fits = 0.8 * (free - taken) / memory.token_bytes(model)
    assert budget == 256 if fits < 256 else max(256, fits - 1024) <= budget <= fits


def test_gradients_that_exist_are_not_set_aside_again(tiny_qwen3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(tiny_qwen3, torch.float32).model
    monkeypatch.setattr(memory, "_free_bytes", lambda device: 4 * sum(p.numel() for p in model.parameters()))
    monkeypatch.setattr(memory, "_SMALLEST", 1)
    assert memory.make_budget(model, "auto").tokens == 1
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    assert memory.make_budget(model, "auto").tokens > 1


@pytest.mark.parametrize(
    ("kind", "settings", "expected"),
    [
        (torch.optim.AdamW, {"lr": 1e-3}, 8),
        (torch.optim.AdamW, {"lr": 1e-3, "amsgrad": True}, 12),
        (torch.optim.SGD, {"lr": 1e-3}, 0),
        (torch.optim.SGD, {"lr": 1e-3, "momentum": 0.9}, 4),
    ],
)
def test_the_state_of_an_optimizer_is_measured(kind: type, settings: dict, expected: int) -> None:
    optimizer = kind([torch.nn.Parameter(torch.zeros(1))], **settings)
    assert memory.state_bytes(optimizer, torch.float32) == pytest.approx(expected, abs=0.01)


def test_what_an_optimizer_holds_already_is_not_set_aside_again() -> None:
    parameter = torch.nn.Parameter(torch.zeros(1000))
    optimizer = torch.optim.AdamW([parameter])
    assert memory.pending_state(optimizer, [parameter], copies=2) == pytest.approx(16_000, rel=0.01)
    parameter.grad = torch.ones(1000)
    optimizer.step()
    assert memory.pending_state(optimizer, [parameter], copies=2) < 16


def test_checkpointing_is_chosen_where_a_group_fits_only_so(tiny_llama: str, monkeypatch: pytest.MonkeyPatch) -> None:
    prompt, rows = list(range(5, 15)), [Continuation([20 + m] * 300, [], [9]) for m in range(3)]
    one = Coefficients(torch.ones(3, dtype=torch.float64), torch.ones(3, dtype=torch.float64))
    gradients = []
    for free_kib in (1 << 20, 8_500, 600):
        monkeypatch.setattr(memory, "_free_bytes", lambda device, free=free_kib: free << 10)
        monkeypatch.setattr(memory, "_GRAIN", 1)
        policy = load(tiny_llama, torch.float32)
        for parameter in policy.model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        policy.group(prompt, rows).backward(one, 1.0)
        gradients.append((policy._checkpointed, torch.cat([p.grad.flatten() for p in policy.parameters()])))
    assert [checkpointed for checkpointed, _ in gradients] == [False, True, False]
    for _, gradient in gradients[1:]:
        assert (gradient - gradients[0][1]).norm() < 1e-5 * gradients[0][1].norm()


def test_estimate_of_a_token_is_near_what_autograd_keeps(tiny_llama: str) -> None:
    """Bytes of the distinct tensors that a pass saves for its backward, counted, against the formula."""
    model = load(tiny_llama, torch.float32).model
    own = {p.data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    tokens = 64
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        state = model.model(torch.arange(tokens)[None] + 5).last_hidden_state
    assert state.requires_grad
    assert memory.token_bytes(model) == pytest.approx(sum(kept.values()) / tokens, rel=0.4)


def test_a_copied_prompt_token_costs_a_fraction_of_a_token(tiny_qwen3: str, tiny_gpt2: str) -> None:
    for path in (tiny_qwen3, tiny_gpt2):
        model = load(path).model
        tokens, share = memory.make_budget(model, 77)
        assert tokens == 77
        assert 0.02 < share < 0.5
        assert memory.make_budget(model, 77, checkpointed=True).copy_share < 0.5


def test_checkpointing_makes_a_token_cheaper(tiny_llama: str) -> None:
    model = load(tiny_llama).model
    model.config.num_hidden_layers = 24
    assert memory.token_bytes(model, checkpointed=True) < memory.token_bytes(model) / 5


def test_free_memory_is_read_from_the_system() -> None:
    assert memory._free_bytes(torch.device("cpu")) > 100 << 20


def test_a_budget_that_was_too_large_is_half_of_what_did_not_fit(tiny_qwen3: str) -> None:
    policy = load(tiny_qwen3, torch.float32, micro_batch_tokens=1000)
    assert policy.shrink() is None, "nothing has been run"
    tokens = [policy.group([3, 4, 5], [Continuation([6] * size, [], [7])] * 4).tokens for size in (20, 9)]
    assert tokens[0] > tokens[1]
    assert policy.shrink() == int(tokens[0]) // 2
    assert policy.shrink() is None, "no group has been run with it"
    policy.group([3], [Continuation([6], [], [7])])
    assert policy.shrink() <= int(tokens[0]) // 4
