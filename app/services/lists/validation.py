"""Rules for names and labels, the same for every resource."""

from collections.abc import Sequence

from app.errors import ErrorCode, Refusal

LONGEST_NAME = 255
LONGEST_KEY = 255
MOST_LABELS = 100


def is_text(value: str) -> bool:
    """Whether databases and files can store the text: no NUL character, no lone surrogate.

    >>> is_text("Zoë 🙂"), is_text("a" + chr(0) + "b"), is_text(chr(0xD83D))
    (True, False, False)
    """
    try:
        return b"\0" not in value.encode()
    except UnicodeEncodeError:
        return False


def refuse_bad_name(name: str, refusals: list[Refusal]) -> None:
    """Adds an error if the name is empty, padded or too long."""
    if not name.strip():
        refusals.append(
            Refusal(ErrorCode.INVALID_INPUT, "the name is empty: give one that people recognise", ("name",))
        )
    elif name != name.strip():
        message = f"the name {name!r} begins or ends with white space: remove it"
        refusals.append(Refusal(ErrorCode.INVALID_INPUT, message, ("name",)))
    elif len(name) > LONGEST_NAME:
        message = f"the name has {len(name)} characters, at most {LONGEST_NAME} are allowed: shorten it"
        refusals.append(Refusal(ErrorCode.INVALID_INPUT, message, ("name",)))


def refuse_bad_key(key: str | None) -> None:
    """Raises `Refusal` for an idempotency key that is empty, too long or no text."""
    if key is None or (1 <= len(key) <= LONGEST_KEY and is_text(key)):
        return
    message = f"an idempotency key has 1 to {LONGEST_KEY} characters without NUL, this one {len(key):,}"
    raise Refusal(ErrorCode.INVALID_INPUT, message, ("idempotency_key",))


def refuse_bad_labels(labels: Sequence[str], refusals: list[Refusal]) -> None:
    """Adds an error for each label that is empty or has characters that cannot be searched for, and for too many
    labels."""
    if len(labels) > MOST_LABELS:
        message = f"there are {len(labels)} labels, and at most {MOST_LABELS} are allowed: leave some out"
        refusals.append(Refusal(ErrorCode.LIMIT_EXCEEDED, message, ("labels",)))
        return
    for at, label in enumerate(labels):
        if not label or not label.isprintable() or set('"%_\\') & set(label):
            message = f'the label {label!r} is empty or holds one of the characters " % _ \\: write it like core/C1'
            refusals.append(Refusal(ErrorCode.INVALID_INPUT, message, ("labels", str(at))))
