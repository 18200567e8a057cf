"""Run a page on this machine, until somebody ends it.

Bound to 127.0.0.1 and nothing else. The address it prints is good for one browser; when it
was used, the next one is printed.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from evalkit.errors import ConfigError
from evalkit.local_page.access import Access, App, Guard


@contextmanager
def listening(port: int) -> Iterator[socket.socket]:
    """A socket on 127.0.0.1; ConfigError when the port is taken."""
    found = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind(("127.0.0.1", port))
        # From here on a browser may come; it waits until the server is up.
        found.listen()
    except OSError as error:
        found.close()
        raise ConfigError(f"port {port}: {error.strerror}. Choose another --port.") from None
    with found:
        yield found


def run(
    app: App,
    access: Access,
    *,
    on: socket.socket,
    people: Sequence[str],
    announce: Callable[[str, str], None],
) -> None:
    """Serve until interrupted; `announce` is told each one's address, again once it was used."""
    import uvicorn

    access.on_used = lambda who: announce(who, access.invite(who))
    for who in people:
        announce(who, access.invite(who))
    config = uvicorn.Config(
        Guard(app, access),
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        ws="none",
        lifespan="on",
        timeout_graceful_shutdown=2,
    )
    uvicorn.Server(config).run(sockets=[on])
