"""The automatic token budget."""

import pytest
import torch
from naive_policy import load

from jqlight.policy import memory


@pytest.mark.parametrize("free_gib", [0.01, 0.3, 1.0, 1.1, 40.0])
def test_auto_is_a_power_of_two_that_fits_in_half_of_the_free_memory(
    tiny_qwen3: str, monkeypatch: pytest.MonkeyPatch, free_gib: float
) -> None:
    model = load(tiny_qwen3, torch.float32).model
    free = int(free_gib * 2**30)
    monkeypatch.setattr(memory, "_free_bytes", lambda device: free)
    budget = memory.make_budget(model, "auto").tokens
    assert budget & (budget - 1) == 0
    assert 1024 <= budget <= 65536
    pending = 12 * sum(p.numel() for p in model.parameters())
    fits = (free - pending) / 2 / memory.token_bytes(model)
    assert budget <= max(1024, fits)
    assert 2 * budget > min(65536, fits)


def test_gradients_that_exist_are_not_set_aside_again(tiny_qwen3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(tiny_qwen3, torch.float32).model
    monkeypatch.setattr(memory, "_free_bytes", lambda device: 12 * sum(p.numel() for p in model.parameters()))
    monkeypatch.setattr(memory, "_SMALLEST", 1)
    assert memory.make_budget(model, "auto").tokens == 1
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    assert memory.make_budget(model, "auto").tokens > 1


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
