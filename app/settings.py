"""Every setting, with its default and meaning; only `main`, `cli` and `wiring` read it and pass on what each part
needs."""

import ipaddress
import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit
from zoneinfo import available_timezones

from dotenv import dotenv_values
from pydantic import (
    BeforeValidator,
    Field,
    SecretStr,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from app.errors import InvalidSettings
from app.lake_url import lake_place, object_storage_misfit

_SPARK_MASTER = re.compile(r"local\[([1-9]\d*|\*)(, ?\d+)?\]|(spark|sc|k8s)://\S+|yarn")

SHORTEST_SECRET = 32
"""Minimum length in bytes of an HS256 secret (RFC 7518, 3.2)."""


RATES = {"rate_requests": 6_000, "rate_cost": 10_000_000, "rate_failed_logins": 60, "max_streams": 1_000}
"""Default limits per caller and minute, and on open connections, when callers are authenticated."""


def _split(value: object) -> object:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
"""Several names in one variable, separated by commas."""

Header = Annotated[str, StringConstraints(to_lower=True, pattern=r"^[A-Za-z0-9-]+$")]

Size = Annotated[str, StringConstraints(pattern=r"^\d+(\.\d+)?\s?[KMGT]i?B$")]


class Settings(BaseSettings):
    """Read from the environment (`SEGMENTATION_DATA_DIR=…`) and from a `.env` in the working directory."""

    model_config = SettingsConfigDict(env_prefix="SEGMENTATION_", env_file=".env", extra="ignore")

    data_dir: Path | str = Field(
        Path("data"),
        description="Folder of the lake, of uploads in transit and of the SQLite file; or `s3://bucket/prefix`.",
    )
    cache_dir: Path = Field(
        Path("cache"), description="With a lake on object storage: folder of this host for copies and files in transit."
    )
    cache_size: Size = Field("50GB", description="Maximum size of these copies; least recently used ones are deleted.")
    database_url: str | None = Field(
        None, description="`postgresql://…` or `sqlite:///…`; by default `segmentation.db` in the data folder."
    )
    database_connections: int = Field(
        20, ge=2, description="Maximum number of database connections of one process; further requests wait."
    )
    host: str = Field("127.0.0.1", description="Address that `serve` binds.")
    port: int = Field(8000, ge=0, le=65535, description="Port that `serve` binds; 0 chooses a free one.")
    auth: Literal["none", "keys", "jwt", "proxy"] = Field(
        "none",
        description="Authentication mode: `none` (every caller may do everything, on loopback addresses only), `keys` "
        "(API keys), `jwt` (tokens) or `proxy` (headers of a trusted proxy). API keys are accepted in every mode.",
    )
    jwt_secret: SecretStr | None = Field(None, description="Secret of tokens signed with HS256, at least 32 bytes.")
    jwt_jwks: str | None = Field(
        None,
        description="File or URL (https, or http on loopback) of the JSON Web Key Set of tokens signed with RS256, "
        "ES256 or EdDSA.",
    )
    jwt_issuer: str | None = Field(None, description="Required value of a token's claim `iss`, if set.")
    jwt_audience: str | None = Field(None, description="Value that a token's claim `aud` must contain, if set.")
    jwt_leeway_seconds: float = Field(
        30.0, ge=0, le=600, description="Allowed difference between the clocks of the issuer and of this server."
    )
    proxy_peers: Names = Field(
        (), description="Addresses or networks of the proxies whose headers identify callers, separated by commas."
    )
    proxy_subject_header: Header = Field("x-forwarded-user", description="The proxy's header with the subject.")
    proxy_organisation_header: Header = Field(
        "x-forwarded-organisation", description="The proxy's header with the organisation."
    )
    proxy_permissions_header: Header = Field(
        "x-forwarded-permissions", description="The proxy's header with the permissions, separated by commas or spaces."
    )
    proxy_sandboxes_header: Header = Field(
        "x-forwarded-sandboxes", description="The proxy's header with the sandboxes; all of them if it is not sent."
    )
    hosts: Names = Field(
        (),
        description="Host names of this server, separated by commas (`gateway.example.com`, `*.example.com`). With "
        "`auth=none` loopback names are accepted as well, and no others; otherwise any name by default.",
    )
    cors_origins: Names = Field(
        (),
        description="Origins whose pages may call this server, separated by commas (`https://app.example.com`); `*` "
        "for all, which is not allowed with `auth=none`.",
    )
    cors_credentials: bool = Field(
        False, description="Whether those pages may send cookies, for a proxy that authenticates callers by cookie."
    )
    upload_idle_seconds: float = Field(
        30.0, gt=0, description="Maximum pause of a request's body before the request is aborted."
    )
    head_seconds: float = Field(10.0, gt=0, description="Maximum time for a client to send the head of a request.")
    send_seconds: float = Field(
        30.0, gt=0, description="How long a client may read almost nothing of pending data before it is disconnected."
    )
    worker: bool = Field(True, description="Whether `serve` also runs jobs.")
    server_processes: int = Field(
        1,
        ge=1,
        le=256,
        description="Number of processes of `serve` (`--workers`); with more than one, jobs run in an additional one.",
    )
    concurrent_jobs: int = Field(2, ge=1, description="Number of jobs of each kind that one process runs concurrently.")
    concurrent_previews: int = Field(4, ge=1, description="Number of previews that one process runs concurrently.")
    sandbox_previews: int = Field(
        2, ge=1, description="Number of previews of one sandbox that run concurrently, over all processes."
    )
    threads: int = Field(2, ge=1, description="Buckets of a job that are evaluated concurrently, and DuckDB's threads.")
    engine: Literal["local", "spark"] = Field(
        "local",
        description="Engine that evaluates the buckets of segment jobs: `local` (threads of the worker) or `spark` (a "
        "cluster; needs `pip install 'segmentation-gateway[spark]'`).",
    )
    spark_master: str | None = Field(
        None,
        description="URL of the cluster of `engine=spark`: `spark://host:7077`, `sc://host:15002` (Spark Connect), "
        "`yarn`, `k8s://…`, or `local[2]` for trials on this machine.",
    )
    memory_limit: Size = Field("1GB", description="Memory that DuckDB may use while it loads a batch.")
    bucket_profiles: int = Field(
        65_536, ge=1, le=1 << 20, description="Profiles of a bucket; when a sandbox has more, new ones get new buckets."
    )
    definition_memory: Size = Field(
        "1GB", description="Memory for the evaluation of one definition; a definition that needs more fails alone."
    )
    definition_seconds: float = Field(
        60.0,
        gt=0,
        description="Processor time for one definition and bucket of people; one that takes longer fails alone.",
    )
    time_zone: str = Field(
        "UTC", description="IANA name of the time zone of PQL's calendar, for sandboxes that do not set one."
    )
    lease_seconds: float = Field(
        15.0,
        ge=1,
        le=3600,
        description="A job whose worker sends no heartbeat for this long is taken over by another worker; a batch "
        "after four times as long.",
    )
    streaming_sweep_minutes: float = Field(
        10.0,
        ge=0,
        description="Interval in minutes at which streamed definitions that depend on the clock are re-evaluated for "
        "all profiles, so that members leave when their 24 hours have passed; 0: only batches and jobs evaluate them.",
    )
    keep_job_updates_days: int = Field(
        7, ge=1, description="Days for which streams can resume from states of an ended job; the last state is kept."
    )
    keep_memberships_days: int = Field(
        30, ge=1, description="Days for which memberships of a run are kept once no audience or job refers to them."
    )
    keep_previews_days: int = Field(7, ge=1, description="Days for which ended previews are kept.")
    keep_versions_hours: int = Field(
        24, ge=1, le=168, description="Hours for which replaced versions of the data are kept for readers."
    )
    erased_people: Literal["refuse", "accept"] = Field(
        "refuse",
        description="Treatment of rows of erased people: `refuse` rejects them, `accept` adds them as new profiles.",
    )
    drain_seconds: float = Field(
        0.0,
        ge=0,
        description="How long `serve` keeps serving while it reports that it is not ready, after a request to stop.",
    )
    shutdown_seconds: int = Field(
        5, ge=1, description="How long `serve` then waits for running requests before it aborts them."
    )
    max_body_bytes: int = Field(16 * 1024**2, ge=1024, description="Maximum size of a request's body without files.")
    max_upload_bytes: int = Field(20 * 1024**3, ge=1, description="Maximum size of a file for `uploadBatch`.")
    max_tokens: int = Field(5_000, ge=100, description="Maximum number of tokens of a GraphQL document.")
    max_depth: int = Field(15, ge=1, description="Maximum depth of a GraphQL selection.")
    max_aliases: int = Field(50, ge=0, description="Maximum number of aliases in a GraphQL document.")
    max_cost: int = Field(
        200_000,
        ge=1_000,
        le=10**12,
        description="Maximum cost of an operation: fields, multiplied by the page sizes on the path to them.",
    )
    introspection: Literal["everybody", "identified", "nobody"] = Field(
        "everybody", description="Who may read the schema and gets suggestions of its names in errors."
    )
    persisted_queries: int = Field(
        1_000,
        ge=0,
        description="Number of documents that a process caches for clients that send hashes instead (Apollo's "
        "automatic persisted queries); 0 disables this.",
    )
    trusted_documents: Path | None = Field(
        None,
        description="File or folder of the only documents that may run: `.graphql` files, or a manifest of Apollo's "
        "or Relay's tools (`.json`). Any document by default.",
    )
    max_seconds: float = Field(60.0, gt=0, description="Maximum time for a query, or for one item of a subscription.")
    rate_requests: int | None = Field(
        None,
        ge=0,
        description="Requests that one caller may send per minute, to each process; 0 for no limit. By default 6,000, "
        "and no limit with `auth=none`.",
    )
    rate_cost: int | None = Field(
        None,
        ge=0,
        description="Cost of the operations that one caller may send per minute, to each process; 0 for no limit. By "
        "default 10,000,000, and no limit with `auth=none`.",
    )
    rate_failed_logins: int | None = Field(
        None,
        ge=0,
        description="Invalid credentials that one address may send per minute, to each process; 0 for no limit. By "
        "default 60, and no limit with `auth=none`.",
    )
    max_streams: int | None = Field(
        None,
        ge=0,
        description="Open WebSockets and streams of server-sent events of one caller, to each process; 0 for no "
        "limit. By default 1,000, and no limit with `auth=none`.",
    )
    max_text: int = Field(100_000, ge=10_000, description="Maximum length in characters of a text in an input.")
    max_list_items: int = Field(
        5_000, ge=500, le=5_000, description="Maximum length of a list in an input, limited by SQL statements."
    )
    max_json_depth: int = Field(100, ge=10, le=200, description="Maximum nesting of JSON in variables.")
    init_seconds: float = Field(5.0, gt=0, description="Maximum time for a WebSocket to send `connection_init`.")
    max_silent_sockets: int = Field(
        300, ge=1, description="Maximum number of WebSockets of one process that have not sent `connection_init` yet."
    )
    max_socket_operations: int = Field(100, ge=1, description="Maximum number of open operations on one WebSocket.")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="Minimum level of the log lines that `serve` and `worker` write to standard error."
    )
    log_format: Literal["text", "json"] = Field(
        "text", description="Format of these lines: text, or a JSON object each."
    )
    traces: Literal["off", "otlp"] = Field(
        "off",
        description="`otlp` exports traces of requests, SQL, jobs and buckets to `OTEL_EXPORTER_OTLP_ENDPOINT`; needs "
        "`pip install 'segmentation-gateway[traces]'`.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        keys = [name for name in ("jwt_secret", "jwt_jwks") if getattr(self, name) is not None]
        if self.auth == "jwt" and len(keys) != 1:
            raise ValueError(
                "SEGMENTATION_AUTH=jwt needs SEGMENTATION_JWT_SECRET or SEGMENTATION_JWT_JWKS, one of them"
            )
        if self.auth == "proxy" and not self.proxy_peers:
            raise ValueError("SEGMENTATION_AUTH=proxy needs SEGMENTATION_PROXY_PEERS, the addresses of the proxies")
        if keys and self.auth != "jwt":
            raise ValueError(f"SEGMENTATION_{keys[0].upper()} is set, and only SEGMENTATION_AUTH=jwt uses it")
        if self.proxy_peers and self.auth != "proxy":
            raise ValueError("SEGMENTATION_PROXY_PEERS is set, and only SEGMENTATION_AUTH=proxy uses it")
        if self.auth == "none" and "*" in (*self.cors_origins, *self.hosts):
            raise ValueError(
                "with SEGMENTATION_AUTH=none any page could read everything: name origins and hosts, not *"
            )
        if self.engine == "spark" and self.spark_master is None:
            raise ValueError("SEGMENTATION_ENGINE=spark needs SEGMENTATION_SPARK_MASTER, such as spark://host:7077")
        if self.on_object_storage and (misfit := object_storage_misfit(self.engine, self.database_url)):
            raise ValueError(misfit)
        if self.spark_master is not None and self.engine != "spark":
            raise ValueError("SEGMENTATION_SPARK_MASTER is set, and only SEGMENTATION_ENGINE=spark uses it")
        for name, default in RATES.items():
            if getattr(self, name) is None:
                setattr(self, name, 0 if self.auth == "none" else default)
        if self.cors_credentials and "*" in self.cors_origins:
            raise ValueError(
                "with SEGMENTATION_CORS_CREDENTIALS every page could use its visitors' cookies: name origins"
            )
        return self

    @field_validator("data_dir", mode="before")
    @classmethod
    def _place(cls, value: object) -> object:
        return lake_place(str(value))

    @field_validator("spark_master")
    @classmethod
    def _is_master(cls, value: str | None) -> str | None:
        if value is not None and not _SPARK_MASTER.fullmatch(value):
            raise ValueError(
                "this is no Spark master: write spark://host:7077, sc://host:15002 for Spark Connect, yarn, k8s://…, "
                "or local[2]"
            )
        return value

    @field_validator("time_zone")
    @classmethod
    def _is_time_zone(cls, name: str) -> str:
        if name != "UTC" and name not in available_timezones():  # The list is read from hundreds of files.
            raise ValueError("there is no such time zone: give an IANA name, such as Europe/Berlin")
        return name

    @field_validator("proxy_peers")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for peer in value:
            ipaddress.ip_network(peer)
        return value

    @field_validator("jwt_secret")
    @classmethod
    def _long_secret(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and len(value.get_secret_value().encode()) < SHORTEST_SECRET:
            raise ValueError(f"a secret must have {SHORTEST_SECRET} bytes or more, or tokens can be forged by guessing")
        return value

    @field_validator("jwt_jwks")
    @classmethod
    def _safe_source(cls, value: str | None) -> str | None:
        url = urlsplit(value or "")
        loopback = url.hostname in {"localhost", "127.0.0.1", "::1"}
        if url.scheme == "http" and not loopback:
            raise ValueError("keys that come without TLS can be replaced on their way: use https")
        return value

    @field_validator("cors_origins")
    @classmethod
    def _origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for origin in value:
            url = urlsplit(origin)
            if origin != "*" and (not url.scheme or not url.netloc or url.path or url.query or url.fragment):
                raise ValueError(f"{origin!r} is no origin: write scheme, host and perhaps a port, and no path")
        return value

    @property
    def on_object_storage(self) -> bool:
        return isinstance(self.data_dir, str)

    @property
    def folder(self) -> Path:
        return self.cache_dir if isinstance(self.data_dir, str) else self.data_dir

    @property
    def batch_lease(self) -> timedelta:
        """How long a batch's loader may be silent before the batch is abandoned: longer than for a job, since a batch
        is not restarted."""
        return timedelta(seconds=4 * self.lease_seconds)

    @property
    def streaming_sweep(self) -> timedelta | None:
        """Interval of the sweep; None disables it."""
        return timedelta(minutes=self.streaming_sweep_minutes) if self.streaming_sweep_minutes else None

    @property
    def database(self) -> str:
        """The database URL in effect."""
        return self.database_url or f"sqlite:///{(self.folder / 'segmentation.db').absolute()}"


def load_settings(**overrides: object) -> Settings:
    """The settings in effect; `overrides` win over the environment. Raises `InvalidSettings`."""
    try:
        return Settings(**{name: value for name, value in overrides.items() if value is not None})  # type: ignore[arg-type]
    except ValidationError as error:
        raise InvalidSettings("\n".join(map(_problem, error.errors()))) from None


def _problem(problem: Any) -> str:
    message = str(problem["msg"]).removeprefix("Value error, ")
    if not problem["loc"]:
        return message
    name = str(problem["loc"][0])
    value = "(not shown)" if name in SECRETS else repr(problem["input"])
    return f"SEGMENTATION_{'_'.join(map(str, problem['loc'])).upper()}={value}: {message}"


SECRETS = frozenset({"jwt_secret", "database_url", "spark_master"})
"""Settings whose values are never shown: the URL of a cluster may contain a token."""


def variables_of_file() -> set[str]:
    """The names of the variables in the working directory's `.env`."""
    file = Path(str(Settings.model_config["env_file"]))
    return set(dotenv_values(file)) if file.is_file() else set()
