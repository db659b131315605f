"""Whose data a call may touch; a leaf that imports nothing of ours."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Tenant:
    """One sandbox of one organisation: the partition that every resource belongs to."""

    organisation: str
    sandbox: str


@dataclass(frozen=True, slots=True)
class Scope:
    """The tenant of a call and who calls. Every read and write of `services` is within it."""

    organisation: str
    sandbox: str
    user: str
    permissions: frozenset[str] = field(default_factory=lambda: frozenset({"read", "write", "run", "admin"}))

    @property
    def tenant(self) -> Tenant:
        return Tenant(self.organisation, self.sandbox)
