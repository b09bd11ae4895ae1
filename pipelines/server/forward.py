"""A way through the Kubernetes API to the pods of KFP's UI, as ``kubectl port-forward`` makes one."""

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

from components.errors import Unreachable
from pipelines.server.options import Options

_SERVICE = "ml-pipeline-ui"


@contextlib.contextmanager
def forwarded(options: Options) -> Iterator[str]:
    """An address on this machine that leads to KFP's UI while the block runs.

    Raises:
        Unreachable: no cluster, no such service, no pod that is ready, or no right to look.
    """
    dial = _dialler(options)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_serve, args=(listener, dial), daemon=True).start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)


def _dialler(options: Options) -> Callable[[], Any]:
    """What opens a connection to a pod."""
    import kubernetes
    import urllib3
    from kubernetes.stream import portforward

    namespace, doors = options.kube_namespace, threading.Lock()
    try:
        kubeconfig, context = os.environ.get("KUBECONFIG") or None, options.kube_context or None
        core = kubernetes.client.CoreV1Api(kubernetes.config.new_client_from_config(kubeconfig, context))
        pod, port = _pod(core, namespace, options.timeout_seconds)
    except kubernetes.config.ConfigException as error:
        raise Unreachable(f"No cluster to forward a port from: {error} Set KUBECONFIG or --kube-context.") from error
    except urllib3.exceptions.HTTPError as error:
        raise Unreachable(f"The cluster to forward a port from cannot be reached: {error}.") from error
    except kubernetes.client.ApiException as error:
        raise Unreachable(
            f"Cannot look up the service {_SERVICE} in namespace {namespace}: {error.reason} ({error.status}); "
            "forwarding needs get on services, list on pods and create on pods/portforward."
        ) from error

    def dial() -> Any:
        with doors:  # the client is changed while it dials
            opened = portforward(core.connect_get_namespaced_pod_portforward, pod, namespace, ports=str(port))
        return opened.socket(port)

    return dial


def _pod(core: Any, namespace: str, timeout: float) -> tuple[str, int]:
    """A ready pod of the service, and the port it listens on."""
    service = core.read_namespaced_service(_SERVICE, namespace, _request_timeout=timeout)
    selector = ",".join(f"{name}={value}" for name, value in service.spec.selector.items())
    for pod in core.list_namespaced_pod(namespace, label_selector=selector, _request_timeout=timeout).items:
        if any(one.type == "Ready" and one.status == "True" for one in pod.status.conditions or []):
            target = service.spec.ports[0].target_port
            return pod.metadata.name, target if isinstance(target, int) else _named(pod, target)
    raise Unreachable(f"No pod of the service {_SERVICE} in namespace {namespace} is ready.")


def _named(pod: Any, name: str) -> int:
    ports = (port for container in pod.spec.containers for port in container.ports or [])
    return next(int(port.container_port) for port in ports if port.name == name)


def _serve(listener: socket.socket, dial: Callable[[], Any]) -> None:
    with contextlib.suppress(OSError):  # the listener is closed when the block ends
        while True:
            near, _ = listener.accept()
            threading.Thread(target=_join, args=(near, dial), daemon=True).start()


def _join(near: socket.socket, dial: Callable[[], Any]) -> None:
    """Carry what one connection says, both ways, until an end hangs up."""
    import kubernetes

    with near:
        try:
            far = dial()
        except kubernetes.client.ApiException:
            return  # the request sees a closed connection, and is tried again or told of
        with contextlib.closing(far):
            threading.Thread(target=_pump, args=(far, near), daemon=True).start()
            _pump(near, far)


def _pump(source: Any, sink: Any) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    for end in (source, sink):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
