"""The crew as actors on a Ray cluster; the one module that knows Ray (extra `ray`).

    with ray_cluster("local", workers=8) as cluster:
        run_golden_sets(settings, request, crew_of=cluster.crew_of_run)

Each worker is an async actor that does many tasks at once. Budget and gates are in one more
actor beside the driver. When the driver ends, however it ends, all of them end.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Any, TypeVar

from evalkit import __version__
from evalkit.call.budget import Budget
from evalkit.call.sharing import Sharing
from evalkit.cluster.crew import Crew, Hand, Lost
from evalkit.cluster.jobs import DoTask, Job, Line, RunJob, SampleJob
from evalkit.cluster.shared import SharedBudget, SharedGate, SharedLimits
from evalkit.config import Settings
from evalkit.errors import ConfigError, EvalkitError
from evalkit.log_sampling import PreparedSample, SampleRequest
from evalkit.score.online import Do as DoWork
from evalkit.score.online import SamplePlan
from evalkit.score.runner import Do as DoUnit
from evalkit.wiring import PreparedRun, RunRequest

T = TypeVar("T")
LOCAL = "local"
MOST_MESSAGES = 100_000
"""That wait at the limits at once: every task in flight has one or two."""
CLOSE_S = 10.0


@contextmanager
def ray_cluster(address: str, *, workers: int | None = None) -> Iterator[RayCluster]:
    """Connect to the cluster at `address` (HOST:PORT or `auto`), or start one here (`local`).

    A program that is connected already stays so. Raises ConfigError where Ray is not
    installed, or there is no such cluster.
    """
    ray = _import_ray()
    is_ours = not ray.is_initialized()
    if is_ours:
        _connect(ray, address)
    try:
        cpus = int(ray.cluster_resources().get("CPU", 1))
        yield RayCluster(ray=ray, workers=workers or max(1, cpus))
    finally:
        if is_ours:
            ray.shutdown()


def _import_ray() -> ModuleType:
    # Else a cluster that is started here tells its makers about itself every hour.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        return import_module("ray")
    except ImportError:
        raise ConfigError("--ray needs Ray. Install it: pip install 'evalkit[ray]'") from None


def _connect(ray: ModuleType, address: str) -> None:
    if address.startswith("ray://"):
        raise ConfigError(
            f"--ray {address}: Ray's client protocol cannot be used. Run this on a machine of the "
            "cluster with --ray auto, for example by: ray job submit -- evalkit run --ray auto"
        )
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    here = {"include_dashboard": False} if address == LOCAL else {}
    try:
        ray.init(address=address, **quiet, **here)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise ConfigError(f"--ray {address}: {error}") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class RayCluster:
    """A cluster that this process is connected to, and how many workers to have there."""

    ray: ModuleType
    workers: int

    @asynccontextmanager
    async def crew_of_run(
        self, settings: Settings, request: RunRequest, prepared: PreparedRun
    ) -> AsyncIterator[DoUnit]:
        """Workers that run the cases of a plan."""
        plan = prepared.plan
        job = RunJob.of(settings, request, prepared)
        async with self._working(job, plan.budget, plan.concurrency) as do:
            yield lambda unit: do(job.name_of(unit))

    @asynccontextmanager
    async def crew_of_sample(
        self,
        settings: Settings,
        request: SampleRequest,
        prepared: PreparedSample,
        plan: SamplePlan,
    ) -> AsyncIterator[DoWork]:
        """Workers that ask the judges of a sampling job."""
        job = SampleJob.of(settings, request, prepared, plan)
        async with self._working(job, plan.budget, plan.concurrency) as do:
            yield lambda work: do(job.name_of(work))

    @asynccontextmanager
    async def _working(
        self, job: Job, budget: Budget | None, in_flight: int
    ) -> AsyncIterator[DoTask]:
        ray = self.ray
        limits = (
            ray.remote(SharedLimits)
            .options(num_cpus=0, max_concurrency=MOST_MESSAGES, scheduling_strategy=_here(ray))
            .remote(job.settings.providers, budget)
        )
        start = ray.remote(Worker).options(
            num_cpus=1, max_concurrency=in_flight + 2, scheduling_strategy="SPREAD"
        )

        async def hire(number: int) -> Hand:
            name = str(number)
            hand = RayHand(ray, start.remote(name, limits), name, limits)
            try:
                await hand.prepare(job)
            except BaseException:
                await hand.dismiss()
                raise
            return hand

        try:
            async with Crew(hire, size=self.workers) as crew:
                yield crew.do
        finally:
            ray.kill(limits)


def _here(ray: ModuleType) -> Any:
    """On the driver's machine: the limits are gone with it, and with nobody else."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    node = ray.get_runtime_context().get_node_id()
    return NodeAffinitySchedulingStrategy(node, soft=False)


class RayHand:
    """A worker, seen from the driver."""

    def __init__(self, ray: ModuleType, actor: Any, name: str, limits: Any) -> None:
        self._ray, self._actor, self._name, self._limits = ray, actor, name, limits

    async def prepare(self, job: Job) -> None:
        await self._answer(self._actor.prepare.remote(job))

    async def work(self, task: Any) -> Line | None:
        return await self._answer(self._actor.work.remote(task))  # type: ignore[no-any-return]

    async def dismiss(self) -> None:
        """Let it close what it has open, if it lives, and end it; what it had is given back."""
        try:
            async with asyncio.timeout(CLOSE_S):
                await self._actor.close.remote()
        except (TimeoutError, self._ray.exceptions.RayError):
            pass
        self._ray.kill(self._actor)
        try:
            await self._limits.lose.remote(self._name)
        except self._ray.exceptions.RayError:
            pass

    async def _answer(self, asked: Awaitable[Any]) -> Any:
        """What the worker answers. Raises what it raised there, Lost when it is gone."""
        errors = self._ray.exceptions
        try:
            answer = await asked
        except errors.RayTaskError:
            raise  # of the work; also when it is that the limits are gone
        except (errors.RayActorError, errors.ObjectLostError, errors.OutOfMemoryError) as error:
            raise Lost(str(error)) from error
        if isinstance(answer, EvalkitError):
            raise answer
        return answer


class Worker:
    """The actor: prepares the job from its machine's copy of the project, and does tasks."""

    def __init__(self, name: str, limits: Any) -> None:
        self._name, self._limits = name, limits
        self._open = AsyncExitStack()
        self._do: DoTask | None = None

    async def prepare(self, job: Job) -> EvalkitError | None:
        if job.version != __version__:
            return ConfigError(
                f"a worker has evalkit {__version__}, the driver {job.version}. Install the same."
            )
        work = job.at_work(self._sharing(job))
        return await _as_value(self._keep(self._open.enter_async_context(work)))

    async def _keep(self, opened: Awaitable[DoTask]) -> None:
        self._do = await opened

    async def work(self, task: Any) -> Line | EvalkitError | None:
        assert self._do is not None
        return await _as_value(self._do(task))

    async def close(self) -> None:
        await self._open.aclose()

    def _sharing(self, job: Job) -> Sharing:
        name, ask = self._name, self._ask
        return Sharing(
            budget=SharedBudget(ask, name) if job.has_budget else None,
            gates=lambda settings: SharedGate(settings, ask, name),
        )

    def _ask(self, method: str, /, *arguments: Any) -> Awaitable[Any]:
        answer: Callable[..., Awaitable[Any]] = getattr(self._limits, method).remote
        return answer(*arguments)


async def _as_value(work: Awaitable[T]) -> T | EvalkitError:
    """Our own errors are values here: Ray would wrap them, traceback and all."""
    try:
        return await work
    except EvalkitError as error:
        return error
