"""Log-probabilities and gradients of the output head, dense or in chunks, and the memory that chunks hold."""

import pytest
import torch
from torch import Tensor

from jqlight.policy import head


def inputs(rows: int, vocabulary: int, size: int, *, bias: bool, dtype: torch.dtype = torch.float64) -> list:
    generator = torch.Generator().manual_seed(0)
    hidden, weight, offset = (
        torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
        for shape in ((rows, size), (vocabulary, size), (vocabulary,))
    )
    targets = torch.randint(0, vocabulary, (rows,), generator=generator)
    return [hidden, weight, offset if bias else None, targets]


def dense(hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor) -> Tensor:
    logits = torch.nn.functional.linear(hidden, weight, bias)
    return logits.log_softmax(-1)[torch.arange(len(targets)), targets]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rows_per_chunk", [1, 3, 7, 100])
def test_equal_to_dense_log_softmax(monkeypatch: pytest.MonkeyPatch, rows_per_chunk: int, bias: bool) -> None:
    monkeypatch.setattr(head, "LOGIT_BYTES", rows_per_chunk * 31 * 8)
    upstream = torch.linspace(-1, 2, 10, dtype=torch.float64)
    results = []
    for function in (dense, head.token_log_probs):
        arguments = inputs(10, 31, 5, bias=bias)
        out = function(*arguments)
        out.backward(upstream)
        results.append([out.detach(), *(a.grad for a in arguments[:3] if a is not None)])
    for want, got in zip(*results, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("rows_per_chunk", [2, 100])
def test_a_frozen_head_gets_no_gradient_and_passes_one_on(monkeypatch: pytest.MonkeyPatch, rows_per_chunk: int) -> None:
    monkeypatch.setattr(head, "LOGIT_BYTES", rows_per_chunk * 31 * 8)
    hidden, weight, _, targets = inputs(6, 31, 5, bias=False)
    frozen = weight.detach()
    dense(hidden, frozen, None, targets).sum().backward()
    want, hidden.grad = hidden.grad, None
    head.token_log_probs(hidden, frozen, None, targets).sum().backward()
    torch.testing.assert_close(hidden.grad, want, rtol=1e-12, atol=1e-12)
    assert frozen.grad is None


def test_half_precision_logits_go_through_a_float32_softmax() -> None:
    hidden, weight, _, targets = inputs(50, 31, 5, bias=False, dtype=torch.bfloat16)
    got = head.token_log_probs(hidden, weight, None, targets)
    logits = torch.nn.functional.linear(hidden, weight)  # rounded to bfloat16, as the model's own head does
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, logits.float().log_softmax(-1).gather(-1, targets[:, None])[:, 0])
    got.sum().backward()
    assert hidden.grad.dtype == weight.grad.dtype == torch.bfloat16


@pytest.mark.parametrize("rows_per_chunk", [2, 100])
def test_autocast_computes_the_product_in_its_format(monkeypatch: pytest.MonkeyPatch, rows_per_chunk: int) -> None:
    monkeypatch.setattr(head, "LOGIT_BYTES", rows_per_chunk * 31 * 4)
    hidden, weight, _, targets = inputs(6, 31, 5, bias=False, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        got = head.token_log_probs(hidden, weight, None, targets)
        got.sum().backward()
    rounded = torch.nn.functional.linear(hidden.bfloat16(), weight.bfloat16()).float()
    torch.testing.assert_close(got, rounded.log_softmax(-1).gather(-1, targets[:, None])[:, 0])
    assert hidden.grad.dtype == weight.grad.dtype == torch.float32


def test_no_rows() -> None:
    hidden, weight, _, targets = inputs(0, 31, 5, bias=False)
    out = head.token_log_probs(hidden, weight, None, targets)
    assert out.shape == (0,)
    out.sum().backward()
    assert weight.grad.abs().sum() == 0


def peak_bytes(function: object) -> int:
    """Most memory that torch's CPU allocator held at once while ``function`` ran, above the start."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        function()
    now = peak = 0
    events = profile.profiler.kineto_results.events()
    for event in sorted((e for e in events if e.name() == "[memory]"), key=lambda e: e.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    return peak


def test_memory_with_the_vocabulary_of_qwen3_stays_under_the_stated_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """256 positions of 151,936 logits are 156 MB in float32; three buffers of 8 MiB are allowed here."""
    monkeypatch.setattr(head, "LOGIT_BYTES", 8 << 20)
    hidden, weight, _, targets = inputs(256, 151_936, 16, bias=False, dtype=torch.float32)
    weight_bytes = weight.numel() * 4
    out: list[Tensor] = []
    forward = peak_bytes(lambda: out.append(head.token_log_probs(hidden, weight, None, targets)))
    assert forward < 3 * head.LOGIT_BYTES
    backward = peak_bytes(lambda: out[0].sum().backward())
    assert weight_bytes < backward < weight_bytes + 3 * head.LOGIT_BYTES + (1 << 20)
    full = peak_bytes(lambda: dense(hidden, weight, None, targets).sum().backward())
    assert full > weight_bytes + 256 * 151_936 * 4  # what the same measure says of dense logits


@pytest.mark.parametrize(("gib", "expected"), [(80, 80 * 2**24), (2, head.LOGIT_BYTES)])
def test_a_gpu_computes_larger_chunks_as_its_memory_allows(gib, expected, monkeypatch):
    properties = type("Properties", (), {"total_memory": gib * 2**30})
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    assert head.chunk_bytes(torch.device("cuda", 0)) == expected
    assert head.chunk_bytes(torch.device("cpu")) == head.LOGIT_BYTES
