"""The model server of one revision: KServe's V1 and V2 protocols over HTTP.

Run as ``python -m serving.server --bundle DIR --name NAME --port N``. It is live as soon as it listens, and ready
(``/v2/models/NAME/ready``) once the bundle has verified, loaded and made a prediction. SIGTERM lets requests in flight
finish, then it exits with 0. ``/metrics`` is for Prometheus.

Every option can be given by a variable as well: ``SLUICEWAY_SERVE_`` and its name, as in ``SLUICEWAY_SERVE_WORKERS``.
"""

import argparse
import errno
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from components.errors import BadInput, SluicewayError
from serving.log import to_standard_error
from serving.server import PORT_TAKEN
from serving.server.limits import Limits
from serving.server.settings import THREADS, Settings

log = logging.getLogger("sluiceway.serving")

PREFIX = "SLUICEWAY_SERVE_"
_POOLS = (
    "OMP_NUM_THREADS",  # scikit-learn, PyTorch
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "TF_NUM_INTRAOP_THREADS",
    "TF_NUM_INTEROP_THREADS",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until told to stop; the last line on standard error says why it failed."""
    given = parser(os.environ).parse_args(arguments)
    to_standard_error(given.log)
    log.setLevel(logging.INFO)
    _limit_threads(given.threads)
    try:
        return _serve(_settings(given))
    except SluicewayError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        return error.exit_code


def _serve(settings: Settings) -> int:
    from serving.server import process, sockets, workers

    try:
        port = settings.port
        listeners = sockets.listen(settings.host, port, settings.workers)
        port = settings.grpc_port
        reserved = sockets.reserve(settings.host, port) if port else None  # noqa: F841 - kept open while it serves
    except OSError as error:
        print(f"Port {port} on {settings.host} cannot be used: {error.strerror}.", file=sys.stderr)
        return PORT_TAKEN if error.errno == errno.EADDRINUSE else 1
    if settings.workers > 1:
        return workers.run(settings, listeners)
    process.serve(settings, process.Post(0, listeners))
    return 0


def _limit_threads(threads: int) -> None:
    """Tell the frameworks, which read it as they are imported. What the environment says already counts more."""
    os.environ[THREADS] = str(threads)
    for pool in _POOLS:
        os.environ.setdefault(pool, str(threads))


def _settings(given: argparse.Namespace) -> Settings:
    from serving.server import cpus, found

    if given.key is not None and given.certificate is None:
        raise BadInput("--tls-key needs --tls-certificate.")
    models, root = found.models(given.bundle, given.name)
    return Settings(
        models=models,
        root=root,
        revision=given.revision,
        host=given.host,
        port=given.port,
        grpc_port=given.grpc_port,
        workers=given.workers or cpus.available(),
        model_control=given.model_control,
        tokens=given.tokens,
        token_for_metrics=given.token_for_metrics,
        certificate=given.certificate,
        key=given.key,
        announce=given.announce,
        drain_seconds=given.drain_seconds,
        grace_seconds=given.grace_seconds,
        limits=Limits(
            body_bytes=given.max_body_bytes,
            rows=given.max_rows,
            waiting=given.max_waiting,
            waiting_seconds=given.max_waiting_seconds,
            connections=given.max_connections,
            seconds=given.request_seconds,
            explain_seconds=given.explain_seconds,
            idle_seconds=given.idle_seconds,
        ),
    )


def parser(environment: Mapping[str, str], program: str = "serving.server") -> argparse.ArgumentParser:
    """The options, with defaults from variables; ``sluiceway serve`` has the same.

    Args:
        environment: where the variables are.
        program: name in the help.
    """
    made = _Parser(prog=program, description="Serve model bundles.", allow_abbrev=False)
    made.environment = environment
    made.option("--bundle", type=Path, required=True, help="folder of the bundle, or of several, each a model")
    made.option("--name", default="", help="model name in the URLs (default: the name of the bundle's folder)")
    made.option(
        "--revision", default="", help="label of the metrics, version in the replies (default: by the pod it runs in)"
    )
    made.option("--port", type=_whole(0, 65_535), required=True, help="port to listen on; 0 takes a free one")
    made.option(
        "--grpc-port", type=_whole(0, 65_535), default=0, help="port of gRPC, KServe's is 8081 (default: no gRPC)"
    )
    made.option("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    made.option("--log", choices=("text", "json"), default="text", help="form of the log (default: %(default)s)")
    made.option(
        "--workers", type=_whole(0), default=1, help="processes; 0 for one per processor (default: %(default)s)"
    )
    made.option(
        "--threads",
        type=_whole(1),
        default=1,
        help="threads within one prediction, per process (default: %(default)s, best for small requests)",
    )
    made.option(
        "--model-control",
        choices=("none", "explicit"),
        default="none",
        help="explicit: clients may load and unload models (default: %(default)s)",
    )
    made.option("--announce", action="store_true", help="say on standard output how to try it, once it is ready")
    _secure(made)
    _limit(made)
    return made


def _secure(made: "_Parser") -> None:
    group = made.add_argument_group("security", "files are read again when they change")
    made.option("--tokens-file", into=group, dest="tokens", type=Path, help="bearer tokens, one a line, or sha256:HEX")
    made.option("--token-for-metrics", into=group, action="store_true", help="/metrics needs a token, too")
    made.option("--tls-certificate", into=group, dest="certificate", type=Path, help="PEM file; with it, HTTPS only")
    made.option("--tls-key", into=group, dest="key", type=Path, help="PEM file (default: in the certificate's)")


def _limit(made: "_Parser") -> None:
    limits = Limits()
    group = made.add_argument_group("limits", "of a request, and of one process")
    sizes = [
        ("--max-body-bytes", limits.body_bytes, "longest body; then 413"),
        ("--max-rows", limits.rows, "most rows of one request; then 400"),
        ("--max-waiting", limits.waiting, "most requests that wait for the model; then 503 with Retry-After"),
        ("--max-connections", limits.connections, "most open connections; then 503"),
    ]
    for name, size, text in sizes:
        made.option(name, into=group, type=_whole(1), default=size, help=f"{text} (default: %(default)s)")
    times = [
        ("--request-seconds", limits.seconds, "for a request to arrive, then 408; to wait for the model, then 503"),
        ("--max-waiting-seconds", limits.waiting_seconds, "that the model takes for what waits; then 503, too"),
        ("--explain-seconds", limits.explain_seconds, "for one explanation, which is as good as it is by then"),
        ("--idle-seconds", limits.idle_seconds, "without a request until a connection is closed"),
        ("--drain-seconds", Settings.drain_seconds, "after SIGTERM, in which connections are still accepted"),
        ("--grace-seconds", Settings.grace_seconds, "after that, in which requests in flight may end"),
    ]
    for name, seconds, text in times:
        made.option(name, into=group, type=_seconds, default=seconds, help=f"{text} (default: %(default)s)")


class _Parser(argparse.ArgumentParser):
    """A parser whose options have defaults from variables."""

    environment: Mapping[str, str]

    def option(self, name: str, into: "argparse._ArgumentGroup | None" = None, **how: Any) -> None:
        variable = PREFIX + name.removeprefix("--").replace("-", "_").upper()
        value = self.environment.get(variable, "")
        if value and how.get("action") == "store_true":
            how["default"] = value.lower() not in ("0", "false", "no")
        elif value:
            how |= {"default": value, "required": False}  # argparse checks and converts it
            if value not in how.get("choices", (value,)):
                self.error(f"{variable} is {value!r}; choose from {', '.join(how['choices'])}")
        (into or self).add_argument(name, **how)


def _whole(least: int, most: int | None = None) -> Any:
    def read(text: str) -> int:
        number = int(text)
        if number < least or (most is not None and number > most):
            raise argparse.ArgumentTypeError(
                f"{number} is not in the range from {least}" + (f" to {most}" if most else "")
            )
        return number

    read.__name__ = "number"  # argparse says it of what is none
    return read


def _seconds(text: str) -> float:
    number = float(text)
    if not 0 <= number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is no number of seconds")
    return number


if __name__ == "__main__":
    sys.exit(main())
