"""The failure of a single definition; knows nothing else."""


class EvaluationError(Exception):
    """A definition that cannot be evaluated; the others continue. `code` is for programs, `message` for people."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def dependency_failed(id: str, cause: EvaluationError) -> EvaluationError:
    """The error of a definition that references one that failed."""
    return EvaluationError("DEPENDENCY_FAILED", f"the segment {id}, which it refers to, failed: {cause.message}")
