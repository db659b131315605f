"""Every setting, with its default and meaning; read by `main` and `cli` only, which hand on what each part needs."""

from datetime import timedelta
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Read from the environment (`SEGMENTATION_DATA_DIR=…`) and from a `.env` in the working directory."""

    model_config = SettingsConfigDict(env_prefix="SEGMENTATION_", env_file=".env", extra="ignore")

    data_dir: Path = Field(
        Path("data"), description="Folder of the lake, of uploads in transit and of the SQLite file."
    )
    database_url: str | None = Field(
        None, description="`postgresql://…` or `sqlite:///…`; by default `segmentation.db` in the data folder."
    )
    host: str = Field("127.0.0.1", description="Address that `serve` binds.")
    port: int = Field(8000, ge=0, le=65535, description="Port that `serve` binds; 0 takes a free one.")
    auth: Literal["none"] = Field("none", description="Everybody may do everything, on loopback addresses only.")
    worker: bool = Field(True, description="Whether `serve` also evaluates jobs.")
    concurrent_jobs: int = Field(2, ge=1, description="Jobs of each kind that one process does side by side.")
    concurrent_previews: int = Field(4, ge=1, description="Previews that one process reads side by side.")
    sandbox_previews: int = Field(
        2, ge=1, description="Previews of one sandbox that are read side by side, by all processes together."
    )
    threads: int = Field(2, ge=1, description="Buckets of a job that are evaluated side by side, and DuckDB's threads.")
    memory_limit: str = Field(
        "1GB", pattern=r"^\d+(\.\d+)?\s?[KMGT]i?B$", description="What DuckDB may use while it loads a batch."
    )
    lease_seconds: float = Field(
        15.0,
        ge=1,
        description="A job whose worker was silent for so long is taken over, and a batch after four times that.",
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
    max_upload_bytes: int = Field(20 * 1024**3, ge=1, description="Largest file that `uploadBatch` takes.")
    max_tokens: int = Field(5_000, ge=100, description="Longest GraphQL document, in tokens.")
    max_depth: int = Field(15, ge=1, description="Deepest GraphQL selection.")
    max_aliases: int = Field(50, ge=0, description="Most aliases of one GraphQL document.")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    @property
    def batch_lease(self) -> timedelta:
        """A batch whose loader was silent for so long is given up: later than a job, which is not begun again."""
        return timedelta(seconds=4 * self.lease_seconds)

    @property
    def database(self) -> str:
        """The URL in effect."""
        return self.database_url or f"sqlite:///{(self.data_dir / 'segmentation.db').absolute()}"


class InvalidSettings(Exception):
    """Settings that cannot be used; the message names each variable, its value and what is wrong."""


def load_settings(**overrides: object) -> Settings:
    """The settings in effect; `overrides` win over the environment. Raises `InvalidSettings`."""
    try:
        return Settings(**{name: value for name, value in overrides.items() if value is not None})  # type: ignore[arg-type]
    except ValidationError as error:
        lines = [
            f"SEGMENTATION_{'_'.join(map(str, problem['loc'])).upper()}={problem['input']!r}: {problem['msg']}"
            for problem in error.errors()
        ]
        raise InvalidSettings("\n".join(lines)) from None
