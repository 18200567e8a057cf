"""Valid files made invalid: seeds with bytes cut, doubled, swapped and replaced by nasty ones."""

from __future__ import annotations

import random
from collections.abc import Sequence

NASTY: tuple[bytes, ...] = (
    b"\x00", b"\xff", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\\ud800", "\u202e".encode(),
    "\u2028".encode(), b"\r", b"\r\n", b"\n\n", b"\t", b"\x1b[31m", b"null", b"true", b"NaN",
    b"-Infinity", b"1e999", b"-0", b"9" * 400, b'"', b"'", b"\\", b"{", b"}", b"[", b"]",
    b"[" * 200, b"{" * 200, b'{"a":' * 100, b"- " * 100, b"&a *a", b"*a", b"<<: *a",
    b"!!python/object:os.system",
    b"!!binary aGk=", b"? ", b": ", b"---\n", b"...\n", b"# ", b",", b";", b"=cmd|' /C calc'!A0",
    b"{{ 7*7 }}", b"{% for x in range(10**9) %}", b"${jndi}", b"%s%n", b"' OR 1=1 --", b"../../x",
    b"file:///etc/passwd", b"<script>", b"(a+)+$", b"(?=x)", b"\\1", b"id", b"input", b"\"\":",
    b"[[table]]", b"[x.y]", b'"""', b"0x1F", b"1979-05-27T07:32:00Z", b"inf", b"## user\n",
)  # fmt: skip


def mangled(seed: bytes, chance: random.Random) -> bytes:
    """One to four changes of a valid file."""
    data = seed
    for _ in range(chance.randint(1, 4)):
        a, b = sorted(chance.randrange(len(data) + 1) for _ in range(2))
        b = min(b, a + chance.choice((0, 1, 3, 30, 300)))
        middle = chance.choice(
            (b"", chance.choice(NASTY), data[a:b] * 2, data[a:b][::-1], _elsewhere(data, chance))
        )
        data = data[:a] + middle + data[b:]
    return data


def _elsewhere(data: bytes, chance: random.Random) -> bytes:
    """A piece of the same file: right in one place, wrong in another."""
    a = chance.randrange(len(data) + 1)
    return data[a : a + chance.choice((1, 5, 50))]


def some(seeds: Sequence[bytes], number: int) -> bytes:
    """The n-th mangled file of these seeds: the same for everybody."""
    chance = random.Random(number)
    return mangled(chance.choice(seeds), chance)
