"""The guard of an answer that is shown while it is still being written.

Text waits until what follows can no longer change what it is: a name cut in half is not
recognised, and what has been shown cannot be taken back.
"""

from __future__ import annotations

from evalkit.call.guards import Guard, Guarded, Restorer
from evalkit.records import Json

HOLD = 120
"""Characters kept back: longer than personal data, and than a canary."""
LOOK_BACK = 400
"""Characters already shown that are looked at again for words of the system prompt."""


class StreamGuard:
    """`Guard.check_output` and `restore` for an answer in pieces.

    What `feed` and `flush` give back may be shown. Both raise CallError guard_block;
    `text` is what was let through, before placeholders were turned back.
    """

    def __init__(
        self,
        guard: Guard,
        guarded: Guarded,
        *,
        canary: str | None = None,
        system_text: str = "",
        context: Json = None,
    ) -> None:
        self._guard, self._guarded = guard, guarded
        self._canary, self._system_text = canary, system_text
        self._given = (guarded.input, list(guarded.placeholders.values()), system_text, context)
        settings = guard.settings
        self._off = settings.output_leak == "off" and settings.output_pii == "off"
        self.restart()

    def restart(self) -> None:
        """Forget an answer of which nothing has been shown."""
        self._restorer = Restorer(self._guarded)
        self._waiting = ""
        self.text = ""
        self.events: tuple[str, ...] = ()

    def feed(self, delta: str) -> str:
        self._waiting += delta
        if not self._off and len(self._waiting) < 2 * HOLD:
            return ""
        return self._restorer.feed(self._release(0 if self._off else HOLD))

    def flush(self) -> str:
        """What still waited when the answer ended; the rules see the whole answer here."""
        last = self._restorer.feed(self._release(0)) + self._restorer.flush()
        self._guard.check_rules(self.text)
        return last

    def _release(self, hold: int) -> str:
        """What waits, but for its last `hold` characters and personal data that reaches there."""
        leaks = self._guard.check_leak(
            self.text[-LOOK_BACK:] + self._waiting,
            self._guarded,
            canary=self._canary,
            system_text=self._system_text,
        )
        cut = len(self._waiting) - hold
        if hold:
            for finding in self._guard.recognise(self._waiting):
                if finding.start < cut < finding.end:
                    cut = finding.start
        piece, kinds = self._guard.check_personal(self._waiting[:cut], self._given)
        self._waiting = self._waiting[cut:]
        self.text += piece
        self.events = tuple(dict.fromkeys((*self.events, *leaks, *kinds)))
        return piece
