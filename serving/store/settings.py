"""Settings that both processes share: where state lives and how the registry is reached.

Each process has one frozen class of its own that extends this one; nothing else reads the environment.
"""

from fnmatch import fnmatchcase
from pathlib import Path

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


class StoreSettings(BaseSettings):
    """Read from `SIGNALBOX_*` variables and a `.env` file in the working directory."""

    model_config = SettingsConfigDict(
        env_prefix="SIGNALBOX_", env_file=".env", extra="ignore", frozen=True, validate_default=True
    )

    home: Path = Field(Path(".signalbox"), description="Folder of all local state; made absolute.")
    store_url: str | None = Field(
        None, description="State store, a SQLAlchemy URL; by default SQLite in the home folder."
    )
    mlflow_url: str = Field("http://127.0.0.1:5000", description="MLflow server with the model registry.")
    mlflow_username: str | None = Field(None, description="User for MLflow's basic authentication.")
    mlflow_password: SecretStr | None = Field(None, description="Password for MLflow's basic authentication.")
    mlflow_token: SecretStr | None = Field(
        None, description="Bearer token for MLflow, instead of a password."
    )
    ca_bundle: Path | None = Field(None, description="CA certificates to trust for HTTPS to MLflow.")
    models: str = Field("*", description="Comma-separated name globs: which registered models are served.")
    env: str = Field("", description="Prefix of aliases and tags, so that environments share one MLflow.")

    @field_validator("home")
    @classmethod
    def _absolute(cls, home: Path) -> Path:
        return home.expanduser().absolute()

    @field_validator("mlflow_url")
    @classmethod
    def _no_trailing_slash(cls, url: str) -> str:
        return url.rstrip("/")

    @property
    def database_url(self) -> str:
        """The state store's SQLAlchemy URL."""
        return self.store_url or f"sqlite:///{self.home / 'signalbox.db'}"

    @property
    def admin_key_file(self) -> Path:
        return self.home / "admin.key"

    @property
    def webhook_secret_file(self) -> Path:
        return self.home / "webhook.secret"

    def serves(self, model: str) -> bool:
        """Whether a registered model's name passes the `models` globs."""
        return any(fnmatchcase(model, glob.strip()) for glob in self.models.split(",") if glob.strip())
