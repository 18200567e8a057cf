"""The dashboard as a page of this machine, under the rules of `local_page`.

Every look gathers its figures anew, one after another. It only reads: whoever sees the
page can change nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from evalkit.dashboard.figures import Figures, gather
from evalkit.dashboard.page import STYLE, render_dashboard
from evalkit.dashboard.window import DAY_US, Window
from evalkit.decide.report_page import own_part
from evalkit.errors import ConfigError
from evalkit.settings import Settings
from evalkit.store.views import open_store

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

WINDOWS = {1: "24 hours", 7: "7 days", 30: "30 days", 90: "90 days"}
MISSING = (
    "the dashboard's server needs packages that are not installed ({name}). Install them: "
    'pip install "evalkit[label]", or write a file: evalkit dashboard --html FILE'
)


def serve(
    store: Path,
    settings: Settings,
    *,
    days: int,
    clock: Callable[[], int],
    port: int = 0,
    who: str,
    announce: Callable[[str, str], None],
) -> None:
    """Serve until interrupted; `clock` says now in microseconds since 1970.

    Raises ConfigError when the extra is not installed or the port is taken.
    """
    try:
        import uvicorn  # noqa: F401

        app = make_app(store, settings, days=days, clock=clock)
    except ImportError as error:
        raise ConfigError(MISSING.format(name=error.name)) from None
    from evalkit.local_page.access import Access
    from evalkit.local_page.running import listening, run

    with listening(port) as socket:
        access = Access(
            port=socket.getsockname()[1],
            page="dashboard",
            command="evalkit dashboard",
            start="Open the dashboard",
        )
        run(app, access, on=socket, people=[who], announce=announce)


def make_app(store: Path, settings: Settings, *, days: int, clock: Callable[[], int]) -> Starlette:
    """The app, to be put behind `local_page.access.Guard`."""
    from starlette.applications import Starlette
    from starlette.responses import JSONResponse, PlainTextResponse, Response
    from starlette.routing import Route

    # Two looks at once would count the same new files twice.
    one_by_one = threading.Lock()
    style = own_part(STYLE, project=settings.root)

    def figures(request: Request) -> tuple[Figures, int]:
        asked = request.query_params.get("days", "")
        shown = int(asked) if asked.isdecimal() and int(asked) in WINDOWS else days
        now = clock()
        window = Window.of(now - shown * DAY_US, now)
        with one_by_one:
            return gather(open_store(store), settings, window, now=now), shown

    def page(request: Request) -> Response:
        found, shown = figures(request)
        known = WINDOWS if shown in WINDOWS else {shown: f"{shown} days"} | WINDOWS
        windows = [(text, f"/?days={n}", n == shown) for n, text in known.items()]
        html = render_dashboard(
            found, project=settings.root, windows=windows, query=f"?days={shown}"
        )
        return Response(html, media_type="text/html; charset=utf-8")

    def data(request: Request) -> Response:
        return JSONResponse(figures(request)[0].as_json())

    def static(request: Request) -> Response:
        if request.path_params["name"] != STYLE:
            return PlainTextResponse("no such file\n", status_code=404)
        return Response(style, media_type="text/css; charset=utf-8")

    return Starlette(
        routes=[
            Route("/", page),
            Route("/data.json", data),
            Route("/static/{name}", static),
        ]
    )
