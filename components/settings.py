"""Where state lives: the one place that reads the environment.

On a laptop everything is under one folder, ``.sluiceway``. On a cluster the same variables point at a mounted
volume or bucket and at the tracking server.
"""

from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Settings from the environment, resolved to absolute paths when read.

    Attributes:
        home: local state: runs, live services, logs (``SLUICEWAY_HOME``).
        store: what outlives a run: contracts and reference samples; a folder or an fsspec URI (``SLUICEWAY_STORE``).
        remote: where the bytes of snapshots are kept, laid out as by DVC: a folder or fsspec URI; "dvc" in the store by
            default (``SLUICEWAY_REMOTE``).
        hash_key: with which personal data is hashed; a secret (``SLUICEWAY_HASH_KEY``).
        database_user: who reads databases, where their URI does not say it (``SLUICEWAY_DATABASE_USER``).
        database_password: the password; a secret (``SLUICEWAY_DATABASE_PASSWORD``).
        kafka: librdkafka's properties for reading topics, as a JSON object; a secret (``SLUICEWAY_KAFKA``).
        https_token: bearer token for data behind https://; a secret (``SLUICEWAY_HTTPS_TOKEN``).
        port: where the service on this machine listens; 0 takes a free one (``SLUICEWAY_PORT``).
        where: where models are served unless a deployment says otherwise: "kserve", or this machine
            (``SLUICEWAY_WHERE``).
        prometheus: address of the Prometheus that sees the served models, on a cluster (``SLUICEWAY_PROMETHEUS``).
        prometheus_token: bearer token for it, or the absolute path of a file that holds one; a secret
            (``SLUICEWAY_PROMETHEUS_TOKEN``).
        prometheus_ca: file with the certificate authority that signed its certificate (``SLUICEWAY_PROMETHEUS_CA``).
        webhook: where each decision of a rollout is posted, as Slack takes it; a secret (``SLUICEWAY_WEBHOOK``).
        ui: address of the KFP UI, on a cluster, for links in notifications (``SLUICEWAY_UI``).
        background_rows: how many rows of the train split a bundle keeps, to explain predictions against; 0 keeps none
            (``SLUICEWAY_BACKGROUND_ROWS``).
        images: what the run's package has for each image that a step chooses, by name (``SLUICEWAY_IMAGES``, JSON).
        tracking_uri: MLflow tracking and registry (``MLFLOW_TRACKING_URI``); a SQLite file under home by default.
    """

    model_config = SettingsConfigDict(env_prefix="SLUICEWAY_", extra="ignore")

    home: Path = Path(".sluiceway")
    store: str = ""
    remote: str = ""
    hash_key: SecretStr = SecretStr("")
    database_user: str = ""
    database_password: SecretStr = SecretStr("")
    kafka: SecretStr = SecretStr("")
    https_token: SecretStr = SecretStr("")
    port: int = Field(default=0, ge=0, le=65535)
    where: str = ""
    prometheus: str = ""
    prometheus_token: SecretStr = SecretStr("")
    prometheus_ca: str = ""
    webhook: SecretStr = SecretStr("")
    ui: str = ""
    background_rows: int = Field(default=100, ge=0, le=1_000)
    images: dict[str, str] = {}
    tracking_uri: str = Field(default="", validation_alias="MLFLOW_TRACKING_URI")

    def model_post_init(self, _context: object) -> None:
        """Fill in the defaults that depend on home."""
        self.home = self.home.expanduser().absolute()
        self.store = self.store or str(self.home / "store")
        self.remote = self.remote or f"{self.store.rstrip('/')}/dvc"
        self.tracking_uri = self.tracking_uri or f"sqlite:///{self.home / 'mlflow.db'}"


def settings() -> Settings:
    """Read the settings anew; cheap, and a step never sees another process's environment."""
    return Settings()
