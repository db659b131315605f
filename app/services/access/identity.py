"""The identity of a caller, and the tenants it may choose; knows no HTTP and no database."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from app.errors import ErrorCode, Refusal
from app.scope import EVERYTHING, Scope

LONGEST_NAME = 128
DEFAULT_ORGANISATION = "default"
DEFAULT_SANDBOX = "prod"


class Unauthenticated(Exception):
    """The caller has no valid identity; the message says what is wrong with the credentials and what to do."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A caller. Without an `organisation` or `sandboxes` it may choose any."""

    subject: str
    organisation: str | None
    permissions: frozenset[str]
    sandboxes: frozenset[str] | None = None
    expires_at: datetime | None = None
    key_id: str | None = None
    """Id of the API key used, if any."""

    def scope(self, organisation: str | None, sandbox: str | None) -> Scope:
        """The requested tenant; the names must have passed `tenant_name`.

        Raises `Refusal` if the caller may not use it.
        """
        if self.organisation is not None and organisation not in (None, self.organisation):
            message = f"this caller belongs to the organisation {self.organisation!r} and cannot use {organisation!r}"
            raise Refusal(ErrorCode.FORBIDDEN, f"{message}: omit the organisation")
        sandbox_name = sandbox or self._own_sandbox()
        if self.sandboxes is not None and sandbox_name not in self.sandboxes:
            message = f"this caller may not use the sandbox {sandbox_name!r}, only {', '.join(sorted(self.sandboxes))}"
            raise Refusal(ErrorCode.FORBIDDEN, f"{message}: choose one of them")
        own = self.organisation or organisation or DEFAULT_ORGANISATION
        return Scope(own, sandbox_name, self.subject, self.permissions, self.sandboxes)

    def _own_sandbox(self) -> str:
        """The sandbox of a caller who does not name one."""
        return next(iter(self.sandboxes)) if self.sandboxes and len(self.sandboxes) == 1 else DEFAULT_SANDBOX


ANONYMOUS = Identity("anonymous", None, EVERYTHING)
"""The identity of every caller without authentication."""


def is_name(value: object) -> bool:
    """Whether the text is a valid name of an organisation, sandbox or subject."""
    return isinstance(value, str) and bool(value.strip()) and len(value) <= LONGEST_NAME and value.isprintable()


def tenant_name(field: str, value: object) -> str:
    """The name in a header or claim. Raises `Refusal` with `field` as its path."""
    if not isinstance(value, str) or not is_name(value):
        message = f"{field} is {value!r}: it must be 1 to {LONGEST_NAME} printable characters, or be left out"
        raise Refusal(ErrorCode.INVALID_INPUT, message, (field,))
    return value.strip()


class KeysUnavailable(ConnectionError):
    """The key set is unavailable and no earlier copy is cached."""


@dataclass(frozen=True, slots=True)
class TokenRules:
    """Requirements for tokens. Exactly one of `secret` (HS256) and `jwks` (a file or a URL) is set."""

    secret: str | None = None
    jwks: str | None = None
    issuer: str | None = None
    audience: str | None = None
    leeway: timedelta = timedelta(seconds=30)
