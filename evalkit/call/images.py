"""The images of an input, as parts of a message: what a template cannot write.

Part of the prompt stage. The parts go through to the wire as they are; each wire knows how
its servers want them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from evalkit.errors import CallError
from evalkit.records import Message


def with_images(messages: Sequence[Message], images: Any) -> tuple[Message, ...]:
    """The messages with `images` behind the text of the last of the user's.

    Images are URLs, also of data, or content parts of the chat completions shape. A list of
    anything else is a value for the prompt like every other, and adds nothing. Raises
    CallError invalid_input for an image part that has no URL.
    """
    if not isinstance(images, list) or not images or not all(map(_is_image, images)):
        return tuple(messages)
    for number, one in enumerate(images):
        if not (isinstance(one, str) or one["type"] == "image" or _has_url(one)):
            raise CallError("invalid_input", f"images[{number}] has no image_url with a url")
    parts = [
        {"type": "image_url", "image_url": {"url": one}} if isinstance(one, str) else one
        for one in images
    ]
    at = max((n for n, m in enumerate(messages) if m["role"] == "user"), default=None)
    if at is None:
        return (*messages, {"role": "user", "content": parts})
    text = {"type": "text", "text": messages[at]["content"]}
    changed = {**messages[at], "content": [text, *parts]}
    return (*messages[:at], changed, *messages[at + 1 :])


def _has_url(part: Mapping[str, Any]) -> bool:
    image = part.get("image_url")
    return isinstance(image.get("url") if isinstance(image, Mapping) else image, str)


def _is_image(one: Any) -> bool:
    if isinstance(one, str):
        return one.startswith(("https://", "http://", "data:image/"))
    return isinstance(one, Mapping) and one.get("type") in ("image_url", "image")
