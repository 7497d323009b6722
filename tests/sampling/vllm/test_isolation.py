import logging
import os
import random
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch

from jqlight.sampling.vllm.isolation import (
    intercepted,
    preserved_environ,
    preserved_rng,
    preserved_torch_settings,
    quiet,
)


def draws():
    return random.random(), float(np.random.rand()), float(torch.rand(()))


def reseed():
    random.seed(0), np.random.seed(0), torch.manual_seed(0)


def test_random_states_continue_as_if_nothing_had_happened():
    random.seed(5), np.random.seed(5), torch.manual_seed(5)
    expected = [draws(), draws()]
    random.seed(5), np.random.seed(5), torch.manual_seed(5)
    first = draws()
    with preserved_rng():
        reseed()
        draws()
    assert [first, draws()] == expected


def test_random_states_are_restored_after_an_error():
    random.seed(5), np.random.seed(5), torch.manual_seed(5)
    states = random.getstate(), torch.get_rng_state()
    with pytest.raises(KeyError), preserved_rng():
        reseed()
        raise KeyError
    assert random.getstate() == states[0]
    assert torch.equal(torch.get_rng_state(), states[1])


def test_environment_is_restored_but_for_what_must_stay(monkeypatch):
    monkeypatch.setenv("JQ_CHANGED", "old")
    monkeypatch.setenv("JQ_REMOVED_INSIDE", "kept")
    with preserved_environ("KEEP_", {"JQ_TEMPORARY": "1", "KEEP_TEMPORARY": "1"}):
        assert os.environ["JQ_TEMPORARY"] == "1"
        os.environ["JQ_CHANGED"] = "new"
        os.environ["JQ_ADDED"] = "1"
        os.environ["KEEP_ADDED"] = "1"
        del os.environ["JQ_REMOVED_INSIDE"]
    assert os.environ["JQ_CHANGED"] == "old"
    assert os.environ["JQ_REMOVED_INSIDE"] == "kept"
    assert os.environ.pop("KEEP_ADDED") == "1"
    assert not {"JQ_ADDED", "JQ_TEMPORARY", "KEEP_TEMPORARY"} & set(os.environ)


def test_torchs_threads_and_precision_are_restored():
    setter, count = torch.set_num_threads, torch.get_num_threads()
    precision = torch.get_float32_matmul_precision()
    with preserved_torch_settings():
        setter(count + 1)
        torch.set_num_threads = lambda _: None
        torch.set_float32_matmul_precision("medium")
    assert torch.get_float32_matmul_precision() == precision
    assert torch.set_num_threads is setter
    assert torch.get_num_threads() == count


def test_quiet_silences_logs_warnings_and_native_output(capfd):
    logger = logging.getLogger("noisy")
    logger.addHandler(handler := logging.StreamHandler())
    try:
        with quiet():
            logging.getLogger("noisy").setLevel(logging.DEBUG)
            logger.warning("a log record")
            warnings.warn("a warning", stacklevel=1)
            os.write(2, b"native\n")
        assert capfd.readouterr() == ("", "")
        logger.warning("after")
        os.write(2, b"native after\n")
        assert "native after" in capfd.readouterr().err
    finally:
        logger.removeHandler(handler)


def test_quiet_replays_native_output_when_the_block_fails(capfd):
    with pytest.raises(KeyError), quiet():
        os.write(2, b"the native reason\n")
        raise KeyError
    assert "the native reason" in capfd.readouterr().err


def test_quiet_lets_errors_through():
    code = (
        "import logging, sys; from jqlight.sampling.vllm.isolation import quiet\n"
        "logging.basicConfig(stream=sys.stdout)\n"
        "with quiet(): logging.getLogger('x').error('heard'); logging.getLogger('x').warning('silenced')"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "heard" in output and "silenced" not in output


def test_intercepted_messages_are_kept_from_everybody_else(caplog):
    logger = logging.getLogger("some.reload")
    logging.getLogger("some").setLevel(logging.ERROR)
    with intercepted("some.reload") as messages:
        logger.warning("%d weights missing", 3)
    logger.warning("below the level again")
    logging.getLogger("some").setLevel(logging.NOTSET)
    logger.warning("later")
    assert messages == ["3 weights missing"]
    assert caplog.messages == ["later"]
