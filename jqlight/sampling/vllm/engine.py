"""The vLLM engine, in the trainer's own process. The only module that imports vllm."""

import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from jqlight.errors import EngineError
from jqlight.model_folder import read_config
from jqlight.sampling.engine import Completion, Decoding, Request, SamplerConfig, Stop, check_lengths
from jqlight.sampling.memory import BLOCK_TOKENS, kv_cache_bytes
from jqlight.sampling.vllm.isolation import intercepted, preserved_rng
from jqlight.sampling.vllm.process import Running, hosted

REASON_LENGTH = 300
RELOAD = "vllm.model_executor.model_loader.reload"
# Tokens of one prefill batch on a CPU; vLLM's own default there.
BATCHED_TOKENS = 4096
# Verified against vLLM 0.32: the only seed that matters is each request's own.
ENGINE_SEED = 0
CPU = torch.device("cpu")


class VLLMEngine:
    """vLLM behind the :class:`~jqlight.sampling.Engine` protocol: token ids in, token ids and log-probs out.

    Log-probs are those of the model itself (float32, before temperature and truncation). One engine per process;
    under DDP one per rank, started by all ranks at the same point in ``setup()``.

    Attributes:
        max_model_len: longest prompt and completion together, in tokens.

    Raises:
        EngineError: vLLM does not start on this model or machine.
    """

    def __init__(
        self, model_path: str, dtype: str, max_model_len: int, config: SamplerConfig, device: torch.device = CPU
    ) -> None:
        self.max_model_len = max_model_len
        self._cuda = device.type == "cuda"
        self._asleep = False
        options = llm_options(model_path, dtype, max_model_len, config, device)
        with hosted(device, compiles=self._cuda, exact=dtype == "float32") as arguments:
            self._llm, self._params = _start(options | arguments)
        self._close = Running.add(self, self._llm.llm_engine.engine_core)

    def generate(self, requests: Sequence[Request], stop: Stop, decoding: Decoding) -> list[Completion]:
        """One completion per request, in order, from one ``LLM.generate`` call; prompts are shared by the prefix cache.

        Raises:
            EngineError: a request does not fit in ``max_model_len``.
        """
        if not requests:
            return []
        check_lengths(requests, self.max_model_len)
        prompts = [{"prompt_token_ids": list(request.prompt_ids)} for request in requests]
        params = [self._sampling_params(request, stop, decoding) for request in requests]
        with preserved_rng():  # on a CPU vLLM draws from torch's global generator even if all requests are seeded
            outputs = self._llm.generate(prompts, params, use_tqdm=False)
        return [_completion(output.outputs[0]) for output in outputs]

    def sync(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Load ``weights`` (checkpoint names) in place and drop every cached prefix.

        Raises:
            EngineError: a weight is not one of the model's, one of the model's weights is missing, or the prefix
                cache could not be reset. The engine cannot be used any more.
        """
        if self._asleep:
            self._llm.wake_up(["weights"])
        update = {"weights_iterator": iter(weights), "is_checkpoint_format": True}
        # vLLM only warns of weights that it left as they were, and always does of layers that have none to load.
        with intercepted(f"{RELOAD}.inplace", f"{RELOAD}.layerwise") as warnings:
            try:
                self._llm.collective_rpc("reload_weights", kwargs=update)
            except (ValueError, KeyError) as error:
                raise EngineError(f"the sampling engine does not take the policy's weights: {error}") from error
        missing = [message for message in warnings if "weights were not loaded" in message]
        if missing:
            raise EngineError(f"weights missing in the update of the sampling engine: {missing[0]}")
        if not self._cuda:
            self._repack_lm_head()
        if self._asleep:
            # What torch holds of the step that has ended without using it is where the cache was.
            torch.cuda.empty_cache()
            self._llm.wake_up(["kv_cache"])
            self._asleep = False
        if not self._llm.reset_prefix_cache():
            raise EngineError("vllm did not reset its prefix cache after a weight update: requests are still running")

    def sleep(self) -> None:
        """Give back weights and cache until the next :meth:`sync`, which brings all weights anew.

        A batch that vLLM has begun beside the last one, which a stop token made unnecessary, is run to its end before:
        it would use memory that is gone.
        """
        core = self._llm.llm_engine.engine_core.engine_core
        while core.batch_queue or core.scheduler.has_requests():
            self._llm.llm_engine.step()
        self._llm.sleep(level=2)
        self._asleep = True

    def close(self) -> None:
        """Shut the engine down and free its memory; other engines of the process keep running."""
        self._close()
        del self._llm

    def _sampling_params(self, request: Request, stop: Stop, decoding: Decoding) -> Any:
        return self._params(
            temperature=decoding.temperature,
            top_p=decoding.top_p,
            top_k=decoding.top_k,
            seed=request.seed,
            max_tokens=request.max_tokens,
            ignore_eos=True,  # `stop` is the only stopping rule, in every engine
            stop_token_ids=list(stop.token_ids),
            stop=stop.string,
            include_stop_str_in_output=True,
            detokenize=stop.string is not None,
            skip_special_tokens=False,
            spaces_between_special_tokens=False,
            logprobs=0,
            flat_logprobs=True,
        )

    def _repack_lm_head(self) -> None:
        """Renew the CPU's packed copy of the output head.

        ``reload_weights`` packs every layer it loads, but a head tied to the embeddings is not in the checkpoint: its
        packed copy would keep the old weights, silently.
        """
        from vllm.model_executor.layers.utils import dispatch_cpu_unquantized_gemm
        from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead

        worker = self._llm.llm_engine.model_executor.driver_worker
        model = getattr(worker, "worker", worker).model_runner.get_model()
        for module in model.modules():
            if isinstance(module, ParallelLMHead):
                dispatch_cpu_unquantized_gemm(module, remove_weight=False)


def llm_options(
    model_path: str, dtype: str, max_model_len: int, config: SamplerConfig, device: torch.device
) -> dict[str, Any]:
    """What ``vllm.LLM`` is started with on ``device``."""
    cuda = device.type == "cuda"
    cache = kv_cache_bytes(read_config(model_path), dtype, max_model_len, config, device)
    options: dict[str, Any] = {
        "model": model_path,
        "dtype": dtype,
        "max_model_len": max_model_len,
        "max_num_seqs": config.max_num_seqs,
        "enforce_eager": not cuda,  # compilation takes longer than it saves on a CPU
        "kv_cache_memory_bytes": cache,
        "enable_prefix_caching": True,
        "seed": ENGINE_SEED,
        "generation_config": "vllm",
        "disable_log_stats": True,
        "use_tqdm_on_load": False,
    }
    if cuda:
        options["enable_sleep_mode"] = config.sleep
        # Only checked against free memory: without it the engine wants 92 % of a GPU that the trainer shares.
        total = torch.cuda.get_device_properties(device).total_memory
        return options | {"gpu_memory_utilization": min(0.92, max(0.01, cache / total))}
    # A prompt cut between two batches rewinds its request's generator, which a CPU generator cannot do (vLLM 0.32 then
    # stops with "CPU Generator does not use offset").
    return options | {
        "block_size": BLOCK_TOKENS,
        "enable_chunked_prefill": False,
        "max_num_batched_tokens": max(BATCHED_TOKENS, max_model_len),
    }


def _start(options: dict[str, Any]) -> tuple[Any, Any]:
    """A running ``vllm.LLM`` and the class ``vllm.SamplingParams``."""
    from vllm import LLM, SamplingParams

    if not torch.distributed.is_initialized():
        Running.owns_groups = True
    try:
        return LLM(**options), SamplingParams
    except Exception as error:  # model classes, kernels and process groups fail each in their own way
        raise EngineError(
            f"sampler.engine: vllm does not start on {options['model']}: {_reason(error)}; "
            "set sampler.engine: transformers, or sampler.memory_gib if it is a matter of memory"
        ) from error


def _reason(error: Exception) -> str:
    """One readable line; vLLM's own can list every model it knows."""
    return textwrap.shorten(str(error) or type(error).__name__, REASON_LENGTH, placeholder=" ...")


def _completion(output: Any) -> Completion:
    ids = list(output.token_ids)
    return Completion(ids, output.logprobs.logprobs[: len(ids)])
