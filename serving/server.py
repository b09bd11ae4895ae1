"""The model server of one revision: KServe's V1 and V2 protocols over HTTP.

Run as ``python -m serving.server --bundle DIR --name NAME --port N``. It is live as soon as it listens, and ready
(``/v2/models/NAME/ready``) once the bundle has verified, loaded and made a prediction. SIGTERM lets requests in flight
finish, then it exits with 0. ``/metrics`` is for Prometheus.
"""

import argparse
import asyncio
import errno
import logging
import signal
import socket
import sys
import warnings
from pathlib import Path

from components.errors import SluicewayError
from serving import faults
from serving.log import to_standard_error

log = logging.getLogger("sluiceway.serving")

PORT_TAKEN = 98
"""Exit code when the port is in use: the one failure that another try with another port mends."""
GRACE_SECONDS = 30


def main() -> int:
    """Serve until told to stop; the last line on standard error says why it failed."""
    arguments = _arguments()
    sys.argv = sys.argv[:1]  # kserve parses it when imported
    to_standard_error(arguments.log)
    log.setLevel(logging.INFO)
    # kserve answers with a response class that FastAPI deprecates; nothing a reader of this log can mend.
    warnings.filterwarnings("ignore", message="ORJSONResponse is deprecated")
    try:
        listener = _listen(arguments.host, arguments.port)
    except OSError as error:
        print(f"Port {arguments.port} on {arguments.host} cannot be used: {error.strerror}.", file=sys.stderr)
        return PORT_TAKEN if error.errno == errno.EADDRINUSE else 1
    try:
        asyncio.run(_serve(arguments, listener))
    except SluicewayError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        return error.exit_code
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="serving.server", description="Serve one model bundle.")
    parser.add_argument("--bundle", type=Path, required=True, help="folder of the bundle")
    parser.add_argument("--name", required=True, help="model name in the URLs")
    parser.add_argument(
        "--revision", default="", help="label of the metrics, version in the replies (default: by the pod it runs in)"
    )
    parser.add_argument("--port", type=int, required=True, help="port to listen on")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    forms = ("text", "json")
    parser.add_argument("--log", choices=forms, default="text", help="form of the log (default: %(default)s)")
    return parser.parse_args()


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    # uvicorn writes head and body apart, so without this every reply waits 40 ms for a delayed acknowledgement;
    # asyncio sets it by itself only on sockets that it made.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError:
        listener.close()
        raise
    return listener


async def _serve(arguments: argparse.Namespace, listener: socket.socket) -> None:
    """Listen, load the model meanwhile, and serve until SIGTERM or until the model fails to load.

    Raises:
        BadBundle: the bundle cannot be served.
        BadInput: the faults to inject do not read.
    """
    injected = faults.from_environment()

    import uvicorn

    from serving.kserve_model import BundleModel, rest_application
    from serving.telemetry import ObservedApp, Telemetry, own_revision

    revision = arguments.revision or own_revision(arguments.name)
    telemetry = Telemetry(arguments.name, revision)
    model = BundleModel(arguments.name, revision, arguments.bundle, telemetry)
    config, app = rest_application(model, arguments.host, arguments.port, GRACE_SECONDS)
    if injected:
        log.warning("FAULTS ARE INJECTED, as %s asks: %s", faults.VARIABLE, injected)
        config.app = ObservedApp(faults.FaultyApp(app, injected), telemetry)
    else:
        config.app = ObservedApp(app, telemetry)
    server = uvicorn.Server(config)

    def leave(*_: object) -> None:
        server.should_exit = True

    # uvicorn drains on these signals, then raises them again for whoever listened before: this handler, so that the
    # process exits with 0.
    signal.signal(signal.SIGTERM, leave)
    signal.signal(signal.SIGINT, leave)
    loading = asyncio.create_task(model.start_up())
    loading.add_done_callback(lambda task: leave() if task.cancelled() or task.exception() else None)
    await server.serve(sockets=[listener])
    if loading.done():
        loading.result()


if __name__ == "__main__":
    sys.exit(main())
