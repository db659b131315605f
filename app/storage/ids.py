"""Row ids: unique, and sortable by creation time; knows no table."""

import secrets
from datetime import datetime

_VERSION = 0x7 << 76
_VARIANT = 0x2 << 62


def new_id(now: datetime) -> str:
    """A UUID version 7 (RFC 9562) for the instant `now`: 48 bits of milliseconds, 12 of microseconds, 62 random.

    >>> from datetime import UTC, datetime
    >>> new_id(datetime(2026, 6, 15, 12, 0, 0, 123456, tzinfo=UTC))[:18]
    '019ecb27-227b-774b'
    """
    milliseconds = int(now.timestamp()) * 1000 + now.microsecond // 1000
    fraction = (now.microsecond % 1000) * 4096 // 1000
    number = milliseconds << 80 | _VERSION | fraction << 64 | _VARIANT | secrets.randbits(62)
    text = f"{number:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
