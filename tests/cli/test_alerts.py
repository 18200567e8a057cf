"""`evalkit alerts`: what fires, what is sent, and what is said only once."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from evalkit.cli.main import main
from evalkit.store.views import open_store
from tests.store.journal_lines import AT, attempt, call, plain

CHECKOUT = Path(__file__).resolve().parents[2]
HOUR = 3_600_000_000
DAY = 24 * HOUR


class Chat(HTTPServer):
    """Takes messages as Slack's webhook does."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.status = 200
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/services/secret-token"


class _Handler(BaseHTTPRequestHandler):
    server: Chat

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.server.status == 200:
            self.server.texts.append(body["text"])
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Silent."""


@pytest.fixture
def chat(monkeypatch: pytest.MonkeyPatch) -> Iterator[Chat]:
    with Chat() as server:
        monkeypatch.setenv("CHAT_URL", server.url)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def project(folder: Path, text: str, *calls: dict[str, Any]) -> Path:
    (folder / "evalkit.toml").write_text(text, encoding="utf-8")
    log(folder, "log", *calls)
    return folder


def log(folder: Path, file_id: str, *calls: dict[str, Any]) -> None:
    rows = [plain(call(**{"trace_id": f"{file_id}-{n}", **one})) for n, one in enumerate(calls)]
    open_store(folder / ".evalkit").add_calls(file_id, rows)


def look(folder: Path, *options: str, at: int = AT + HOUR) -> int:
    from evalkit.cli.periods import iso

    return main(["alerts", "--config", str(folder / "evalkit.toml"), "--at", iso(at), *options])


def firing(capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, Any]]:
    return {one["key"]: one for one in json.loads(capsys.readouterr().out)["firing"]}


def test_a_day_that_costs_twice_the_one_before_fires(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    project(
        tmp_path, "", {"ts": AT - DAY, "cost_usd": 5.0}, {"ts": AT, "cost_usd": 10.0},
    )  # fmt: skip

    assert look(tmp_path, "--json") == 1

    found = firing(capsys)
    assert set(found) == {"spend/all calls", "spend/feature classify-ticket"}
    assert found["spend/all calls"]["value"] == 10.0
    assert found["spend/all calls"]["runbook"] == "docs/runbook.md#cost-spike"


@pytest.mark.parametrize(
    ("before", "after"), [(6.0, 10.0), (0.1, 0.9), (None, 10.0)],
    ids=["below the ratio", "below the least spend", "nothing known of yesterday"],
)  # fmt: skip
def test_what_is_no_spike_does_not_fire(tmp_path: Path, before: float | None, after: float) -> None:
    project(tmp_path, "", {"ts": AT - DAY, "cost_usd": before}, {"ts": AT, "cost_usd": after})

    assert look(tmp_path) == 0


def test_budgets_warn_at_80_percent_and_are_critical_at_100(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    budgets = """
[budgets]
total = { month_usd = 1.0 }
user = { day_calls = 2 }
[budgets.users.robot]
day_calls = 1000
"""
    robot = [{"user_id": "robot", "cost_usd": 0.1}] * 6
    ann = [{"user_id": "ann", "cost_usd": 0.1}] * 2
    project(tmp_path, budgets, *robot, *ann)

    assert look(tmp_path, "--json") == 1

    found = firing(capsys)
    assert {key: one["severity"] for key, one in found.items()} == {
        "budget/user ann/day_calls": "critical",
        "budget/all calls/month_usd": "warning",
    }
    assert found["budget/all calls/month_usd"]["value"] == 0.8


def test_budgets_of_yesterday_do_not_count_today(tmp_path: Path) -> None:
    project(tmp_path, "[budgets]\nuser = { day_calls = 1 }\n", {"user_id": "ann", "ts": AT - DAY})

    assert look(tmp_path) == 0


def test_failures_latency_and_cache_hits_are_held_against_their_limits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    limits = "[alerts]\nerror_share = 0.1\nlatency_p95_ms = 100\ncache_hit_share = 0.3\n"
    bad = {"status": "error", "error_kind": "server", "latency_ms": 500.0}
    project(tmp_path, limits, *[bad] * 5, *[{}] * 20)

    assert look(tmp_path, "--json") == 1

    found = firing(capsys)
    assert set(found) == {
        "error_share/classify-ticket", "latency_p95_ms/classify-ticket", "cache_hit_share",
    }  # fmt: skip
    assert found["error_share/classify-ticket"]["runbook"].endswith("#provider-outage")


FEATURE = """
[features.classify-ticket]
prompt = "classify-ticket@v2"
model = "embedded"
max_latency_ms = 100
ttft_ms = 20
"""


def test_a_feature_is_held_against_the_latency_it_promises(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    slow = {"latency_ms": 150.0, "ttft_ms": 30.0}
    project(tmp_path, FEATURE, *[slow] * 2, *[{"ttft_ms": 10.0}] * 18)

    assert look(tmp_path, "--json") == 1

    found = firing(capsys)
    assert set(found) == {"max_latency_ms/classify-ticket", "ttft_ms/classify-ticket"}
    assert found["ttft_ms/classify-ticket"]["limit"] == 20


@pytest.mark.parametrize("kind", ["breaker_open", "quota_exhausted"])
def test_a_provider_that_was_given_up_fires_until_it_answers(
    tmp_path: Path, chat: Chat, kind: str
) -> None:
    down = {"attempts": (attempt(error_kind=kind), attempt(provider="other")), "provider": "other"}
    project(tmp_path, '[alerts]\nwebhook_env = "CHAT_URL"\n', {"ts": AT - 1}, down, down)

    first = look(tmp_path)
    log(tmp_path, "later", {"ts": AT + 1})
    then = look(tmp_path)

    assert (first, then) == (1, 0)
    assert chat.texts[0].startswith("*critical* provider openai: its ")
    assert "2 calls met it" in chat.texts[0]
    assert "docs/runbook.md#provider-outage" in chat.texts[0]
    assert chat.texts[1].startswith("*recovered* provider openai")


def test_an_imported_call_without_attempts_tells_of_its_provider_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    failed = {"attempts": (), "status": "error", "error_kind": "quota_exhausted"}
    project(tmp_path, "", failed)

    assert look(tmp_path, "--json") == 1

    assert set(firing(capsys)) == {"quota_exhausted/openai"}


def test_a_look_reads_no_call_that_is_too_old_to_matter(tmp_path: Path) -> None:
    project(tmp_path, "", {})
    [old] = open_store(tmp_path / ".evalkit").add_calls("old", [plain(call(ts=AT - 60 * DAY))])
    old.write_bytes(b"PAR1 damaged")

    assert look(tmp_path) == 0


def test_calls_that_cannot_be_read_are_no_all_clear(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    project(tmp_path, "", {})
    [file] = open_store(tmp_path / ".evalkit").add_calls("more", [plain(call())])
    file.write_bytes(b"PAR1 damaged")

    assert look(tmp_path) == 3
    assert f"{file.name} is damaged" in capsys.readouterr().err


def test_few_calls_are_not_judged(tmp_path: Path) -> None:
    project(tmp_path, "[alerts]\nerror_share = 0.1\n", *[{"status": "error"}] * 19)

    assert look(tmp_path) == 0


def test_an_alert_is_sent_once_then_daily_and_its_recovery_too(tmp_path: Path, chat: Chat) -> None:
    text = '[alerts]\nerror_share = 0.1\nwebhook_env = "CHAT_URL"\n'
    project(tmp_path, text, *[{"status": "error"}] * 20)

    statuses = [look(tmp_path), look(tmp_path), look(tmp_path, at=AT + 2 * HOUR)]

    assert statuses == [1, 1, 0]
    assert len(chat.texts) == 2
    assert chat.texts[0].startswith("*critical* classify-ticket: 100.0% of 20 calls failed")
    assert "docs/runbook.md#provider-outage" in chat.texts[0]
    assert chat.texts[1].startswith("*recovered* classify-ticket")


def test_an_alert_that_goes_on_is_said_again_after_a_day(tmp_path: Path, chat: Chat) -> None:
    text = '[budgets]\ntotal = { month_calls = 1 }\n[alerts]\nwebhook_env = "CHAT_URL"\n'
    project(tmp_path, text, {})

    for hours in (1, 10, 26):
        look(tmp_path, at=AT + hours * HOUR)

    assert len(chat.texts) == 2


def test_a_budget_that_gets_worse_is_said_again(tmp_path: Path, chat: Chat) -> None:
    text = '[budgets]\ntotal = { month_calls = 5 }\n[alerts]\nwebhook_env = "CHAT_URL"\n'
    project(tmp_path, text, *[{}] * 4)

    look(tmp_path)
    log(tmp_path, "later", {})
    look(tmp_path)

    assert [one.split()[0] for one in chat.texts] == ["*warning*", "*critical*"]


def test_what_the_webhook_refuses_is_sent_next_time(
    tmp_path: Path, chat: Chat, capsys: pytest.CaptureFixture[str]
) -> None:
    text = '[budgets]\ntotal = { month_calls = 1 }\n[alerts]\nwebhook_env = "CHAT_URL"\n'
    project(tmp_path, text, {})

    chat.status = 500
    assert look(tmp_path) == 2
    chat.status = 200
    assert look(tmp_path) == 1

    assert len(chat.texts) == 1
    out, err = capsys.readouterr()
    assert out.count("100% of month_calls is used") == 2, "what fires is printed all the same"
    assert "secret-token" not in out + err


def test_a_damaged_last_look_is_said_beside_what_fires(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    project(tmp_path, "[budgets]\ntotal = { month_calls = 1 }\n", {})
    (tmp_path / ".evalkit" / "alerts.json").write_text("{", encoding="utf-8")

    assert look(tmp_path) == 3

    out, err = capsys.readouterr()
    assert "100% of month_calls is used" in out
    assert "alerts.json" in err


def test_a_name_from_the_log_is_no_markup_in_the_chat(tmp_path: Path, chat: Chat) -> None:
    text = '[budgets]\nuser = { month_calls = 1 }\n[alerts]\nwebhook_env = "CHAT_URL"\n'
    project(tmp_path, text, {"user_id": "<!channel>\nhttp://bad"})

    look(tmp_path)

    (sent,) = chat.texts
    assert "<!channel>" not in sent
    assert len(sent.splitlines()) == 1


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("https://evil.example/hook", "webhook_hosts does not list"),
        ("https://hooks.slack.com.evil.example/x", "webhook_hosts does not list"),
        ("http://hooks.slack.com/x", "only https://"),
        ("", "is not set"),
    ],
)
def test_only_listed_hosts_are_posted_to(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    url: str,
    problem: str,
) -> None:
    monkeypatch.setenv("CHAT_URL", url)
    project(tmp_path, '[alerts]\nwebhook_env = "CHAT_URL"\n', {})

    assert look(tmp_path) == 2

    assert problem in capsys.readouterr().err


def test_a_listed_host_may_be_posted_to(monkeypatch: pytest.MonkeyPatch) -> None:
    from evalkit.exchange.webhook import webhook_url

    monkeypatch.setenv("CHAT_URL", "https://chat.example/hook")

    assert webhook_url("CHAT_URL", hosts=("chat.example",)) == "https://chat.example/hook"


def test_a_runbook_of_ones_own_is_linked(
    tmp_path: Path, chat: Chat, capsys: pytest.CaptureFixture[str]
) -> None:
    url = "https://wiki.example/llm-runbook"
    text = f'[alerts]\nwebhook_env = "CHAT_URL"\nrunbook_url = "{url}"\n'
    project(tmp_path, text + "[budgets]\ntotal = { month_calls = 1 }\n", {})

    look(tmp_path, "--json")

    [one] = firing(capsys).values()
    assert one["runbook"] == f"{url}#cost-spike"
    assert f"(<{url}#cost-spike|runbook>)" in chat.texts[0]


@pytest.mark.parametrize("url", ["javascript:alert(1)", "https://a b", "https://a|b"])
def test_a_runbook_that_is_no_address_is_refused(tmp_path: Path, url: str) -> None:
    project(tmp_path, f'[alerts]\nrunbook_url = "{url}"\n', {})

    assert look(tmp_path) == 2


def test_every_section_that_alerts_link_to_is_in_the_runbook() -> None:
    import re

    import evalkit.decide.alerts as alerts
    import evalkit.decide.monitor as monitor

    sources = "".join(Path(str(one.__file__)).read_text() for one in (alerts, monitor))
    runbook = (CHECKOUT / alerts.RUNBOOK).read_text(encoding="utf-8")
    anchors = set(re.findall(r'anchor="([a-z-]+)"', sources))

    headings = {
        line[3:].lower().replace(" ", "-") for line in runbook.splitlines() if line[:3] == "## "
    }
    assert len(anchors) >= 3
    assert anchors <= headings


def test_the_state_of_an_older_evalkit_is_understood(tmp_path: Path, chat: Chat) -> None:
    text = '[budgets]\ntotal = { month_calls = 1 }\n[alerts]\nwebhook_env = "CHAT_URL"\n'
    project(tmp_path, text, {})
    known = {"severity": "critical", "message": "m", "since": AT, "said_at": AT}
    state = {"budget/all calls/month_calls": known, "gone": known}
    (tmp_path / ".evalkit" / "alerts.json").write_text(json.dumps(state))

    look(tmp_path)

    assert chat.texts == ["*recovered* m"]


def test_prometheus_reads_what_fires(tmp_path: Path) -> None:
    project(tmp_path, "[budgets]\nuser = { month_calls = 1 }\n", {"user_id": 'a"\nb'})
    out = tmp_path / "evalkit.prom"

    look(tmp_path, "--prometheus", str(out))

    lines = [line for line in out.read_text().splitlines() if not line.startswith("#")]
    labels = r'key="budget/user a\"\nb/month_calls",severity="critical"'
    assert lines == [
        f"evalkit_alerts_looked_at_seconds {(AT + HOUR) / 1e6!r}",
        "evalkit_alerts_firing 1",
        f"evalkit_alert_value{{{labels}}} 1.0",
        f"evalkit_alert_limit{{{labels}}} 1.0",
    ]


def test_without_a_store_nothing_fires_and_none_is_made(tmp_path: Path) -> None:
    (tmp_path / "evalkit.toml").write_text("", encoding="utf-8")

    assert look(tmp_path) == 0

    assert not (tmp_path / ".evalkit").exists()
