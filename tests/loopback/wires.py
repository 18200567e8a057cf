"""Replies in the wire formats: OpenAI chat completions, Anthropic messages, plain JSON."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterator
from typing import Any

from tests.loopback.behaviour import Behaviour, Request
from tests.loopback.samples import sample

_TOKENS = re.compile(r"\s*\S+|\s+")


def answer_text(request: Request, behaviour: Behaviour) -> str:
    """The model's answer: as scripted, else an instance of the schema, else `ok`."""
    text = behaviour.text
    if text is None:
        schema = schema_of(request.json)
        text = "ok"
        if schema is not None:
            text = json.dumps(sample(schema, zlib.crc32(request.body)))
    if behaviour.wrap == "fence":
        text = f"```json\n{text}\n```"
    elif behaviour.wrap == "prose":
        text = f"Sure! Here is the answer you asked for:\n\n{text}\n\nLet me know what else."
    return text + " " * behaviour.pad_bytes


def schema_of(body: Any) -> Any:
    """The schema the request wants its answer to follow, on either wire; None without one."""
    if not isinstance(body, dict):
        return None
    wanted = body.get("response_format")
    if isinstance(wanted, dict) and wanted.get("type") == "json_schema":
        return wanted["json_schema"].get("schema")
    for holder in (body, body.get("output_config") or {}):
        wanted = holder.get("output_format") or holder.get("format")
        if isinstance(wanted, dict):
            return wanted.get("schema")
    tool = _forced_tool(body)
    return tool.get("input_schema") if tool else None


def _forced_tool(body: Any) -> Any:
    choice = body.get("tool_choice") if isinstance(body, dict) else None
    if isinstance(choice, dict) and choice.get("type") == "tool":
        for tool in body.get("tools", ()):
            if tool.get("name") == choice.get("name"):
                return tool
    return None


def usage_of(request: Request, behaviour: Behaviour, text: str) -> dict[str, int]:
    counted = {"prompt": len(request.body) // 4, "completion": len(text) // 4 + 1, "cached": 0}
    if isinstance(behaviour.usage, bool):
        return counted
    return counted | dict(behaviour.usage)


def error_body(path: str, behaviour: Behaviour) -> str:
    message = behaviour.error_message or f"scripted status {behaviour.status}"
    if path.endswith("/messages"):
        error = {"type": behaviour.error_code or "api_error", "message": message}
        return json.dumps({"type": "error", "error": error})
    code = behaviour.error_code
    return json.dumps({"error": {"message": message, "type": "error", "param": None, "code": code}})


def whole(request: Request, behaviour: Behaviour) -> str:
    """The body of a reply that is not streamed."""
    text = answer_text(request, behaviour)
    if request.path.endswith("/chat/completions"):
        return json.dumps(_openai_whole(request, behaviour, text))
    if request.path.endswith("/messages"):
        return json.dumps(_anthropic_whole(request, behaviour, text))
    try:
        return json.dumps({"output": json.loads(text)})
    except ValueError:
        return json.dumps({"output": text})


def events(request: Request, behaviour: Behaviour) -> Iterator[str]:
    """The server-sent events of a streamed reply, each with its closing empty line."""
    text = answer_text(request, behaviour)
    if request.path.endswith("/messages"):
        return _anthropic_events(request, behaviour, text)
    return _openai_events(request, behaviour, text)


# --- OpenAI ----------------------------------------------------------------------


def _openai_usage(request: Request, behaviour: Behaviour, text: str) -> dict[str, Any]:
    used = usage_of(request, behaviour, text)
    return {
        "prompt_tokens": used["prompt"],
        "completion_tokens": used["completion"],
        "total_tokens": used["prompt"] + used["completion"],
        "prompt_tokens_details": {"cached_tokens": used["cached"]},
    }


def _openai_tools(behaviour: Behaviour) -> list[dict[str, Any]]:
    return [
        {
            "id": call["id"],
            "type": "function",
            "function": {"name": call["name"], "arguments": call["arguments"]},
        }
        for call in behaviour.tool_calls
    ]


def _openai_whole(request: Request, behaviour: Behaviour, text: str) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": behaviour.refusal}
    if behaviour.refusal is not None:
        message["content"] = None
    if behaviour.tool_calls:
        message |= {"content": behaviour.text, "tool_calls": _openai_tools(behaviour)}
    choice: dict[str, Any] = {"index": 0, "message": message, "logprobs": None}
    if behaviour.finish_reason is not None:
        choice["finish_reason"] = behaviour.finish_reason
    if behaviour.logprob is not None:
        tokens = _TOKENS.findall(text)
        choice["logprobs"] = {
            "content": [{"token": t, "logprob": behaviour.logprob} for t in tokens]
        }
    body = {
        "id": f"chatcmpl-{request.number}",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": behaviour.served_model or request.model,
        "choices": [choice],
    }
    if behaviour.usage is not False:
        body["usage"] = _openai_usage(request, behaviour, text)
    return body


def _openai_events(request: Request, behaviour: Behaviour, text: str) -> Iterator[str]:
    model = behaviour.served_model or request.model

    def event(delta: dict[str, Any], finish: str | None = None, **more: Any) -> str:
        choice = {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None} | more
        chunk = {"id": "c", "object": "chat.completion.chunk", "model": model, "choices": [choice]}
        return f"data: {json.dumps(chunk)}\n\n"

    yield event({"role": "assistant", "content": ""})
    for token in _TOKENS.findall(behaviour.reasoning or ""):
        yield event({"reasoning_content": token})
    if behaviour.refusal is not None:
        yield event({"refusal": behaviour.refusal})
    elif not behaviour.tool_calls or behaviour.text is not None:
        for token in _TOKENS.findall(text):
            more: dict[str, Any] = {}
            if behaviour.logprob is not None:
                more["logprobs"] = {"content": [{"token": token, "logprob": behaviour.logprob}]}
            yield event({"content": token}, **more)
    for index, call in enumerate(_openai_tools(behaviour)):
        arguments = call["function"]["arguments"]
        call["function"]["arguments"] = ""
        yield event({"tool_calls": [{"index": index, **call}]})
        for start in range(0, len(arguments), 7):
            piece = {"arguments": arguments[start : start + 7]}
            yield event({"tool_calls": [{"index": index, "function": piece}]})
    if behaviour.finish_reason is not None:
        yield event({}, behaviour.finish_reason)
    options = (request.json or {}).get("stream_options") or {}
    if behaviour.usage is not False and options.get("include_usage"):
        used = _openai_usage(request, behaviour, text)
        yield f"data: {json.dumps({'model': model, 'choices': [], 'usage': used})}\n\n"
    yield "data: [DONE]\n\n"


# --- Anthropic -------------------------------------------------------------------

_STOP_REASONS = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
}


def _anthropic_usage(request: Request, behaviour: Behaviour, text: str) -> dict[str, int]:
    used = usage_of(request, behaviour, text)
    return {
        "input_tokens": used["prompt"] - used["cached"],
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": used["cached"],
        "output_tokens": used["completion"],
    }


def _anthropic_blocks(request: Request, behaviour: Behaviour, text: str) -> list[dict[str, Any]]:
    forced = _forced_tool(request.json)
    if forced is not None and behaviour.wrap is None:
        try:
            value = json.loads(text)
        except ValueError:
            value = None
        if isinstance(value, dict):
            block = {"type": "tool_use", "id": "toolu_1", "name": forced["name"], "input": value}
            return [block]
    blocks: list[dict[str, Any]] = []
    if behaviour.reasoning is not None:
        blocks.append({"type": "thinking", "thinking": behaviour.reasoning})
    if not behaviour.tool_calls or behaviour.text is not None:
        blocks.append({"type": "text", "text": text})
    for call in behaviour.tool_calls:
        arguments = json.loads(call["arguments"])
        blocks.append(
            {"type": "tool_use", "id": call["id"], "name": call["name"], "input": arguments}
        )
    return blocks


def _anthropic_stop(behaviour: Behaviour, blocks: list[dict[str, Any]]) -> str | None:
    if behaviour.finish_reason == "stop" and blocks and blocks[-1]["type"] == "tool_use":
        return "tool_use"
    return _STOP_REASONS.get(behaviour.finish_reason or "", behaviour.finish_reason)


def _anthropic_whole(request: Request, behaviour: Behaviour, text: str) -> dict[str, Any]:
    blocks = _anthropic_blocks(request, behaviour, text)
    body: dict[str, Any] = {
        "id": f"msg_{request.number}",
        "type": "message",
        "role": "assistant",
        "model": behaviour.served_model or request.model,
        "content": blocks,
        "stop_reason": _anthropic_stop(behaviour, blocks),
        "stop_sequence": None,
    }
    if behaviour.usage is not False:
        body["usage"] = _anthropic_usage(request, behaviour, text)
    return body


def _anthropic_events(request: Request, behaviour: Behaviour, text: str) -> Iterator[str]:
    def event(kind: str, **more: Any) -> str:
        return f"event: {kind}\ndata: {json.dumps({'type': kind, **more})}\n\n"

    blocks = _anthropic_blocks(request, behaviour, text)
    message = _anthropic_whole(request, behaviour, text) | {"content": [], "stop_reason": None}
    if behaviour.usage is not False:
        message["usage"] |= {"output_tokens": 1}
    yield event("message_start", message=message)
    yield event("ping")
    for index, block in enumerate(blocks):
        if block["type"] == "text":
            start: dict[str, Any] = {"type": "text", "text": ""}
            deltas = [{"type": "text_delta", "text": t} for t in _TOKENS.findall(block["text"])]
        elif block["type"] == "thinking":
            start = {"type": "thinking", "thinking": ""}
            thought = _TOKENS.findall(block["thinking"])
            deltas = [{"type": "thinking_delta", "thinking": t} for t in thought]
        else:
            start = block | {"input": {}}
            raw = json.dumps(block["input"])
            pieces = (raw[i : i + 7] for i in range(0, len(raw), 7))
            deltas = [{"type": "input_json_delta", "partial_json": p} for p in pieces]
        yield event("content_block_start", index=index, content_block=start)
        for delta in deltas:
            yield event("content_block_delta", index=index, delta=delta)
        yield event("content_block_stop", index=index)
    stop = _anthropic_stop(behaviour, blocks)
    if stop is not None:
        more: dict[str, Any] = {"delta": {"stop_reason": stop, "stop_sequence": None}}
        if behaviour.usage is not False:
            output_tokens = _anthropic_usage(request, behaviour, text)["output_tokens"]
            more["usage"] = {"output_tokens": output_tokens}
        yield event("message_delta", **more)
        yield event("message_stop")
