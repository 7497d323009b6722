"""vLLM engines in a process that is not theirs alone: environment, ranks, shutdown."""

import os
import sys
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch

from jqlight.errors import EngineError
from jqlight.sampling.vllm.isolation import preserved_environ, preserved_rng, preserved_torch_settings, quiet

# The engine must run in this process (weights are handed over in memory) and send no usage statistics.
ENVIRONMENT = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_NO_USAGE_STATS": "1", "VLLM_DO_NOT_TRACK": "1"}
# One torch.compile in vLLM's log-prob code escapes enforce_eager and costs 2 to 12 s on the first call on a CPU.
NO_COMPILATION = {"TORCHDYNAMO_DISABLE": "1"}
LOGGING_LEVEL = "VLLM_LOGGING_LEVEL"


@contextmanager
def hosted(device: torch.device, *, compiles: bool, exact: bool) -> Iterator[dict[str, Any]]:
    """A block in which vLLM may be imported and started without leaving traces; gives further ``LLM`` arguments.

    Nothing is printed unless it fails, or the user has asked for more than errors by ``VLLM_LOGGING_LEVEL``: in a
    container even numactl complains, of calls that are not permitted there. In a run of several processes every rank
    starts an engine of its own within the trainer's process group, on the trainer's GPU.

    Args:
        device: of the trainer, and so of the engine.
        compiles: whether the engine compiles anything.
        exact: whether float32 products are to be float32's own on a GPU, where Triton rounds them to TF32 otherwise.
    """
    os.environ.update(ENVIRONMENT)
    if exact and device.type == "cuda":
        # Read whenever a kernel is compiled, at the first request too; a user's own choice stays.
        os.environ.setdefault("TRITON_F32_DEFAULT", "ieee")
    temporary = {} if compiles else dict(NO_COMPILATION)
    quietly = os.environ.get(LOGGING_LEVEL, "ERROR") == "ERROR"  # what the command line sets
    if LOGGING_LEVEL not in os.environ:
        temporary[LOGGING_LEVEL] = "WARNING"
    arguments: dict[str, Any] = {}
    if torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1:
        arguments["distributed_executor_backend"] = "external_launcher"
        rank = torch.distributed.get_rank()
        temporary |= {"RANK": str(rank), "LOCAL_RANK": str(rank if device.index is None else device.index)}
    elif device.type == "cuda":
        arguments["device_ids"] = [device.index or 0]  # among the visible ones, as torch counts them
    noise = quiet() if quietly else nullcontext()
    with preserved_environ("VLLM_", temporary), preserved_rng(), preserved_torch_settings(), noise:
        yield arguments


def assert_world(trainer_world_size: int) -> None:
    """Check that torch.distributed and the trainer agree on the number of processes.

    An engine that was started before the trainer leaves a process group of one behind, which the trainer would keep:
    each rank would train a model of its own. Start engines in ``LightningModule.setup()``.

    Raises:
        EngineError: they differ.
    """
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized()):
        return
    found = distributed.get_world_size()
    if found != trainer_world_size:
        raise EngineError(
            f"torch.distributed runs with {found} process(es) but the trainer with {trainer_world_size}: a sampling "
            "engine was started before the trainer; start it in LightningModule.setup(), once per process"
        )


class Running:
    """The engines of this process, which share vLLM's distributed state.

    vLLM's own shutdown, also run when an engine is garbage, destroys every process group: those of other engines, and
    the trainer's. Here they are destroyed with the last engine, and only if an engine created them.
    """

    count = 0
    owns_groups = False

    @classmethod
    def add(cls, engine: object, client: Any) -> Any:
        """Count ``engine`` in; returns the function that shuts it down, once, at the latest when Python exits."""
        client._finalizer.detach()
        cls.count += 1
        return weakref.finalize(engine, cls._remove, client.engine_core)

    @classmethod
    def _remove(cls, core: Any) -> None:
        module: Any = sys.modules[type(core).__module__]
        clean_up = module.cleanup_dist_env_and_memory
        module.cleanup_dist_env_and_memory = lambda: None
        try:
            core.shutdown()
        finally:
            module.cleanup_dist_env_and_memory = clean_up
        cls.count -= 1
        if cls.count == 0 and cls.owns_groups:
            clean_up()
            cls.owns_groups = False
