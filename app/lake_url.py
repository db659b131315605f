"""Locations of a lake: a folder, or the URL of object storage."""

import re
from pathlib import Path
from urllib.parse import urlsplit

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
"""The start of `s3://bucket`, even after a shell or a path library has removed one of its slashes."""


def lake_place(text: str) -> Path | str:
    """The folder, or the URL of object storage as text. Raises `ValueError`.

    >>> lake_place("data"), lake_place("s3://people/eu/")
    (PosixPath('data'), 's3://people/eu')
    """
    if not _URL.match(text):
        return Path(text)
    url = urlsplit(text)
    if url.scheme != "s3" or not url.netloc or "@" in url.netloc or url.query or url.fragment:
        raise ValueError(
            "this is neither a folder nor object storage: write s3://bucket or s3://bucket/prefix, and set the "
            "endpoint and credentials in AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    return f"s3://{url.netloc}/{url.path.strip('/')}".rstrip("/")


def object_storage_misfit(engine: str, database_url: str | None) -> str | None:
    """Why a lake on object storage conflicts with other settings, and what to do; None if it does not."""
    if engine == "spark":
        return "SEGMENTATION_ENGINE=spark reads the lake as files: name a folder in SEGMENTATION_DATA_DIR, not a URL"
    if not database_url:
        return (
            "with a lake on object storage SEGMENTATION_DATABASE_URL must be set: to the PostgreSQL of all hosts, or "
            "to a SQLite file if there is only one host"
        )
    return None
