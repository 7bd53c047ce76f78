"""Settings of the serving process; the only reader of the environment on this side."""

from functools import cached_property
from ipaddress import ip_address
from pathlib import Path

from pydantic import Field

from serving.batcher import BatchLimits
from serving.core.budget import Limits
from serving.shadow import CopyLimits
from serving.store.settings import StoreSettings
from serving.telemetry.columns import Privacy


class ServingSettings(StoreSettings):
    """`SIGNALBOX_*` variables of `python -m serving`."""

    host: str = Field("127.0.0.1", description="Address the HTTP server binds.")
    port: int = Field(8080, ge=0, le=65535, description="Port of the HTTP server.")
    grpc_port: int = Field(8081, ge=0, le=65535, description="Port of the gRPC server; 0 switches it off.")
    poll_seconds: float = Field(1.0, gt=0, description="How often the registry is polled.")
    watch_seconds: float = Field(300.0, ge=0, description="How long a new champion is watched.")
    orphan_minutes: float = Field(
        10.0, ge=0, description="How long a model whose champion alias was deleted keeps answering."
    )
    require_validation: bool = Field(
        False, description="Follow an alias only to versions whose validation tag says passed."
    )
    rollback_by_hand: bool = Field(
        True, description="Whether a failing champion that somebody set by hand is rolled back too."
    )
    require_infer_key: bool = Field(False, description="Demand a key for inference on loopback too.")
    anonymous_requests_per_second: float = Field(
        0.0, ge=0, description="Requests a second that one address without a key may make; 0 is no limit."
    )
    cors_origins: str = Field(
        "", description="Comma-separated origins whose web pages may call this server; none by default."
    )
    allowed_hosts: str = Field(
        "", description="Comma-separated Host header values accepted on loopback beside localhost."
    )
    request_timeout_seconds: float = Field(30.0, gt=0, description="Deadline of a request that names none.")
    candidate_timeout_seconds: float = Field(
        120.0, gt=0, description="Longest time a candidate may take to load and pass its self-test."
    )
    drain_seconds: float = Field(30.0, ge=0, description="Longest wait for requests in flight at shutdown.")
    probe_seconds: float = Field(5.0, gt=0, description="How often each served model is probed.")
    max_body_mb: int = Field(64, gt=0, description="Largest request body.")
    cache_mb: int = Field(20480, gt=0, description="Size limit of the local artifact cache.")
    threads: int = Field(0, ge=0, description="Threads per model session; 0 means the CPUs available.")
    memory_mb: int = Field(
        2048, gt=0, description="Memory that loaded models may take, measured; more than that sleep on disk."
    )
    memory_overflow_mb: int = Field(
        512, ge=0, description="On top of it while two versions of a model change places."
    )
    max_models: int = Field(0, ge=0, description="How many versions may be in memory at once; 0 is no limit.")
    min_residency_seconds: float = Field(
        3.0, ge=0, description="How long a version stays in memory at least, so that models do not thrash."
    )
    concurrent_loads: int = Field(2, gt=0, description="How many versions may load at the same time.")
    max_batch_rows: int = Field(
        32, gt=0, description="Rows of waiting requests answered in one execution; 1 switches batching off."
    )
    max_waiting: int = Field(
        512, gt=0, description="Requests that may wait for one model; one more is answered with 503."
    )
    max_waiting_mb: int = Field(256, gt=0, description="Inputs that may wait for one model, in MB.")
    shadow_ratio: float = Field(
        0.1,
        ge=0,
        le=1,
        description="Share of answers copied to alias shadow, and between champion and challenger while "
        "traffic is split, to compare them; for these two the traffic tag's compare_percent holds if set.",
    )
    shadow_in_flight: int = Field(
        8, gt=0, description="Copies that may be under way at once; more are dropped and counted."
    )
    log_sampling_ratio: float = Field(
        1.0, ge=0, le=1, description="Share of requests written to the inference log; 0 switches it off."
    )
    log_raw_ratio: float = Field(
        0.01, ge=0, le=1, description="Share of rows whose large tensors are logged whole too."
    )
    log_retention_days: float = Field(7.0, gt=0, description="How long the inference log is kept.")
    log_max_mb: int = Field(2048, gt=0, description="Size limit of the inference log; the oldest goes first.")
    log_drop: str = Field(
        "", description="Comma-separated globs of inference log columns, as `image.*`, that are not written."
    )
    log_hash: str = Field(
        "", description="Comma-separated globs of inference log columns written as SHA-256 of their value."
    )
    log_level: str = Field("info", description="Log level of the serving process.")

    @property
    def memory_limits(self) -> Limits:
        return Limits(
            budget_bytes=self.memory_mb << 20,
            overflow_bytes=self.memory_overflow_mb << 20,
            max_count=self.max_models or None,
            min_residency_seconds=self.min_residency_seconds,
        )

    @property
    def copy_limits(self) -> CopyLimits:
        return CopyLimits(self.shadow_ratio, self.shadow_in_flight)

    @property
    def batch_limits(self) -> BatchLimits:
        return BatchLimits(self.max_batch_rows, self.max_waiting, self.max_waiting_mb << 20)

    @cached_property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the server."""
        if self.host == "localhost":
            return True
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def serving_home(self) -> Path:
        """Folder of what this process alone owns: its record, overrides and journal."""
        return self.home / "serving"

    @property
    def log_privacy(self) -> Privacy:
        """Which columns of the inference log are left out or hashed."""
        return Privacy(drop=_globs(self.log_drop), hash=_globs(self.log_hash))

    @property
    def key_mirror_file(self) -> Path:
        """What the store said of access keys last, for while it is away."""
        return self.serving_home / "keys.json"

    @property
    def cors_allowed(self) -> list[str]:
        return list(_globs(self.cors_origins))

    @property
    def cache_folder(self) -> Path:
        return self.home / "cache"


def _globs(listed: str) -> tuple[str, ...]:
    return tuple(glob.strip() for glob in listed.split(",") if glob.strip())
