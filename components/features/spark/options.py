"""What a Spark job asks for: the pipeline's parameter ``spark``."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator

from components.features.spark.session import SEMANTICS
from components.parameters import parsed

_Memory = Annotated[str, StringConstraints(pattern=r"^[1-9]\d*[kmgt]$")]
_Label = Annotated[str, StringConstraints(pattern=r"^([a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)?$")]


class SparkOptions(BaseModel):
    """What a Spark job asks for; memory is written as Spark writes it, such as ``8g``.

    ``conf`` and ``driver_memory`` hold for every engine, the rest for ``kubernetes``.

    Attributes:
        executors: pods beside the driver's.
        executor_cores: of each, and so the tasks that it runs at a time.
        executor_memory: of each one's Java; the pod asks for some more.
        driver_cores: of the driver.
        driver_memory: of the driver's Java, which holds no rows.
        conf: further settings of Spark by their names.
        image: with Spark and this code; by default what the pipeline's package says.
        namespace: where the pods run; by default the run's own.
        service_account: of the driver, which makes the executors.
        secret: Secret whose keys are environment variables in all pods, such as AWS_ACCESS_KEY_ID; need not be there.
        volumes: as Kubernetes writes them, such as a claim that the step mounts as its store, too.
        volume_mounts: where they are in all pods.
        node_selector: labels that the nodes must have.
        tolerations: taints that the nodes may have, as Kubernetes writes them.
        timeout_seconds: after which a job that has not ended is removed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    executors: int = Field(default=2, ge=1, le=1000)
    executor_cores: int = Field(default=2, ge=1, le=64)
    executor_memory: _Memory = "4g"
    driver_cores: int = Field(default=1, ge=1, le=64)
    driver_memory: _Memory = "2g"
    conf: dict[str, str] = {}
    image: str = ""
    namespace: _Label = ""
    service_account: _Label = "sluiceway-spark"
    secret: _Label = "sluiceway-sources"  # noqa: S105 - its name
    volumes: tuple[dict[str, Any], ...] = ()
    volume_mounts: tuple[dict[str, Any], ...] = ()
    node_selector: dict[str, str] = {}
    tolerations: tuple[dict[str, Any], ...] = ()
    timeout_seconds: int = Field(default=6 * 60 * 60, ge=60)

    @field_validator("conf", mode="before")
    @classmethod
    def _texts(cls, given: Any) -> Any:
        """Numbers and truth values as Spark writes them."""
        if not isinstance(given, dict):
            return given
        return {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in given.items()}

    @field_validator("conf")
    @classmethod
    def _harmless(cls, given: dict[str, str]) -> dict[str, str]:
        for name in given:
            if name in SEMANTICS:
                raise ValueError(f"{name} is set by this suite, since results depend on it")
            if not name.startswith("spark."):
                raise ValueError(f"{name!r} is no setting of Spark: their names begin with spark")
        return given

    @classmethod
    def given(cls, spark: Mapping[str, Any]) -> "SparkOptions":
        """Read the parameter.

        Raises:
            BadInput: a field is unknown or out of range.
        """
        return parsed(cls, dict(spark), "spark")
