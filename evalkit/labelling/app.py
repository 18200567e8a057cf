"""The pages and forms of the labelling server, one function each.

Every page works as a plain form; a script only saves the reload. A label is on the disk
before the answer to its form is sent.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from evalkit.call.queue_file import NAME as REVIEW_FILE
from evalkit.call.review import Review, ReviewError, ReviewQueue
from evalkit.content import find_content
from evalkit.decide.report_page import fill
from evalkit.errors import StoreError
from evalkit.labelling import pages
from evalkit.labelling.agreeing import agreement_on
from evalkit.score.label_queue import Item, LabelQueue
from evalkit.score.label_sealing import seal_labels
from evalkit.score.labels import LabelError, read_comment, read_reply
from evalkit.store.audit import Kind, note_seen

if TYPE_CHECKING:
    from evalkit.local_page.access import Session
    from evalkit.store.views import Store

SEAL_EVERY_S = 30.0
STATIC = {"label.css": "text/css", "label.js": "text/javascript"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """What the pages work on."""

    store: Store
    queue: LabelQueue
    project: Path
    show_pairs: bool = False
    """Say which pair gave an answer: no longer blind."""

    def pending(self) -> list[str]:
        """Ids of the production answers that wait, oldest first."""
        with self.reviews() as reviews:
            return [] if reviews is None else [review.id for review in reviews.list("pending")]

    def reviews(self) -> Any:
        """The reviews of production, as a context manager; None where nothing was ever held."""
        path = self.store.path / REVIEW_FILE
        return closing(ReviewQueue(path)) if path.exists() else nullcontext(None)

    def collect_reviews(self) -> int:
        """Make labels of the reviews that were decided, here or on the command line."""
        with self.reviews() as reviews:
            return 0 if reviews is None else self.queue.add_reviews(reviews.list(None))

    def seal(self) -> None:
        self.collect_reviews()
        seal_labels(self.store)


def make_app(desk: Desk) -> Starlette:
    """The app, to be put behind `local_page.access.Guard`."""
    views = Views(desk)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        sealing = asyncio.create_task(_seal_now_and_then(desk))
        yield
        sealing.cancel()
        with suppress(asyncio.CancelledError):
            await sealing
        await asyncio.to_thread(desk.seal)

    return Starlette(
        lifespan=lifespan,
        exception_handlers={
            LabelError: views.refused,
            ReviewError: views.refused,
            StoreError: views.refused,
        },
        routes=[
            Route("/", views.start),
            Route("/next", views.next),
            Route("/back", views.back),
            Route("/done", views.done),
            Route("/item/{item}", views.item),
            Route("/item/{item}", views.mark, methods=["POST"]),
            Route("/item/{item}/whole/{at:int}", views.whole),
            Route("/undo", views.undo, methods=["POST"]),
            Route("/settle", views.next_to_settle),
            Route("/settle/{item}", views.to_settle),
            Route("/settle/{item}", views.settle, methods=["POST"]),
            Route("/settle/{item}/whole/{at:int}", views.whole),
            Route("/reviews", views.next_review),
            Route("/reviews/{review}", views.review),
            Route("/reviews/{review}", views.decide, methods=["POST"]),
            Route("/reviews/{review}/whole/{at:int}", views.whole_review),
            Route("/static/{name}", views.static),
        ],
    )


async def _seal_now_and_then(desk: Desk) -> None:
    while True:
        await asyncio.sleep(SEAL_EVERY_S)
        await asyncio.to_thread(desk.seal)


class Views:
    """The pages. Synchronous: each runs in a thread of its own."""

    def __init__(self, desk: Desk) -> None:
        self._desk, self._queue = desk, desk.queue
        self._templates = pages.label_templates(desk.project)

    # --- labelling -----------------------------------------------------------------------

    def start(self, request: Request) -> Response:
        """To the first thing there is to do."""
        item = self._queue.next_for(_session(request).who)
        if item is not None:
            return _to(f"/item/{item}")
        return _to("/reviews" if self._desk.pending() else "/done")

    def next(self, request: Request) -> Response:
        item = self._queue.next_for(_session(request).who, after=request.query_params.get("after"))
        return _to("/done" if item is None else f"/item/{item}")

    def back(self, request: Request) -> Response:
        after = request.query_params.get("after", "")
        item = self._queue.before(_session(request).who, after)
        if item is None and after:
            _session(request).told = "This is your first item."
        return _to(f"/item/{item or after}" if item or after else "/done")

    def item(self, request: Request) -> Response:
        item = self._item(request)
        self._queue.claim(item.id, _session(request).who)
        self._note("item", request, item)
        return self._item_page(request, item)

    def mark(self, request: Request) -> Response:
        item, form, session = self._item(request), request.scope["form"], _session(request)
        try:
            said = read_reply(item.question, pages.choices_in(form, item.question))
            comment = read_comment(form.get("comment"))
        except LabelError as error:
            return self._item_page(request, item, problem=str(error))
        self._queue.mark(item.id, session.who, said, comment)
        mark = self._queue.mine(item.id, session.who)
        assert mark is not None
        session.told = f"Saved: {self._in_short(item, mark, session.who)}"
        following = self._queue.next_for(session.who, after=item.id)
        return _to("/done" if following is None else f"/item/{following}")

    def undo(self, request: Request) -> Response:
        session = _session(request)
        item = self._queue.undo(session.who)
        session.told = "Nothing to take back." if item is None else "Taken back."
        return _to("/" if item is None else f"/item/{item}")

    def whole(self, request: Request) -> Response:
        """A text that is too long for the page, as text."""
        item = self._item(request)
        self._note("item", request, item)
        outputs = item.shown["outputs"]
        at = request.path_params["at"]
        return _plain(str(outputs[at] or "") if at < len(outputs) else "")

    def done(self, request: Request) -> Response:
        self._desk.seal()
        found = [agreement_on(metric, of) for metric, of in self._queue.ratings().items()]
        told = {"agreement": pages.agreement_values(found)}
        return self._page("label_done", request, told)

    # --- disagreements ---------------------------------------------------------------------

    def next_to_settle(self, request: Request) -> Response:
        """The first disagreement, or the one after `after`."""
        following = _following(self._queue.disagreements(), request.query_params.get("after"))
        return _to(f"/settle/{following}" if following else "/done")

    def to_settle(self, request: Request) -> Response:
        item = self._item(request)
        self._note("disagreement", request, item)
        return self._settle_page(request, item)

    def settle(self, request: Request) -> Response:
        item, form, session = self._item(request), request.scope["form"], _session(request)
        try:
            said = read_reply(item.question, pages.choices_in(form, item.question))
            comment = read_comment(form.get("comment"))
        except LabelError as error:
            return self._settle_page(request, item, problem=str(error))
        following = _following(self._queue.disagreements(), item.id)
        self._queue.settle(item.id, session.who, said, comment)
        session.told = "Settled."
        return _to(f"/settle/{following}" if following not in (None, item.id) else "/done")

    # --- answers of production ---------------------------------------------------------------

    def next_review(self, request: Request) -> Response:
        following = _following(self._desk.pending(), request.query_params.get("after"))
        if following is None:
            _session(request).told = "No answer waits for a review."
        return _to(f"/reviews/{following}" if following else "/done")

    def review(self, request: Request) -> Response:
        return self._review_page(request)

    def decide(self, request: Request) -> Response:
        form, session = request.scope["form"], _session(request)
        review_id, by = request.path_params["review"], session.who
        reason = read_comment(form.get("comment"))
        following = _following(self._desk.pending(), review_id)
        with self._desk.reviews() as reviews:
            _require(reviews)
            if form.get("decision") == "reject":
                if reason is None:
                    return self._review_page(request, problem="A rejection needs a reason.")
                reviews.reject(review_id, by, reason)
                session.told = "Rejected: it will not go out."
            elif form.get("decision") in ("approve", "edit"):
                edited = _edited(form) if form["decision"] == "edit" else None
                before = reviews.get(review_id).output or ""
                edited = None if edited == before.replace("\r\n", "\n") else edited
                reviews.approve(review_id, by, edited)
                session.told = "Approved." if edited is None else "Approved as edited."
            else:
                return self._review_page(request, problem="Choose approve, edit or reject.")
        self._desk.collect_reviews()
        return _to(f"/reviews/{following}" if following not in (None, review_id) else "/done")

    def whole_review(self, request: Request) -> Response:
        review = self._review(request)
        return _plain(str(review.output or ""))

    # --- parts -------------------------------------------------------------------------------

    def static(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in STATIC:
            return _plain("There is no such file.\n", status=404)
        path = find_content("reports", name, project=self._desk.project)
        return Response(path.read_bytes(), media_type=STATIC[name])

    def refused(self, request: Request, error: Exception) -> Response:
        """What the queue would not do, on a page that leads back."""
        return self._page("label_refused", request, {"problem": str(error)}, status=409)

    def _item(self, request: Request) -> Item:
        return self._queue.item(request.path_params["item"])

    def _item_page(self, request: Request, item: Item, *, problem: str = "") -> Response:
        annotator = _session(request).who
        values = pages.item_values(
            item,
            annotator=annotator,
            mark=self._queue.mine(item.id, annotator),
            show_pairs=self._desk.show_pairs,
            path=f"/item/{item.id}",
        )
        values |= {"item": item.id, "said": [], "is_settling": False, "problem": problem}
        return self._page("label_item", request, values, status=422 if problem else 200)

    def _settle_page(self, request: Request, item: Item, *, problem: str = "") -> Response:
        annotator = _session(request).who
        values = pages.item_values(
            item, annotator=annotator, mark=None,
            show_pairs=self._desk.show_pairs, path=f"/settle/{item.id}",
        )  # fmt: skip
        said = [
            (self._in_short(item, mark, annotator), mark.comment or "")
            for mark in self._queue.said_of(item.id)
        ]
        values |= {"item": item.id, "said": said, "is_settling": True, "problem": problem}
        return self._page("label_item", request, values, status=422 if problem else 200)

    def _review_page(self, request: Request, *, problem: str = "") -> Response:
        review = self._review(request)
        values = pages.review_values(review)
        values |= {
            "problem": problem,
            "comment": request.scope.get("form", {}).get("comment", ""),
        }
        return self._page("label_review", request, values, status=422 if problem else 200)

    def _note(self, kind: Kind, request: Request, item: Item) -> None:
        """Before anything of it is shown."""
        traces = [str(one.get("trace_id") or "") for one in item.facts]
        who = _session(request).who
        note_seen(self._desk.store.path, who=who, kind=kind, item=item.id, trace_ids=traces)

    def _review(self, request: Request) -> Review:
        """The review of the address, once it is noted who sees it."""
        with self._desk.reviews() as reviews:
            _require(reviews)
            review: Review = reviews.get(request.path_params["review"])
        note_seen(
            self._desk.store.path,
            who=_session(request).who,
            kind="review",
            item=review.id,
            trace_ids=[str(review.record["trace_id"])],
        )
        return review

    def _in_short(self, item: Item, mark: Any, annotator: str) -> str:
        if item.question.kind == "preference":
            return pages.preferred_side(mark, pages.side_order(annotator, item.id))
        return pages.in_short(item.question, mark)

    def _page(
        self, name: str, request: Request, values: dict[str, Any], *, status: int = 200
    ) -> Response:
        session = _session(request)
        told, session.told = session.told, ""
        shared = {
            "csrf": session.csrf,
            "annotator": session.who,
            "told": told,
            "progress": self._queue.progress(session.who),
            "n_pending": len(self._desk.pending()),
            "section": name,
        }
        html = fill(self._templates, f"{name}.html.jinja", {**shared, **values})
        return Response(
            html.encode("utf-8", "replace"), status, media_type="text/html; charset=utf-8"
        )


def _following(waiting: Sequence[str], after: str | None) -> str | None:
    """The one after `after`, and around; None when nothing waits."""
    if after not in waiting:
        return waiting[0] if waiting else None
    return waiting[(waiting.index(after) + 1) % len(waiting)]


def _session(request: Request) -> Session:
    session: Session = request.scope["session"]
    return session


def _require(reviews: ReviewQueue | None) -> None:
    if reviews is None:
        raise ReviewError("nothing was ever held for review in this store.")


def _edited(form: dict[str, str]) -> str:
    """The text of a text field; browsers send its line ends as CR LF."""
    return form.get("output", "").replace("\r\n", "\n")


def _to(path: str) -> Response:
    return RedirectResponse(path, status_code=303)


def _plain(text: str, *, status: int = 200) -> Response:
    return PlainTextResponse(text.encode("utf-8", "replace"), status)
