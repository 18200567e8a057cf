"""`evalkit alerts`: what is wrong in production, for cron, a chat and Prometheus.

Looks, compares with the last look (`alerts.json` in the store), says what is new. The
look is kept only once the webhook has taken it: what was not delivered is sent again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from evalkit.cli.options import Number, common_options, open_project, print_json, warn
from evalkit.cli.periods import moment, now
from evalkit.errors import EXIT_PASS, EXIT_REGRESSION, EXIT_UNMEASURABLE, EvalkitError

if TYPE_CHECKING:
    from evalkit.decide.alerts import Alert, News
    from evalkit.settings import Settings
    from evalkit.store.views import Store


@click.command("alerts")
@click.option(
    "--hours", type=Number(min=0.01, max=168), default=1.0, show_default=True,
    help="Window of failures, latency and cache hits.",
)  # fmt: skip
@click.option("--at", type=moment, metavar="WHEN", help="Look as of then; default: now.")
@click.option(
    "--prometheus", "prometheus", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
    help="Also write metrics for node_exporter's textfile collector.",
)  # fmt: skip
@click.option("--no-webhook", is_flag=True, help="Send nothing, and keep nothing of this look.")
@common_options
def command(
    hours: float,
    at: int | None,
    prometheus: Path | None,
    no_webhook: bool,
    as_json: bool,
    store: str | None,
    config: Path | None,
) -> int:
    """Say what is wrong in production; exit status 1 when something is.

    3 when nothing is seen to be, but some of the last days' calls could not be read.

    Spend against the day before, budgets at 80 and 100 %, failures, latency, cache hits
    and sampled quality, as [alerts] and [budgets] of the configuration say. What is new,
    worse or over again goes to the webhook; what goes on is said once a day.
    """
    from evalkit.decide.alerts import find_alerts
    from evalkit.decide.monitor import quality_alerts
    from evalkit.score.inputs import describe_inputs

    settings, opened = open_project(store, config)
    looked_at = now() if at is None else at
    alerts = find_alerts(opened, settings, now=looked_at, hours=hours)
    is_blind = bool(opened.problems)  # of what lies further back, evalkit drift says so
    describe_inputs(opened, settings.features, now=looked_at)
    least = settings.alerts.min_quality
    alerts += quality_alerts(opened, now=looked_at, min_quality=least)
    if (book := settings.alerts.runbook_url) is not None:
        alerts = [replace(alert, book=book) for alert in alerts]
    warn(opened.problems)
    if prometheus is not None:
        _write_prometheus(prometheus, alerts, looked_at)
    news: News | None = None
    untold: EvalkitError | None = None
    try:
        news = None if no_webhook else _tell(opened, settings, alerts, looked_at)
    except EvalkitError as error:
        untold = error  # whoever reads what is printed here hears of them at least
    if as_json:
        recovered = list(news.recovered) if news else []
        print_json({"firing": [alert.as_json() for alert in alerts], "recovered": recovered})
    else:
        _print(alerts, news)
    if untold is not None:
        raise untold
    if alerts:
        return EXIT_REGRESSION
    return EXIT_UNMEASURABLE if is_blind else EXIT_PASS


def _tell(store: Store, settings: Settings, alerts: Sequence[Alert], at: int) -> News | None:
    """Send what is new, and then remember it; None where there is no store."""
    from evalkit.decide.alerts import STATE, news_since
    from evalkit.exchange.webhook import post_text, webhook_url
    from evalkit.store.files import locked, read_json, write_json

    path = store.path / STATE
    if not store.path.is_dir():
        return None
    env = settings.alerts.webhook_env
    url = webhook_url(env, hosts=settings.alerts.webhook_hosts) if env else None
    with locked(path.with_suffix(".lock"), holder="alerts are being looked for"):
        state = read_json(path) if path.exists() else {}
        news = news_since(state, alerts, now=at)
        if url is not None and (news.say or news.recovered):
            post_text(url, _message(news))
        write_json(path, news.state, replace=True)
    return news


def _message(news: News) -> str:
    from evalkit.exchange.webhook import escaped

    lines = [
        f"*{alert.severity}* {escaped(alert.message)} ({_link(alert.runbook)})"
        for alert in news.say
    ]
    return "\n".join([*lines, *(f"*recovered* {escaped(text)}" for text in news.recovered)])


def _link(runbook: str) -> str:
    """An address that the configuration gives, for Slack to click; else the path."""
    from evalkit.exchange.webhook import escaped

    is_address = runbook.startswith(("https://", "http://"))
    return f"<{runbook}|runbook>" if is_address else escaped(runbook)


def _print(alerts: Sequence[Alert], news: News | None) -> None:
    from evalkit.errors import shown

    for alert in alerts:
        click.echo(f"{alert.severity}: {shown(alert.message)}\n    see {alert.runbook}")
    for text in news.recovered if news else ():
        click.echo(f"recovered: {shown(text)}")
    if not alerts:
        click.echo("nothing fires")


def _write_prometheus(path: Path, alerts: Sequence[Alert], at: int) -> None:
    """Whole or not at all: a collector may read at any moment."""
    from evalkit.store.files import write_whole

    lines = [
        "# HELP evalkit_alerts_looked_at_seconds When alerts were looked for, since 1970.",
        "# TYPE evalkit_alerts_looked_at_seconds gauge",
        f"evalkit_alerts_looked_at_seconds {at / 1e6!r}",
        "# HELP evalkit_alerts_firing Alerts that fire.",
        "# TYPE evalkit_alerts_firing gauge",
        f"evalkit_alerts_firing {len(alerts)}",
    ]
    for name, values in (
        ("value", [alert.value for alert in alerts]),
        ("limit", [alert.limit for alert in alerts]),
    ):
        lines += [f"# HELP evalkit_alert_{name} {name.capitalize()} of an alert that fires."]
        lines += [f"# TYPE evalkit_alert_{name} gauge"]
        for alert, value in zip(alerts, values, strict=True):
            labels = f'key="{_label(alert.key)}",severity="{alert.severity}"'
            lines.append(f"evalkit_alert_{name}{{{labels}}} {value!r}")
    with write_whole(path, replace=True) as file:
        file.write(("\n".join(lines) + "\n").encode("utf-8", errors="replace"))
    path.chmod(0o644)


def _label(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
