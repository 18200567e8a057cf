"""Run the labelling page on this machine, until somebody ends it."""

from __future__ import annotations

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
        import uvicorn  # noqa: F401

        from evalkit.labelling.app import Desk, make_app
    except ImportError as error:
        raise ConfigError(MISSING.format(name=error.name)) from None
    from evalkit.local_page.access import Access
    from evalkit.local_page.running import listening, run

    names = [read_annotator(name) for name in annotators]
    with closing(LabelQueue(store.path)) as queue, listening(port) as socket:
        desk = Desk(store=store, queue=queue, project=project, show_pairs=show_pairs)
        desk.seal()
        access = Access(
            port=socket.getsockname()[1],
            page="label",
            command="evalkit label serve",
            start="Start labelling",
        )
        run(make_app(desk), access, on=socket, people=names, announce=announce)
