"""An HTTP sink of CloudEvents for tests: a real server in a thread."""

import asyncio
import contextlib
import threading
import time

import uvicorn
from cloudevents.http import from_http
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

from serving.local.processes import free_port


class Sink:
    """Takes events, checks that they are CloudEvents, and keeps them.

    Attributes:
        status: what it answers; 204 is a success.
        delay: how long it waits before it answers, in seconds.
        events: by the cloudevents library, each with its raw headers.
    """

    def __init__(self):
        self.status = 204
        self.delay = 0.0
        self.seen = 0
        self.events = []
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/events"
        self._server = None

    async def _take(self, request):
        self.seen += 1
        body = await request.body()
        await asyncio.sleep(self.delay)
        if self.status == 204:
            self.events.append((from_http(dict(request.headers), body), dict(request.headers), body))
        return Response(status_code=self.status)

    def start(self):
        app = Starlette(routes=[Route("/events", self._take, methods=["POST"])])
        self._server = uvicorn.Server(uvicorn.Config(app, port=self.port, log_level="warning", lifespan="off"))
        threading.Thread(target=self._server.run, daemon=True).start()
        while not self._server.started:
            time.sleep(0.01)

    def stop(self):
        if self._server is not None:
            self._server.should_exit = True


@contextlib.contextmanager
def sink():
    """A sink that listens."""
    made = Sink()
    made.start()
    yield made
    made.stop()
