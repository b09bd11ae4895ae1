"""The model server of one revision: KServe's V1 and V2 protocols over HTTP.

Run as ``python -m serving.server --bundle DIR --name NAME --port N``. It is live as soon as it listens, and ready
(``/v2/models/NAME/ready``) once the bundle has verified, loaded and made a prediction. SIGTERM lets requests in flight
finish, then it exits with 0. ``/metrics`` is for Prometheus.
"""

import argparse
import errno
import logging
import sys
from pathlib import Path

from components.errors import SluicewayError
from serving.log import to_standard_error
from serving.server import PORT_TAKEN
from serving.server.settings import Settings

log = logging.getLogger("sluiceway.serving")


def main() -> int:
    """Serve until told to stop; the last line on standard error says why it failed."""
    arguments = _arguments()
    to_standard_error(arguments.log)
    log.setLevel(logging.INFO)
    from serving.server.process import listen, serve
    from serving.server.telemetry import own_revision

    try:
        listener = listen(arguments.host, arguments.port)
    except OSError as error:
        print(f"Port {arguments.port} on {arguments.host} cannot be used: {error.strerror}.", file=sys.stderr)
        return PORT_TAKEN if error.errno == errno.EADDRINUSE else 1
    settings = Settings(
        bundle=arguments.bundle,
        name=arguments.name,
        revision=arguments.revision or own_revision(arguments.name),
        host=arguments.host,
        port=arguments.port,
    )
    try:
        serve(settings, listener)
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


if __name__ == "__main__":
    sys.exit(main())
