"""Run the labelling page on this machine, until somebody ends it.

Bound to 127.0.0.1 and nothing else. The address it prints is good for one browser; when it
was used, the next one is printed.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from evalkit.errors import ConfigError
from evalkit.score.label_queue import LabelQueue
from evalkit.score.labels import read_annotator

if TYPE_CHECKING:
    from evalkit.store.views import Store

MISSING = (
    "the labelling page needs packages that are not installed ({name}). "
    'Install them: pip install "evalkit[label]"'
)


def serve(
    store: Store,
    *,
    project: Path,
    annotators: Sequence[str],
    port: int = 0,
    show_pairs: bool = False,
    announce: Callable[[str, str], None],
) -> None:
    """Serve until interrupted; `announce` is told each annotator's address.

    Raises ConfigError when the extra is not installed or the port is taken.
    """
    try:
        import markdown_it  # noqa: F401
        import uvicorn

        from evalkit.labelling.app import Desk, make_app
    except ImportError as error:
        raise ConfigError(MISSING.format(name=error.name)) from None
    from evalkit.labelling.access import Access, Guard

    names = [read_annotator(name) for name in annotators]
    with closing(LabelQueue(store.path)) as queue, closing(_listen(port)) as listening:
        desk = Desk(store=store, queue=queue, project=project, show_pairs=show_pairs)
        desk.seal()
        access = Access(port=listening.getsockname()[1])
        access.on_used = lambda name: announce(name, access.invite(name))
        for name in names:
            announce(name, access.invite(name))
        config = uvicorn.Config(
            Guard(make_app(desk), access),
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            ws="none",
            lifespan="on",
            timeout_graceful_shutdown=2,
        )
        uvicorn.Server(config).run(sockets=[listening])


def _listen(port: int) -> socket.socket:
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind(("127.0.0.1", port))
        # From here on a browser may come; it waits until the server is up.
        listening.listen()
    except OSError as error:
        listening.close()
        raise ConfigError(f"port {port}: {error.strerror}. Choose another --port.") from None
    return listening
