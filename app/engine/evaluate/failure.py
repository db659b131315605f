"""How one definition fails alone; knows nothing else."""


class EvaluationError(Exception):
    """A definition that cannot be evaluated; the others go on. `code` is for programs, `message` for people."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def dependency_failed(id: str, cause: EvaluationError) -> EvaluationError:
    """Of a definition that refers to one that failed."""
    return EvaluationError("DEPENDENCY_FAILED", f"the segment {id}, which it refers to, failed: {cause.message}")
