"""Run evalkit commands in this process and print every address that it asked for or spoke to.

`python -m tests.hostile.listened COMMANDS` where COMMANDS is a JSON list of argument lists. The
last line of the output is a JSON list; Python's audit events say what C code under it does, too.
"""

from __future__ import annotations

import json
import sys
from typing import Any

HEARD: set[str] = set()
EVENTS = {"socket.connect", "socket.sendto", "socket.getaddrinfo", "socket.gethostbyname"}


def listen(event: str, arguments: tuple[Any, ...]) -> None:
    if event in EVENTS:
        address = arguments[1] if event in {"socket.connect", "socket.sendto"} else arguments
        host = address[0] if isinstance(address, tuple) else address
        HEARD.add(f"{host}:{address[1]}" if isinstance(address, tuple) else str(host))


if __name__ == "__main__":
    sys.addaudithook(listen)
    from evalkit.cli.main import main

    statuses = [main(command) for command in json.loads(sys.argv[1])]
    sys.stdout.write("\n" + json.dumps({"statuses": statuses, "heard": sorted(HEARD)}) + "\n")
