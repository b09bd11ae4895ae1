"""Several serving processes behind one port: a parent that starts them, starts them again, and ends them.

The parent binds one socket per worker to the same address; the kernel spreads connections over them by hash. It keeps
all of them open, so that a worker's death loses only what was in flight in it: connections that wait at its place are
accepted by another worker until its successor is ready.

Workers are forked from a parent that has the code loaded but no model, no thread and no event loop: they share its
memory pages, and begin at once.
"""

import gc
import json
import logging
import os
import selectors
import signal
import socket
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any, NamedTuple, NoReturn

from components.errors import SluicewayError
from serving.server import sockets
from serving.server.announce import announce
from serving.server.counters import Board
from serving.server.process import Post, serve
from serving.server.settings import Settings
from serving.server.telemetry import Metrics

log = logging.getLogger("sluiceway.serving")

_LONGEST_BACKOFF = 10.0
_FIRST_BACKOFF = 0.2
_STEADY_SECONDS = 10.0
"""A worker that lasted so long is started again at once; others after a while that grows."""
_EXTRA_SECONDS = 5.0
_SIGNALS = (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@dataclass
class _Worker:
    """A worker process."""

    place: int
    pid: int
    channel: socket.socket
    since: float
    is_ready: bool = False
    heard: bytes = b""
    adopted: set[int] = field(default_factory=set)


@dataclass
class _Order:
    """What a client asked to be done in all workers."""

    asker: _Worker
    number: int
    verb: str
    name: str
    step: str = ""
    waiting: set[int] = field(default_factory=set)
    problem: tuple[int, str] = (200, "")


class _Ended(NamedTuple):
    """Why the server ends: its exit code, and what is to be said last."""

    code: int
    said: str


class Workers:
    """The parent."""

    def __init__(self, settings: Settings, listeners: tuple[socket.socket, ...]) -> None:
        """Prepare to start a worker for each socket."""
        self._settings = settings
        self._listeners = listeners
        self._count = len(listeners)
        self._board = Board(self._count + 1)
        self._metrics = Metrics(self._board, self._count)
        self._workers: dict[int, _Worker] = {}
        self._due: dict[int, float] = dict.fromkeys(range(self._count), 0.0)
        self._strikes = [0] * self._count
        self._unloaded: set[str] = set()
        self._found: set[str] = set()
        self._orders: deque[_Order] = deque()
        self._selector = selectors.PollSelector()  # epoll's would be shared with the children
        self._wake, self._woken = socket.socketpair()
        self._ended: _Ended | None = None
        self._deadline = float("inf")
        self._is_announced = False

    def run(self) -> int:
        """Serve until told to stop; gives the exit code."""
        self._catch_signals()
        gc.collect()
        gc.freeze()  # the collector would write to, and so copy, every page that workers share
        while self._workers or self._ended is None:
            self._start_due()
            for key, _ in self._selector.select(self._pause()):
                if key.data is None:
                    self._wake.recv(4096)
                else:
                    self._hear(key.data)
            self._reap()
            if time.monotonic() > self._deadline:
                self._deadline = float("inf")
                self._kill(signal.SIGKILL)
        if self._ended.said:
            print(self._ended.said, file=sys.stderr, flush=True)
        return self._ended.code

    def _catch_signals(self) -> None:
        self._wake.setblocking(False)
        self._woken.setblocking(False)
        signal.set_wakeup_fd(self._woken.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._end(_Ended(0, "")))
        if self._settings.has_secrets:
            signal.signal(signal.SIGHUP, lambda *_: self._kill(signal.SIGHUP))
        self._selector.register(self._wake, selectors.EVENT_READ, None)

    def _pause(self) -> float | None:
        moments = [self._deadline] if self._ended else list(self._due.values())
        return max(0.0, min(moments) - time.monotonic()) if moments and min(moments) < float("inf") else None

    def _end(self, ended: _Ended) -> None:
        """Have the workers drain."""
        if self._ended is not None:
            return
        self._ended = ended
        self._deadline = time.monotonic() + self._settings.drain_seconds + self._settings.grace_seconds + _EXTRA_SECONDS
        for worker in self._workers.values():
            self._say(worker, do="end")
        self._kill(signal.SIGTERM)  # one that is only starting does not listen yet

    def _kill(self, number: signal.Signals) -> None:
        for worker in self._workers.values():
            os.kill(worker.pid, number)

    # Starting and ending.

    def _start_due(self) -> None:
        now = time.monotonic()
        for place, moment in list(self._due.items()):
            if moment <= now and self._ended is None:
                del self._due[place]
                self._start(place)

    def _start(self, place: int) -> None:
        ours, theirs = socket.socketpair()
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)  # until the child has handlers of its own
        pid = os.fork()
        if pid == 0:
            ours.close()
            self._be_worker(place, theirs)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        theirs.close()
        ours.setblocking(False)
        worker = _Worker(place, pid, ours, time.monotonic())
        self._workers[place] = worker
        self._selector.register(ours, selectors.EVENT_READ, worker)
        self._metrics.workers(len(self._workers))

    def _be_worker(self, place: int, channel: socket.socket) -> NoReturn:
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            for number in _SIGNALS:
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            for other in self._workers.values():
                other.channel.close()
            self._wake.close()
            self._woken.close()
            spare = channel.dup()
            is_first = not self._board.are_ready(self._count)
            post = Post(place, self._listeners, self._board, channel, is_first, self._unloaded, self._found)
            try:
                serve(self._settings, post)
                code = 0
            except SluicewayError as error:
                failed = {"failed": f"{type(error).__name__}: {error}", "code": error.exit_code}
                spare.sendall(json.dumps(failed).encode() + b"\n")
        except BaseException:
            log.exception("A worker failed")
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def _reap(self) -> None:
        for worker in list(self._workers.values()):
            pid, status, used = os.wait4(worker.pid, os.WNOHANG)
            if pid:
                self._hear(worker)  # its last words
                self._gone(worker, os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime)

    def _gone(self, worker: _Worker, code: int, cpu_seconds: float) -> None:
        place = worker.place
        self._selector.unregister(worker.channel)
        worker.channel.close()
        del self._workers[place]
        self._board.release(place)
        self._metrics.ended(cpu_seconds)
        self._metrics.workers(len(self._workers))
        self._done(place, (200, ""))  # an order does not wait for it; its successor loads what is there then
        if self._ended is not None:
            return
        lasted = time.monotonic() - worker.since
        self._strikes[place] = 0 if lasted > _STEADY_SECONDS else self._strikes[place] + 1
        wait = (
            min(_LONGEST_BACKOFF, _FIRST_BACKOFF * 2 ** (self._strikes[place] - 2)) if self._strikes[place] > 1 else 0
        )
        self._due[place] = time.monotonic() + wait
        self._metrics.restarted()
        how = f"by signal {-code}" if code < 0 else f"with code {code}"
        log.warning("Worker %d (process %d) ended %s; another starts in %.1f s", place, worker.pid, how, wait)
        for orphan in {place, *worker.adopted}:
            self._adopt(orphan)

    def _adopt(self, place: int) -> None:
        """Have a worker accept the connections of a place whose own is gone, or is not ready again."""
        if place in self._workers and self._workers[place].is_ready:
            return
        others = [worker for worker in self._workers.values() if worker.place != place]
        others.sort(key=lambda worker: (not worker.is_ready, len(worker.adopted)))
        if others:
            others[0].adopted.add(place)
            self._say(others[0], do="adopt", place=place)

    # Talking.

    def _hear(self, worker: _Worker) -> None:
        while True:
            try:
                heard = worker.channel.recv(65_536)
            except BlockingIOError:
                break
            except OSError:
                heard = b""
            if not heard:
                break
            worker.heard += heard
        *lines, worker.heard = worker.heard.split(b"\n")
        for line in lines:
            self._heard(worker, json.loads(line))

    def _heard(self, worker: _Worker, said: dict[str, Any]) -> None:
        if "ready" in said:
            self._is_ready(worker, said["ready"])
        elif "failed" in said:
            self._failed(said["failed"], said["code"])
        elif "ask" in said:
            self._orders.append(_Order(worker, said["number"], said["ask"], said["name"]))
            self._next_order()
        elif "done" in said:
            self._done(worker.place, (said["done"], said["said"]))

    def _is_ready(self, worker: _Worker, models: list[dict[str, str]]) -> None:
        worker.is_ready = True
        for other in self._workers.values():
            if worker.place in other.adopted:
                other.adopted.discard(worker.place)
                self._say(other, do="release", place=worker.place)
        if self._settings.announce and not self._is_announced and self._board.are_ready(self._count):
            self._is_announced = True
            announce(self._settings, sockets.port_of(self._listeners[0]), models)

    def _failed(self, said: str, code: int) -> None:
        """A worker cannot serve. The first time this ends the server; later others go on with what they have."""
        if self._board.are_ready(self._count):
            log.error("A worker cannot serve: %s", said)
        else:
            self._end(_Ended(code, said))

    def _say(self, worker: _Worker, **what: Any) -> None:
        try:
            worker.channel.sendall(json.dumps(what).encode() + b"\n")
        except OSError:
            log.debug("Worker %d is gone", worker.place)  # which is noticed as it is reaped

    # Orders: one after the other, each in all workers.

    def _next_order(self) -> None:
        if self._orders and not self._orders[0].step:
            order = self._orders[0]
            self._step(order, "prepare" if order.verb == "load" else "unload")

    def _step(self, order: _Order, step: str) -> None:
        order.step = step
        order.waiting = set(self._workers)
        for worker in self._workers.values():
            self._say(worker, do=step, name=order.name)
        if not order.waiting:
            self._finish(order)

    def _done(self, place: int, outcome: tuple[int, str]) -> None:
        if not self._orders or place not in self._orders[0].waiting:
            return
        order = self._orders[0]
        order.waiting.discard(place)
        if outcome[0] != 200:
            order.problem = outcome
        if order.waiting:
            return
        if order.step == "prepare" and order.problem[0] == 200:
            self._step(order, "commit")
            return
        if order.step == "prepare":
            for worker in self._workers.values():
                self._say(worker, do="abandon", name=order.name)
        self._finish(order)

    def _finish(self, order: _Order) -> None:
        status, said = order.problem
        if status == 200 and order.verb == "load":
            self._unloaded.discard(order.name)
            if order.name not in self._settings.models:
                self._found.add(order.name)
        elif status == 200:
            self._unloaded.add(order.name)
        if self._workers.get(order.asker.place) is order.asker:
            self._say(order.asker, answer=order.number, status=status, said=said)
        self._orders.popleft()
        self._next_order()


def run(settings: Settings, listeners: tuple[socket.socket, ...]) -> int:
    """Serve with a worker for each socket until told to stop; gives the exit code."""
    return Workers(settings, listeners).run()
