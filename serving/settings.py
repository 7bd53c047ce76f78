"""Settings of the serving process; the only reader of the environment on this side."""

import os
from collections.abc import Sequence
from datetime import timedelta
from functools import cached_property
from ipaddress import ip_address
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from serving.batcher import BatchLimits
from serving.core.budget import Limits
from serving.core.cpus import cpu_count
from serving.shadow import CopyLimits
from serving.store.downsampling import Kept
from serving.store.settings import StoreSettings
from serving.telemetry.columns import Privacy
from serving.tls import TlsFiles
from serving.wire_limits import WireLimits


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
    max_inflight_mb: int = Field(
        512,
        gt=0,
        description="Bodies of all requests in flight in one worker; one more is answered with 503.",
    )
    max_connections: int = Field(
        1000, gt=0, description="Open HTTP connections of one worker; one more is answered with 503."
    )
    header_seconds: float = Field(
        10.0, gt=0, description="Longest time a request line and its headers may take to arrive."
    )
    body_seconds: float = Field(
        30.0, gt=0, description="Longest time a body may take to arrive, and a second more for each 256 KB."
    )
    tls_certificate: Path | None = Field(
        None, description="PEM file with the certificate chain; HTTP and gRPC then speak TLS alone."
    )
    tls_key: Path | None = Field(None, description="PEM file with the certificate's private key.")
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
    telemetry: bool = Field(
        True, description="Count requests, times and failures per version, for /metrics and the store."
    )
    telemetry_seconds_hours: float = Field(
        2.0, gt=0, description="How long telemetry is kept per second; after that per minute."
    )
    telemetry_minutes_days: float = Field(
        2.0, gt=0, description="How long telemetry is kept per minute; after that per hour."
    )
    telemetry_hours_days: float = Field(90.0, gt=0, description="How long telemetry is kept per hour.")
    log_level: str = Field("info", description="Log level of the serving process.")
    workers: int = Field(
        1, ge=1, le=64, description="Processes that answer on the one port; they share memory and threads."
    )
    memory_allowance_mb: int = Field(
        1024, gt=0, description="What one of several workers may grow by beyond its models until replaced."
    )
    worker_slot: int = Field(0, ge=0, description="Set by the parent of several workers for each of them.")
    worker_folder: Path | None = Field(None, description="Likewise: where the workers' own sockets are.")
    worker_sockets: str = Field("", description="Likewise: descriptors of the sockets it may listen on.")
    log_format: Literal["text", "json"] = Field(
        "text", description="Form of the log: `text` for people, `json` for one object a line."
    )

    @property
    def memory_limits(self) -> Limits:
        """Of this process: its share of what the whole server may take."""
        return Limits(
            budget_bytes=(self.memory_mb << 20) // self.workers,
            overflow_bytes=(self.memory_overflow_mb << 20) // self.workers,
            max_count=self.max_models or None,
            min_residency_seconds=self.min_residency_seconds,
        )

    @property
    def copy_limits(self) -> CopyLimits:
        return CopyLimits(self.shadow_ratio, self.shadow_in_flight)

    @property
    def batch_limits(self) -> BatchLimits:
        """Of this process: its share of what may wait in the whole server."""
        waiting, waiting_bytes = self._share(self.max_waiting), (self.max_waiting_mb << 20) // self.workers
        return BatchLimits(self.max_batch_rows, waiting, waiting_bytes)

    @property
    def session_threads(self) -> int:
        """Threads of one model session in this process."""
        return self.threads or self._share(cpu_count())

    @property
    def load_slots(self) -> int:
        return self._share(self.concurrent_loads)

    def _share(self, amount: int) -> int:
        return max(1, amount // self.workers)

    @property
    def is_fleet(self) -> bool:
        """Whether this process is one of several workers of a server."""
        return self.worker_slot > 0

    @property
    def inherited_sockets(self) -> list[int]:
        """Descriptors by slot, from slot 1 on."""
        return [int(number) for number in self.worker_sockets.split(",") if number]

    @property
    def wire_limits(self) -> WireLimits:
        return WireLimits(self.header_seconds, self.body_seconds, self.max_connections)

    @property
    def url(self) -> str:
        """Where this server is reached from its own machine."""
        scheme = "http" if self.tls is None else "https"
        return f"{scheme}://{self.host}:{self.port}"

    @property
    def tls(self) -> TlsFiles | None:
        """What the server proves itself with, None where it speaks in the clear."""
        if self.tls_certificate is None or self.tls_key is None:
            return None
        return TlsFiles(self.tls_certificate, self.tls_key)

    @model_validator(mode="after")
    def _tls_is_whole(self) -> Self:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("SIGNALBOX_TLS_CERTIFICATE and SIGNALBOX_TLS_KEY go together: set both or none")
        return self

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
        """Folder of what this server alone owns: its record, overrides and journal.

        Its workers share the files, each change under a lock: what one of them knows the others then
        know after any restart, whatever their number was or will be.
        """
        return self.home / "serving"

    @property
    def log_privacy(self) -> Privacy:
        """Which columns of the inference log are left out or hashed."""
        return Privacy(drop=_globs(self.log_drop), hash=_globs(self.log_hash))

    @property
    def telemetry_kept(self) -> Kept:
        return Kept(
            timedelta(hours=self.telemetry_seconds_hours),
            timedelta(days=self.telemetry_minutes_days),
            timedelta(days=self.telemetry_hours_days),
        )

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


def worker_environment(settings: ServingSettings, slot: int, sockets: Sequence[int]) -> dict[str, str]:
    """The environment of a worker: the parent's, and its place among the others."""
    own = {
        "SIGNALBOX_PORT": settings.port,
        "SIGNALBOX_GRPC_PORT": settings.grpc_port,
        "SIGNALBOX_WORKERS": settings.workers,
        "SIGNALBOX_WORKER_SLOT": slot,
        "SIGNALBOX_WORKER_FOLDER": settings.worker_folder,
        "SIGNALBOX_WORKER_SOCKETS": ",".join(map(str, sockets)),
    }
    return {**os.environ, **{name: str(value) for name, value in own.items()}}


def _globs(listed: str) -> tuple[str, ...]:
    return tuple(glob.strip() for glob in listed.split(",") if glob.strip())
