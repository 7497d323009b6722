"""Plain computations that the engines are compared with."""

import torch
from transformers import PreTrainedModel


def log_probs(model: PreTrainedModel, prompt: list[int], ids: list[int]) -> torch.Tensor:
    """Reference: log-probs (T,) of ``ids`` behind ``prompt`` from one plain forward pass."""
    with torch.no_grad():
        logits = model(torch.tensor([[*prompt, *ids]])).logits[0, len(prompt) - 1 : -1]
    return logits.log_softmax(-1).gather(-1, torch.tensor(ids)[:, None])[:, 0]


def shifted(model: PreTrainedModel, scale: float = 0.05) -> PreTrainedModel:
    """The same model after a made-up training step."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * scale)
    return model
