"""A scripted model provider on 127.0.0.1, for tests, drills and benchmarks.

It speaks OpenAI chat completions (`/v1/chat/completions`), Anthropic messages
(`/v1/messages`), the batch endpoints of both, and a plain JSON application (any other
path), answers from the request's own schema, and misbehaves on request:

    with Loopback(delay_ms=50) as server:
        server.script(Rule(Behaviour(status=429, headers={"retry-after": "1"}), times=1))
        …  # base_url = server.url + "/v1"
        assert server.stats.by_case["t-001"] == 2

As a process: `python -m tests.loopback --port 0 --delay-ms 50` prints its port.
`GET /stats`, `POST /reset` and `POST /script` (a JSON list of rules) work on both.
"""

from tests.loopback.behaviour import Behaviour, Request, Rule
from tests.loopback.server import Loopback, Stats, loopback_process

__all__ = ["Behaviour", "Loopback", "Request", "Rule", "Stats", "loopback_process"]
