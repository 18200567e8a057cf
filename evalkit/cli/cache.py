"""`evalkit cache`: measure what the semantic cache confuses, and empty the caches."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from evalkit.cli.options import SHARE, common_options, print_json, print_table, say
from evalkit.cli.query import one_line
from evalkit.errors import EXIT_PASS, ConfigError

if TYPE_CHECKING:
    from evalkit.call.cache_audit import Audit, Share

THRESHOLDS = (0.8, 0.85, 0.9, 0.95)
SHOWN_FALSE_HITS = 20


@click.group("cache")
def command() -> None:
    """Measure and empty the response caches."""


@command.command("audit")
@click.argument("pairs", required=False, type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--threshold", type=SHARE, default=0.95, show_default=True,
    help="Cosine from which two texts count as near.",
)  # fmt: skip
@click.option(
    "--vectors", "by", type=click.Choice(["local", "hashed"]),
    help="Who makes the vectors; default: local where its packages are installed.",
)  # fmt: skip
@common_options
def audit_(
    pairs: Path | None,
    threshold: float,
    by: Any,
    as_json: bool,
    store: str | None,
    config: Path | None,
) -> int:
    """Count the semantic cache's false hits on labelled PAIRS.

    PAIRS is a file of one JSON object a line: two texts, and whether one answer serves
    both. Without it, pairs that come with evalkit are used; your own users' texts tell more.

    \b
        {"a": "Cancel my order", "b": "Do not cancel my order", "same": false}
    """
    from evalkit.call.cache_audit import SHIPPED_PAIRS, audit, load_pairs
    from evalkit.call.semantic_cache import embedder, vectors_here

    by = by or vectors_here()
    found = audit(load_pairs(pairs or SHIPPED_PAIRS), threshold=threshold, embed=embedder(by))
    if as_json:
        print_json(_as_json(found, by))
    else:
        _print(found, by)
    return EXIT_PASS


@command.command("clear")
@click.option("--feature", metavar="NAME", help="Only this feature's answers.")
@common_options
def clear(feature: str | None, as_json: bool, store: str | None, config: Path | None) -> int:
    """Delete the kept answers, and their text from the disk."""
    from evalkit.call.cache_storage import clear_cache
    from evalkit.config import load_settings

    settings = load_settings(config)
    if feature is not None and feature not in settings.features:
        known = ", ".join(sorted(settings.features)) or "none"
        raise ConfigError(f"--feature {feature}: no such feature. There are: {known}.")
    deleted = clear_cache(settings.with_store(store), feature)
    say(f"deleted {deleted} kept answer{'' if deleted == 1 else 's'}")
    if as_json:
        print_json({"deleted": deleted, "feature": feature})
    return EXIT_PASS


# --- what an audit looks like ---------------------------------------------------------


def _as_json(found: Audit, by: str) -> dict[str, Any]:
    return {
        "threshold": found.threshold,
        "vectors": by,
        "pairs": len(found.compared),
        "false_hits": _share_json(found.false_hits),
        "true_hits": _share_json(found.true_hits),
        "false_among_hits": _share_json(found.false_among_hits),
        "vectors_alone": {
            "false_hits": _share_json(found.by_vectors_alone(same=False)),
            "true_hits": _share_json(found.by_vectors_alone(same=True)),
        },
        "kinds": [
            {"same": same, "kind": kind, **_share_json(share)}
            for (same, kind), share in found.by_kind().items()
        ],
        "examples": [{"a": a, "b": b, "similarity": near} for a, b, near in _confused(found)],
    }


def _share_json(share: Share) -> dict[str, Any]:
    return {"hits": share.hits, "n": share.n, "share": share.value, "ci": share.ci}


def _confused(found: Audit) -> list[tuple[str, str, float]]:
    """Pairs that need different answers and would share one, the nearest first."""
    false = [
        (one.pair.a, one.pair.b, round(one.similarity, 4))
        for one in found.compared
        if not one.pair.same and one.hits(found.threshold)
    ]
    return sorted(false, key=lambda pair: -pair[2])


def _print(found: Audit, by: str) -> None:
    click.echo(
        f"false hits: {_shown(found.false_hits)} of the pairs that need different answers\n"
        f"true hits:  {_shown(found.true_hits)} of the pairs that may share one\n"
    )
    rows = []
    for threshold in sorted({*THRESHOLDS, found.threshold}):
        at = found.at(threshold)
        alone = (at.by_vectors_alone(same=same) for same in (False, True))
        shares = (at.false_hits, at.true_hits, *alone)
        mark = " *" if threshold == found.threshold else ""
        rows.append((f"{threshold:g}{mark}", *(f"{s.hits}/{s.n}" for s in shares)))
    names = ("threshold", "false hits", "true hits", "by vectors alone: false", "true")
    print_table((), names, rows)
    for a, b, near in _confused(found)[:SHOWN_FALSE_HITS]:
        click.echo(f"\nfalse hit ({near:.3f}):\n  {one_line(a, 200)}\n  {one_line(b, 200)}")
    say(f"{len(found.compared)} pairs, vectors: {by}, intervals: 95 %")


def _shown(share: Share) -> str:
    if share.value is None or share.ci is None:
        return "not known (0 pairs)"
    low, high = share.ci
    return f"{share.value:.1%} ({share.hits}/{share.n}, {low:.1%} to {high:.1%})"
