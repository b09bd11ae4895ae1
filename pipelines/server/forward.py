"""A way through the Kubernetes API to the pods of KFP's UI, as ``kubectl port-forward`` makes one."""

import contextlib
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
    import kubernetes
    from kubernetes.stream import portforward

    try:
        api_client = kubernetes.config.new_client_from_config(context=options.kube_context or None)
        core = kubernetes.client.CoreV1Api(api_client)
        pod, port = _pod(core, options.kube_namespace)
    except kubernetes.config.ConfigException as error:
        raise Unreachable(f"No cluster to forward a port from: {error}; set KUBECONFIG or --kube-context.") from error
    except kubernetes.client.ApiException as error:
        raise Unreachable(
            f"Cannot look up the service {_SERVICE} in namespace {options.kube_namespace}: {error.reason} "
            f"({error.status}); forwarding needs get on services, list on pods and create on pods/portforward."
        ) from error

    def dial() -> socket.socket:
        opened = portforward(core.connect_get_namespaced_pod_portforward, pod, options.kube_namespace, ports=str(port))
        found: socket.socket = opened.socket(port)
        return found

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_serve, args=(listener, dial), daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def _pod(core: Any, namespace: str) -> tuple[str, int]:
    """A ready pod of the service, and the port it listens on."""
    service = core.read_namespaced_service(_SERVICE, namespace)
    selector = ",".join(f"{name}={value}" for name, value in service.spec.selector.items())
    for pod in core.list_namespaced_pod(namespace, label_selector=selector).items:
        if any(one.type == "Ready" and one.status == "True" for one in pod.status.conditions or []):
            target = service.spec.ports[0].target_port
            return pod.metadata.name, target if isinstance(target, int) else _named(pod, target)
    raise Unreachable(f"No pod of the service {_SERVICE} in namespace {namespace} is ready.")


def _named(pod: Any, name: str) -> int:
    ports = (port for container in pod.spec.containers for port in container.ports or [])
    return next(int(port.container_port) for port in ports if port.name == name)


def _serve(listener: socket.socket, dial: Callable[[], socket.socket]) -> None:
    with contextlib.suppress(OSError):  # the listener is closed when the block ends
        while True:
            near, _ = listener.accept()
            threading.Thread(target=_join, args=(near, dial), daemon=True).start()


def _join(near: socket.socket, dial: Callable[[], socket.socket]) -> None:
    import kubernetes

    with near:
        try:
            far = dial()
        except kubernetes.client.ApiException:
            return  # the request sees a closed connection, and is tried again or told
        with far:
            back = threading.Thread(target=_pump, args=(far, near), daemon=True)
            back.start()
            _pump(near, far)
            back.join()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
