"""How S3 is asked: s3fs's configuration and loop, patience with what passes, sentences for what does not."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from components.errors import BadInput, Unreachable
from components.files import is_full
from components.ingest.sources import transfer

MISSING = frozenset({"404", "NoSuchKey", "NoSuchVersion", "NotFound"})
"""Codes that say that there is no such object."""

_BUSY = {"SlowDown", "RequestTimeout", "InternalError", "ServiceUnavailable", "Throttling", "ThrottlingException"}
_EXPIRED = {"ExpiredToken", "ExpiredTokenException", "InvalidToken", "TokenRefreshRequired"}
_CONNECTIONS = 16


class Client:
    """The bucket of one source."""

    def __init__(self, place: transfer.Place) -> None:
        """Remember the bucket; nothing is asked yet."""
        self._place = place
        self._system: Any = None
        self._s3: Any = None

    def run(self, action: Callable[..., Coroutine[Any, Any, Any]], *arguments: Any) -> Any:
        """Run on fsspec's loop.

        Raises:
            BadInput: an object is gone, or no longer the one that was asked for.
            Unreachable: the bucket does not exist, refuses access or is down.
        """
        from fsspec.asyn import sync

        with self._reachable():
            self._system = self._system or _system()
            return sync(self._system.loop, action, *arguments)

    async def ask(self, operation: str, **arguments: Any) -> dict[str, Any]:
        """One request about the bucket, tried again while its failure may pass."""
        answer: dict[str, Any] = await self.patiently(self.once, operation, **arguments)
        return answer

    async def patiently(self, action: Callable[..., Coroutine[Any, Any, Any]], *given: Any, **named: Any) -> Any:
        """Try again while a failure may pass."""
        import tenacity

        return await tenacity.AsyncRetrying(**transfer.patience(transient))(action, *given, **named)

    async def once(self, operation: str, **arguments: Any) -> Any:
        """One request about the bucket, sent once."""
        if self._s3 is None:
            await self._connect()
        payer = self._system.req_kw  # where the caller pays for requests, by fsspec's configuration
        return await getattr(self._s3, operation)(Bucket=self._place.bucket, **payer, **arguments)

    async def together(self, jobs: Iterable[Coroutine[Any, Any, Any]]) -> list[Any]:
        """Results in the jobs' order, so many at a time as there are connections; the first failure ends all."""
        results: dict[int, Any] = {}
        numbered = enumerate(jobs)

        async def work() -> None:
            for index, job in numbered:
                results[index] = await job

        workers = [asyncio.create_task(work()) for _ in range(_CONNECTIONS)]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
        return [results[index] for index in range(len(results))]

    async def _connect(self) -> None:
        """Take the credentials that there are; without any, ask as anybody."""
        self._s3 = await self._system.set_session()
        named = self._system.anon or self._system.key
        if not named and await self._system.session.get_credentials() is None:
            self._system = _system(anon=True)
            self._s3 = await self._system.set_session()

    @contextmanager
    def _reachable(self) -> Iterator[None]:
        """Turn the library's errors into sentences."""
        import aiohttp
        from botocore import exceptions as aws

        bucket = f"s3://{self._place.bucket}"
        try:
            yield
        except aws.ClientError as error:
            raise self._refusal(error, bucket) from error
        except (aws.CredentialRetrievalError, aws.NoCredentialsError, aws.PartialCredentialsError) as error:
            raise Unreachable(f"{bucket} refuses access: {transfer.short(error)}; {self._needed()}.") from error
        except (aws.BotoCoreError, aws.HTTPClientError, aiohttp.ClientError, ValueError) as error:
            if transient(error):
                raise Unreachable(_down(bucket, transfer.short(error))) from error
            said = " ".join(str(error).split())[:200]
            raise Unreachable(
                f"{bucket} cannot be asked ({said}); check the bucket's name, AWS_ENDPOINT_URL and AWS_PROFILE."
            ) from error
        except OSError as error:
            if is_full(error):
                raise
            raise Unreachable(_down(bucket, transfer.short(error))) from error

    def _refusal(self, error: Exception, bucket: str) -> Exception:
        name, number = code(error), status(error)
        said = f"{number} {name}" if name != str(number) else name
        if name == "NoSuchBucket":
            return Unreachable(f"Bucket {bucket} does not exist; check its name in source_uri.")
        if name in MISSING or number in (412, 416):
            return BadInput(f"{self._place.uri} changed since it was listed; run the pipeline again.")
        if number in (401, 403) or name in _EXPIRED:
            return Unreachable(f"{bucket} refuses access ({said}); {self._needed()}.")
        if transient(error):
            return Unreachable(_down(bucket, said))
        return Unreachable(f"{bucket} refuses the request ({said}): {transfer.short(error)}")

    def _needed(self) -> str:
        needed = "s3:GetObject and s3:ListBucket on it"
        if self._system.anon:
            return f"there are no AWS credentials, so it was asked as anybody: give the pod an identity with {needed}"
        return f"grant this identity {needed}"


def _system(anon: bool = False) -> Any:
    """What knows configuration and credentials; trying again and checking is done here, so botocore adds none."""
    import fsspec

    config = {
        "retries": {"total_max_attempts": 1},
        "connect_timeout": 10,
        "read_timeout": 30,
        "max_pool_connections": _CONNECTIONS,
        "response_checksum_validation": "when_required",
    }
    given: dict[str, Any] = {"anon": True} if anon else {}
    return fsspec.filesystem("s3", skip_instance_cache=True, config_kwargs=config, **given)


def code(error: BaseException) -> str:
    """The store's name of a refusal; empty for other failures."""
    return str(getattr(error, "response", {}).get("Error", {}).get("Code", ""))


def status(error: BaseException) -> int:
    """HTTP's status of a refusal; 0 for other failures."""
    return int(getattr(error, "response", {}).get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def transient(error: BaseException) -> bool:
    """Whether a failure may pass."""
    import aiohttp
    from botocore import exceptions as aws

    if isinstance(error, aws.ClientError):
        return status(error) in transfer.TRANSIENT or code(error) in _BUSY
    if isinstance(error, (aws.SSLError, aws.ProxyConnectionError)):
        return False
    broken = (
        aws.HTTPClientError,
        aws.ConnectionError,
        aws.IncompleteReadError,
        aws.ResponseStreamingError,
        aiohttp.ClientError,
    )
    return isinstance(error, (*broken, ConnectionError, TimeoutError))


def _down(bucket: str, why: str) -> str:
    return f"{bucket} could not be read for {transfer.RETRY_SECONDS:.0f} s ({why}); try again later."
