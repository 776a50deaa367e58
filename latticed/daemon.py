"""The composition root: the one place that knows every part. Config in, a running daemon out."""

import asyncio
import gc
import os
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from typing import NoReturn

import structlog
import uvicorn
import uvloop

from latticed import __version__, log, plugins
from latticed.agents.command import workplaces
from latticed.agents.orphans import kill_orphans
from latticed.api import protocol
from latticed.api.app import create_app
from latticed.api.exchange import Settings
from latticed.broker import open_broker
from latticed.clock import Clock, SystemClock
from latticed.config import Config, ConfigError
from latticed.engine.admission import Admission
from latticed.engine.containment import make_task
from latticed.engine.dispatcher import Dispatcher
from latticed.engine.executor import Executor
from latticed.engine.limits import Limits
from latticed.engine.pruner import Pruner
from latticed.engine.rescuer import Rescuer
from latticed.engine.scheduler import Scheduler
from latticed.engine.threads import Threads
from latticed.engine.workplaces import Workplaces
from latticed.errors import Conflict, LatticedError, Unavailable
from latticed.failpoints import hit
from latticed.files import write_private, writing
from latticed.heap import Heap
from latticed.heartbeat import Heartbeat
from latticed.hooking import registered
from latticed.hooks.assembly import HookParts
from latticed.hooks.loading import load_hooks
from latticed.ids import BOOT, new
from latticed.lattice import Lattice
from latticed.listening import CannotListen, address, open_doors
from latticed.metrics import Metrics
from latticed.models.people import EVERYWHERE
from latticed.people import DAEMON, make_token, new_token_text
from latticed.signals import Signals
from latticed.store import Store, open_store
from latticed.systemd import Notifier
from latticed.upkeep import store_url

logger = structlog.get_logger()

DEFAULT_WORKSPACE = "default"
ADMIN_TOKEN_FILE = "admin.token"
ADDRESS_FILE = "address"
GOODBYE_SECONDS = 3.0
LAST_SECONDS = 4.5
"""How long after a drain's own time the process is there at the most, whatever still cannot be written or said."""
GC_THRESHOLD = 20_000
"""New objects between two looks of the garbage collector."""
SWITCH_SECONDS = 0.001
"""How long one thread may hold the interpreter while another waits: the writer's thread must get its turn soon."""


class CannotStart(LatticedError):
    """The daemon cannot start."""


class _Server(uvicorn.Server):
    """uvicorn without signal handlers: the daemon drains before it ends the server."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.up = asyncio.Event()

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.up.set()


class Daemon:
    """Every part, wired."""

    def __init__(self, config: Config, store: Store, clock: Clock) -> None:
        self.config = self.started_with = config
        self.store = store
        self.owner = new(BOOT)
        self.broker = open_broker(config.broker.url)
        self.metrics = Metrics()
        self.registry = plugins.Registry(_load_agents(config))
        self.threads = Threads(config.runs.threads)
        self.hooks = HookParts(config, store, clock, self.registry.queues, self.metrics)
        admission = Admission(self.registry, clock)
        removed = self.removed = set[str]()
        self.limits = Limits(
            store=store, clock=clock, settings=config, refused=self._refused,
            ordered=lambda birth: self.dispatcher.seize(birth),
        )  # fmt: skip
        self.executor = Executor(
            store=store, clock=clock, registry=self.registry, settings=config.runs, threads=self.threads,
            admit=admission.admit_child, hooks=self.hooks.asker,
            on_end=lambda x: self.dispatcher.free(x.row.queue, x.run_id),
        )  # fmt: skip
        self.dispatcher = Dispatcher(
            store=store, registry=self.registry, owner=self.owner, concurrency=config.runs.concurrency,
            queues=self.registry.queues(), start=self.executor.start, removed=removed,
        )  # fmt: skip
        self.scheduler = Scheduler(store=store, clock=clock)
        self.rescuer = Rescuer(
            store=store, clock=clock, owner=self.owner, max_recoveries=config.runs.max_recoveries,
            is_live=lambda run_id: run_id in self.executor.live or run_id in self.dispatcher.claiming,
            kill_processes=kill_orphans,
        )  # fmt: skip
        self.pruner = Pruner(
            store=store, clock=clock, retention=config.retention, removed=removed, changed=self.limits.changed,
            gone=self.limits.forget, counted=lambda what, rows: self.metrics.pruned.labels(what).inc(rows),
            clear=Workplaces(workplaces(config.state_dir)).clear,
        )  # fmt: skip
        self.lattice = Lattice(
            store=store, broker=self.broker, clock=clock, registry=self.registry, admission=admission,
            dispatcher=self.dispatcher, executor=self.executor, scheduler=self.scheduler, metrics=self.metrics,
            limits=self.limits, removed=removed, prune=self.pruner.wake,
            hooks=self.hooks.registry, hooks_store=store, receivers=self.hooks.webhooks,
        )  # fmt: skip
        parts = (
            self.metrics,
            self.limits,
            self.executor,
            self.dispatcher,
            self.scheduler,
            self.pruner,
            self.hooks.courier,
            Heap(),
        )
        for part in parts:
            self.broker.listen(part.told)
        store.start(self.broker.publish, self.metrics.observe_commit)
        self.hooks.registry.listen(store.ask_hooks)

    def _refused(self, workspace: str, limit: str) -> None:
        self.metrics.refusals.labels(workspace, limit).inc()

    async def begin(self) -> None:
        """Deals with what another boot left, then takes up work."""
        await self.pruner.find()
        await self.limits.count()
        rows = await self.store.list_registered()
        self.hooks.begin([registered(row) for row in rows if row.workspace not in self.removed])
        if recovered := await self.rescuer.recover():
            logger.info("recovered", runs=recovered)
        self.scheduler.start()
        self.rescuer.start()
        self.limits.start()
        self.pruner.start()
        self.hooks.courier.start()
        await self.dispatcher.fill()
        self.dispatcher.paused = False
        self.dispatcher.wake()

    def reload(self) -> None:
        """Reads the configuration again and takes over what can be: hooks, agents, queues, limits, the log's level.
        What cannot be, and is not what it was at the start, is named in the log.

        Raises:
            LatticedError: the new one cannot be used; nothing has changed.
        """
        config = self.config.reload()
        agents, hooks = _load_agents(config, self.registry.agents), load_hooks(config)
        log.setup(config.log.level)
        self.config = config
        self.registry.replace(agents)
        self.hooks.take(config, hooks)
        self.executor.settings = config.runs
        self.limits.configure(config)
        self.pruner.configure(config.retention)
        self.rescuer.max_recoveries = config.runs.max_recoveries
        self.dispatcher.configure(config.runs.concurrency, self.registry.queues())
        self.dispatcher.refill()
        if keys := self.started_with.fixed_changes(config):
            logger.warning("restart_needed", keys=keys, reason="they were changed, and hold from the next start on")

    async def drain(self, hurry: asyncio.Event) -> None:
        """Ends work as the contract says: nothing new, steps under way end, every run is given back on disk."""
        self.lattice.draining = True
        self.broker.ring_all()  # Whoever waits for a run gets its answer now.
        self.dispatcher.paused = True
        await self.dispatcher.settle()
        await self.scheduler.stop()
        await self.rescuer.stop()
        await self.pruner.stop()
        await self.limits.stop()
        runs = self.config.runs
        await self.executor.drain(0 if hurry.is_set() else runs.drain_seconds, runs.kill_seconds, hurry)
        await self.hooks.finish()

    async def close(self) -> None:
        """Closes what is open; everything ordered is committed."""
        self.threads.close()
        self.hooks.close()
        try:
            async with asyncio.timeout(GOODBYE_SECONDS):
                await self.registry.close()
        except Exception as error:  # A server of somebody else's that does not end does not keep the daemon.
            logger.warning("tools_not_closed", reason=f"{type(error).__name__}: {error}")
        await self.store.close()


def _load_agents(config: Config, before: plugins.Agents | None = None) -> plugins.Agents:
    try:
        return plugins.Agents(config, before)
    except plugins.BadPlugin as error:
        raise ConfigError(error.detail) from error


def serve(config: Config, ready: Callable[[str], None] | None = None) -> NoReturn:
    """Runs the daemon until it is told to stop, and ends the process with 0. `ready` gets the address once it serves.

    Raises:
        ConfigError: an agent cannot be loaded.
        Unavailable: the store is locked by another.
        CannotListen: the address is taken, or none.
        LatticedError: anything else that keeps it from starting.
    """
    sys.setswitchinterval(SWITCH_SECONDS)
    at_work = threading.Event()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            runner.run(_serve(config, ready, at_work))
        except BaseException as error:
            if at_work.is_set():
                _fall(error)
            raise
    raise AssertionError("it ends the process by itself")


def _fall(error: BaseException) -> NoReturn:
    """Ends the process as if it had been killed: what is on disk says how each run goes on. An orderly end would cancel
    the code of all of them, and record that as their failure."""
    if isinstance(error, CannotStart):
        reason = error.detail
    else:
        logger.critical("crashed", exc_info=error)
        reason = f"the daemon has lost its event loop: {traceback.format_exception_only(error)[-1].strip()}"
    print(f"latticed: {reason}", file=sys.stderr, flush=True)
    os._exit(LatticedError.exit_code)


async def _serve(config: Config, ready: Callable[[str], None] | None, at_work: threading.Event) -> NoReturn:
    """Serves until told to stop, then ends the process. Sets `at_work` when it takes up runs."""
    asyncio.get_running_loop().set_task_factory(make_task)
    signals = Signals()
    notifier = Notifier()
    clock = SystemClock()
    store = await open_store(store_url(config), clock, busy_seconds=config.store.busy_seconds)
    address_file = config.state_dir / ADDRESS_FILE
    with writing(address_file):
        address_file.unlink(missing_ok=True)  # Only now: until the lock was ours it may have been another's,
    doors = open_doors(config.server)  # and the door as well.
    daemon = Daemon(config, store, clock)
    try:
        await _first_start(config, store, clock, daemon.lattice)
        at_work.set()
        await daemon.begin()
    except Unavailable as error:  # It was opened and then lost, which is not another's doing.
        raise CannotStart(f"cannot start: {error.detail}") from error
    # What is there now stays: the collector need not walk it again and again, nor look after every 700 objects.
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD, 20, 20)
    server = _server(daemon, config)
    serving = asyncio.ensure_future(server.serve(sockets=doors))
    up = asyncio.ensure_future(server.up.wait())
    await asyncio.wait((serving, up), return_when=asyncio.FIRST_COMPLETED)
    if serving.done():
        serving.result()
        raise CannotListen("the HTTP server did not start")
    hit("door.before_address")
    where = address(doors[0])
    write_private(address_file, where + "\n", 0o644)
    notifier.ready(where)
    heartbeat = Heartbeat(notifier, store)
    heartbeat.start()
    logger.info("ready", address=where, version=__version__, pid=os.getpid())
    if ready is not None:
        ready(where)
    signals.on_reload = lambda: _reload(daemon, notifier, where)
    stop = asyncio.ensure_future(signals.stop.wait())
    await asyncio.wait((serving, stop), return_when=asyncio.FIRST_COMPLETED)
    if serving.done():
        logger.error("server_died", exc_info=serving.exception())
    notifier.stopping("draining")
    logger.info("draining", live=len(daemon.executor.live))
    runs = daemon.config.runs
    asyncio.get_running_loop().call_later(runs.drain_seconds + runs.kill_seconds + LAST_SECONDS, _leave, "cut short")
    await daemon.drain(signals.hurry)
    hit("drain.after")
    daemon.lattice.say_goodbye()
    server.should_exit = True
    try:
        async with asyncio.timeout(GOODBYE_SECONDS + 1):
            await serving
    except TimeoutError:
        logger.warning("connections_cut")
    await heartbeat.stop()
    await daemon.lattice.notes.close()
    await daemon.close()
    address_file.unlink(missing_ok=True)
    _leave("whole")


def _leave(drain: str) -> NoReturn:
    """Ends the process. Code that was given up may still run, and a normal exit would wait for it; and once the loop
    has given its signal handlers back, one more signal would end the process with another code than 0."""
    logger.info("stopped", drain=drain)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _reload(daemon: Daemon, notifier: Notifier, where: str) -> None:
    notifier.reloading()
    status = where
    try:
        daemon.reload()
        logger.info("reloaded")
    except LatticedError as error:
        logger.error("reload_refused", reason=error.detail)
        status = f"{where}; reload refused: {error.detail}"  # systemctl reload only sends a signal and tells nothing.
    notifier.ready(status)


def _server(daemon: Daemon, config: Config) -> _Server:
    app = create_app(
        daemon.lattice,
        Settings(
            request_limit_bytes=config.server.request_limit_bytes,
            request_seconds=config.server.request_seconds,
            ping_seconds=config.server.ping_seconds,
            version=__version__,
        ),
    )
    return _Server(
        uvicorn.Config(
            app, http=protocol(config.server.request_seconds), ws="none", lifespan="off", access_log=False,
            log_config=None, proxy_headers=False, server_header=False, date_header=True, backlog=2048,
            timeout_graceful_shutdown=int(GOODBYE_SECONDS),
            timeout_keep_alive=75, h11_max_incomplete_event_size=64 * 1024,
        )
    )  # fmt: skip


async def _first_start(config: Config, store: Store, clock: Clock, lattice: Lattice) -> None:
    """The default workspace and the admin's token, unless they are there."""
    if not await store.has_workspace(DEFAULT_WORKSPACE):
        with suppress(Conflict):  # It was removed, and is not wholly gone: a later start makes it again.
            await store.create_workspace(DEFAULT_WORKSPACE, DAEMON)
    token_file = config.state_dir / ADMIN_TOKEN_FILE
    if not await store.has_tokens():  # The file first: if it is not followed by the row, the next start does both.
        text = new_token_text()
        write_private(token_file, text + "\n", 0o600)
        hit("token.after_file")
        await make_token(
            store, clock, workspace=EVERYWHERE, role="admin", name="admin", lanes=None, expires_seconds=None, by=DAEMON,
            text=text,
        )  # fmt: skip
