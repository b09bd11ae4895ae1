"""Small HTTP requests to this machine, without the import time of a client library."""

import http.client

from serving.local.processes import HOST


def get(port: int, path: str, timeout_s: float = 1.0, method: str = "GET") -> tuple[int, bytes]:
    """Status and body.

    Raises:
        OSError: nothing answers on the port, or not in time.
    """
    connection = http.client.HTTPConnection(HOST, port, timeout=timeout_s)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, response.read()
    except http.client.HTTPException as error:
        raise ConnectionError(f"port {port} does not speak HTTP: {error!r}") from error
    finally:
        connection.close()
