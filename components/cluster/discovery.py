"""Which path a kind is served under."""

from typing import TYPE_CHECKING, Any

from components.cluster.retry import Again, timeouts

if TYPE_CHECKING:
    from kubernetes.dynamic import DynamicClient
    from kubernetes.dynamic.resource import Resource


class Discoverer:
    """Asks the API server about one group and version, when one of its kinds is first used.

    The client's own discoverers ask for every group first, keep the answers in a file in the shared temporary folder,
    and take a group whose server answers 503 for one without kinds; here that is a failure like any other.
    """

    def __init__(self, client: "DynamicClient", cache_file: str | None) -> None:
        """Nothing is asked yet; ``cache_file`` is what the client hands to any discoverer."""
        self._client = client
        self._known: dict[tuple[str, str], Resource] = {}

    def get(self, api_version: str, kind: str, seconds: float) -> "Resource | None":
        """A kind's place in the API; None where the server does not know it. That is asked anew each time.

        Args:
            api_version: group and version.
            kind: the kind's name.
            seconds: how long the answer may take.
        """
        known = self._known.get((api_version, kind))
        return known or self._ask(api_version, kind, seconds)

    def _ask(self, api_version: str, kind: str, seconds: float) -> "Resource | None":
        from kubernetes.dynamic.exceptions import NotFoundError
        from kubernetes.dynamic.resource import Resource

        prefix = "apis" if "/" in api_version else "api"
        group, _, version = api_version.rpartition("/")
        try:
            answer = self._client.request(
                "get", f"/{prefix}/{api_version}", serializer=plain, _request_timeout=timeouts(seconds)
            )
        except NotFoundError:
            return None
        for served in checked(answer)["resources"]:
            if "/" not in served["name"]:  # the others are subresources
                self._known[api_version, served["kind"]] = Resource(
                    prefix=prefix,
                    group=group,
                    api_version=version,
                    kind=served["kind"],
                    namespaced=served["namespaced"],
                    name=served["name"],
                    client=self._client,
                )
        return self._known.get((api_version, kind))


def plain(_client: "DynamicClient", answer: Any) -> Any:
    """Take an answer as the JSON that it is."""
    return answer


def checked(answer: Any) -> dict[str, Any]:
    """An answer that is JSON.

    Raises:
        Again: it is not.
    """
    if not isinstance(answer, dict):
        raise Again(f"no JSON: {str(answer)[:100]!r}")
    return answer
