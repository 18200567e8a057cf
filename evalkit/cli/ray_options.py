"""`--ray` and `--workers`: the work of a command on a Ray cluster."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from typing import TYPE_CHECKING, Any, TypeVar

import click

from evalkit.cli.options import count, say

if TYPE_CHECKING:
    from evalkit.cluster.on_ray import RayCluster

F = TypeVar("F", bound=Callable[..., Any])


def ray_options(function: F) -> F:
    """`--ray ADDRESS` and `--workers N`, in this order."""
    for option in (
        click.option(
            "--workers",
            type=click.IntRange(1, 10_000),
            metavar="N",
            help="With --ray: processes; default: one for each CPU of the cluster.",
        ),
        click.option(
            "--ray",
            metavar="ADDRESS",
            help="On a Ray cluster: HOST:PORT, auto, or local to start one here.",
        ),
    ):
        function = option(function)
    return function


@contextmanager
def cluster_at(ray: str | None, workers: int | None) -> Iterator[RayCluster | None]:
    """The cluster asked for, connected before anything is written; None when none is."""
    if ray is None:
        if workers is not None:
            raise click.UsageError("--workers belongs to --ray. Add it, or leave both.")
        yield None
        return
    from evalkit.cluster.on_ray import ray_cluster

    # Ray prints there what happens in the cluster; there is to be the command's result alone.
    with redirect_stdout(sys.stderr), ray_cluster(ray, workers=workers) as cluster:
        say(f"ray {ray}: {count(cluster.workers, 'worker')}")
        yield cluster
