"""Every setting, with its default and meaning; read by `main` and `cli` only, which hand on what each part needs."""

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

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
"""How `s3://bucket` begins, also after a shell or a path library took one of its slashes."""

_SPARK_MASTER = re.compile(r"local\[([1-9]\d*|\*)(, ?\d+)?\]|(spark|sc|k8s)://\S+|yarn")

SHORTEST_SECRET = 32
"""Bytes of an HS256 secret (RFC 7518, 3.2)."""


RATES = {"rate_requests": 6_000, "rate_cost": 10_000_000, "rate_failed_logins": 60, "max_streams": 1_000}
"""What one caller may ask for in a minute, or have open, unless set, where callers are known."""


def _split(value: object) -> object:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
"""Several names in one variable, separated by commas."""

Header = Annotated[str, StringConstraints(to_lower=True, pattern=r"^[A-Za-z0-9-]+$")]


class Settings(BaseSettings):
    """Read from the environment (`SEGMENTATION_DATA_DIR=…`) and from a `.env` in the working directory."""

    model_config = SettingsConfigDict(env_prefix="SEGMENTATION_", env_file=".env", extra="ignore")

    data_dir: Path = Field(
        Path("data"), description="Folder of the lake, of uploads in transit and of the SQLite file."
    )
    database_url: str | None = Field(
        None, description="`postgresql://…` or `sqlite:///…`; by default `segmentation.db` in the data folder."
    )
    database_connections: int = Field(
        20, ge=2, description="Connections that one process holds to the database at most; what needs more waits."
    )
    host: str = Field("127.0.0.1", description="Address that `serve` binds.")
    port: int = Field(8000, ge=0, le=65535, description="Port that `serve` binds; 0 takes a free one.")
    auth: Literal["none", "keys", "jwt", "proxy"] = Field(
        "none",
        description="How callers are known: `none` (everybody may do everything, on loopback addresses only), `keys` "
        "(API keys), `jwt` (tokens) or `proxy` (headers of a trusted proxy). API keys are taken in every mode.",
    )
    jwt_secret: SecretStr | None = Field(
        None, description="Secret of tokens signed with HS256, of 32 characters or more."
    )
    jwt_jwks: str | None = Field(
        None,
        description="File or URL (https, or http on loopback) of the JSON Web Key Set of tokens signed with RS256, "
        "ES256 or EdDSA.",
    )
    jwt_issuer: str | None = Field(None, description="What the claim `iss` of a token must be, if set.")
    jwt_audience: str | None = Field(None, description="What the claim `aud` of a token must hold, if set.")
    jwt_leeway_seconds: float = Field(
        30.0, ge=0, le=600, description="How far the clocks of the issuer and of this server may be apart."
    )
    proxy_peers: Names = Field(
        (), description="Addresses or networks of the proxies whose headers say who a caller is, by commas."
    )
    proxy_subject_header: Header = Field("x-forwarded-user", description="The proxy's header with the subject.")
    proxy_organisation_header: Header = Field(
        "x-forwarded-organisation", description="The proxy's header with the organisation."
    )
    proxy_permissions_header: Header = Field(
        "x-forwarded-permissions", description="The proxy's header with the permissions, by commas or spaces."
    )
    proxy_sandboxes_header: Header = Field(
        "x-forwarded-sandboxes", description="The proxy's header with the sandboxes; all of them when it is not sent."
    )
    hosts: Names = Field(
        (),
        description="Names that this server is reached by, by commas (`gateway.example.com`, `*.example.com`). "
        "With `auth=none` loopback names are taken as well, and no others; otherwise any name unless set.",
    )
    cors_origins: Names = Field(
        (),
        description="Origins whose pages may call this server, by commas (`https://app.example.com`); `*` for all, "
        "which is not possible with `auth=none`.",
    )
    cors_credentials: bool = Field(
        False, description="Whether those pages may send cookies, for a proxy that knows callers by one."
    )
    upload_idle_seconds: float = Field(
        30.0, gt=0, description="How long a request's body may pause before the request is given up."
    )
    head_seconds: float = Field(10.0, gt=0, description="How long a client may take to send the head of a request.")
    send_seconds: float = Field(
        30.0, gt=0, description="How long a client may read next to nothing of what is sent to it; then it is cut off."
    )
    worker: bool = Field(True, description="Whether `serve` also evaluates jobs.")
    server_processes: int = Field(
        1,
        ge=1,
        le=256,
        description="Processes in which `serve` answers (`--workers`); with more than one, jobs run in another one.",
    )
    concurrent_jobs: int = Field(2, ge=1, description="Jobs of each kind that one process does side by side.")
    concurrent_previews: int = Field(4, ge=1, description="Previews that one process reads side by side.")
    sandbox_previews: int = Field(
        2, ge=1, description="Previews of one sandbox that are read side by side, by all processes together."
    )
    threads: int = Field(2, ge=1, description="Buckets of a job that are evaluated side by side, and DuckDB's threads.")
    engine: Literal["local", "spark"] = Field(
        "local",
        description="What evaluates the buckets of segment jobs: `local`, threads of the worker, or `spark`, a cluster "
        "(`pip install 'segmentation-gateway[spark]'`).",
    )
    spark_master: str | None = Field(
        None,
        description="URL of the cluster of `engine=spark`: `spark://host:7077`, `sc://host:15002` (Spark Connect), "
        "`yarn`, `k8s://…`, or `local[2]` to try it on this machine.",
    )
    memory_limit: str = Field(
        "1GB", pattern=r"^\d+(\.\d+)?\s?[KMGT]i?B$", description="What DuckDB may use while it loads a batch."
    )
    definition_memory: str = Field(
        "1GB",
        pattern=r"^\d+(\.\d+)?\s?[KMGT]i?B$",
        description="What the evaluation of one definition may use; one that needs more fails by itself.",
    )
    definition_seconds: float = Field(
        60.0,
        gt=0,
        description="Processor time for one definition and bucket of people; one that takes longer fails by itself.",
    )
    time_zone: str = Field(
        "UTC",
        description="IANA name of the time zone that calendar words of PQL follow in sandboxes that name none.",
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
        description="Minutes after which streamed definitions that depend on the clock are evaluated for everybody "
        "once more, so that people leave whose 24 hours are over; 0: only batches and jobs evaluate them.",
    )
    keep_job_updates_days: int = Field(
        7, ge=1, description="Days for which the states of an ended job can be resumed from; the last one stays."
    )
    keep_memberships_days: int = Field(
        30, ge=1, description="Days that the memberships of a run stay once no audience and no job refers to them."
    )
    keep_previews_days: int = Field(7, ge=1, description="Days for which previews that have ended can be read.")
    keep_versions_hours: int = Field(
        24, ge=1, le=168, description="Hours that versions of the data stay, once replaced, for those who read them."
    )
    erased_people: Literal["refuse", "accept"] = Field(
        "refuse",
        description="What happens to rows of people who were erased: `refuse` rejects them, `accept` adds them as new "
        "profiles.",
    )
    drain_seconds: float = Field(
        0.0,
        ge=0,
        description="How long `serve` reports that it is not ready, and still serves, after it was asked to stop.",
    )
    shutdown_seconds: int = Field(
        5, ge=1, description="How long `serve` then waits for the requests in hand before it cuts them off."
    )
    max_body_bytes: int = Field(16 * 1024**2, ge=1024, description="Largest body of a request without files.")
    max_upload_bytes: int = Field(20 * 1024**3, ge=1, description="Largest file that `uploadBatch` takes.")
    max_tokens: int = Field(5_000, ge=100, description="Longest GraphQL document, in tokens.")
    max_depth: int = Field(15, ge=1, description="Deepest GraphQL selection.")
    max_aliases: int = Field(50, ge=0, description="Most aliases of one GraphQL document.")
    max_cost: int = Field(
        200_000,
        ge=1_000,
        le=10**12,
        description="Highest cost of an operation: fields, times the page sizes on the way to them.",
    )
    introspection: Literal["everybody", "identified", "nobody"] = Field(
        "everybody", description="Who may ask for the schema, and gets suggestions of its names in errors."
    )
    persisted_queries: int = Field(
        1_000,
        ge=0,
        description="Documents of clients that send hashes instead (Apollo's automatic persisted queries) that a "
        "process remembers; 0 for none.",
    )
    trusted_documents: Path | None = Field(
        None,
        description="File or folder of the only documents that run: `.graphql` files, or a manifest of Apollo's or "
        "Relay's tools (`.json`). Any document unless set.",
    )
    max_seconds: float = Field(
        60.0, gt=0, description="How long a query, or one item of a subscription, may take; then it is stopped."
    )
    rate_requests: int | None = Field(
        None,
        ge=0,
        description="Requests that one caller may send in a minute, to each process; 0 for any number. By default "
        "6,000, and any number with `auth=none`.",
    )
    rate_cost: int | None = Field(
        None,
        ge=0,
        description="Cost of the operations that one caller may send in a minute, to each process; 0 for any. By "
        "default 10,000,000, and any with `auth=none`.",
    )
    rate_failed_logins: int | None = Field(
        None,
        ge=0,
        description="Wrong credentials that one address may send in a minute, to each process; 0 for any number. By "
        "default 60, and any number with `auth=none`.",
    )
    max_streams: int | None = Field(
        None,
        ge=0,
        description="WebSockets and streams of server-sent events that one caller has open, to each process; 0 for any "
        "number. By default 1,000, and any number with `auth=none`.",
    )
    max_text: int = Field(100_000, ge=10_000, description="Longest text in an input, in characters.")
    max_list_items: int = Field(
        5_000, ge=500, le=5_000, description="Longest list in an input; more would not fit into one SQL statement."
    )
    max_json_depth: int = Field(100, ge=10, le=200, description="Deepest JSON in variables, in levels.")
    init_seconds: float = Field(5.0, gt=0, description="How long a WebSocket may take to send `connection_init`.")
    max_silent_sockets: int = Field(
        300, ge=1, description="WebSockets of one process that have not sent `connection_init` yet."
    )
    max_socket_operations: int = Field(100, ge=1, description="Operations that one WebSocket has open.")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="Least level of the lines that `serve` and `worker` write to standard error."
    )
    log_format: Literal["text", "json"] = Field("text", description="Form of these lines: text, or a JSON object each.")
    traces: Literal["off", "otlp"] = Field(
        "off",
        description="`otlp` sends traces of requests, SQL, jobs and buckets to where `OTEL_EXPORTER_OTLP_ENDPOINT` "
        "says; needs `pip install 'segmentation-gateway[traces]'`.",
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
    def _is_folder(cls, value: object) -> object:
        if _URL.match(str(value)):
            raise ValueError(
                "this is a URL, and a lake on object storage is not possible, since its tables and locks need a file "
                "system: name a folder on a local disk, or on a shared file system that app/docs/production.md names"
            )
        return value

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
        if name not in available_timezones():
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
    def batch_lease(self) -> timedelta:
        """A batch whose loader was silent for so long is given up: later than a job, which is not begun again."""
        return timedelta(seconds=4 * self.lease_seconds)

    @property
    def streaming_sweep(self) -> timedelta | None:
        """None for never."""
        return timedelta(minutes=self.streaming_sweep_minutes) if self.streaming_sweep_minutes else None

    @property
    def database(self) -> str:
        """The URL in effect."""
        return self.database_url or f"sqlite:///{(self.data_dir / 'segmentation.db').absolute()}"


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
"""Settings whose values are shown nowhere: the URL of a cluster may hold a token."""


def variables_of_file() -> set[str]:
    """The names of the variables in the `.env` of the working directory."""
    file = Path(str(Settings.model_config["env_file"]))
    return set(dotenv_values(file)) if file.is_file() else set()
