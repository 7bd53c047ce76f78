"""Settings that both processes share: where state lives and how the registry is reached.

Each process has one frozen class of its own that extends this one; nothing else reads the environment.
"""

import os
import re
from base64 import b64encode
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
    prefect_api_url: str = Field("http://127.0.0.1:4200/api", description="Prefect API that runs the flows.")
    prefect_api_key: SecretStr | None = Field(None, description="API key of Prefect Cloud.")
    prefect_api_auth_string: SecretStr | None = Field(
        None, description="`user:password` of a Prefect server with basic authentication."
    )
    ca_bundle: Path | None = Field(
        None, description="CA certificates to trust for HTTPS to MLflow, Prefect and serving."
    )
    models: str = Field("*", description="Comma-separated name globs: which registered models are served.")
    model_folders: str = Field(
        "", description="Folders of model files, by comma or colon; by default `models` in the home folder."
    )
    env: str = Field("", description="Prefix of aliases and tags, so that environments share one MLflow.")

    @field_validator("home")
    @classmethod
    def _absolute(cls, home: Path) -> Path:
        return home.expanduser().absolute()

    @field_validator("mlflow_url", "prefect_api_url")
    @classmethod
    def _no_trailing_slash(cls, url: str) -> str:
        return url.rstrip("/")

    @property
    def model_folder_paths(self) -> list[Path]:
        """Where model files are looked for, absolute, each once."""
        named = [part.strip() for part in re.split(f"[,{os.pathsep}]", self.model_folders) if part.strip()]
        folders = [Path(name).expanduser().absolute() for name in named]
        return list(dict.fromkeys(folders)) or [self.home / "models"]

    @property
    def database_url(self) -> str:
        """The state store's SQLAlchemy URL."""
        return self.store_url or f"sqlite:///{self.home / 'signalbox.db'}"

    @property
    def prefect_headers(self) -> dict[str, str]:
        """What lets a request into Prefect's API: an API key, else an auth string, else nothing."""
        if self.prefect_api_key is not None:
            return {"Authorization": f"Bearer {self.prefect_api_key.get_secret_value()}"}
        if self.prefect_api_auth_string is not None:
            credentials = b64encode(self.prefect_api_auth_string.get_secret_value().encode()).decode()
            return {"Authorization": f"Basic {credentials}"}
        return {}

    @property
    def admin_key_file(self) -> Path:
        return self.home / "admin.key"

    @property
    def webhook_secret_file(self) -> Path:
        return self.home / "webhook.secret"

    def serves(self, model: str) -> bool:
        """Whether a registered model's name passes the `models` globs."""
        return any(fnmatchcase(model, glob.strip()) for glob in self.models.split(",") if glob.strip())
