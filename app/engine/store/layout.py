"""The buckets of a sandbox: how many there are, and which one a person is in; knows no files.

A sandbox starts with 2^k buckets. When these are full, new people get new buckets: another *generation*, at least as
many as there are already. Nobody ever moves, so files, memberships and cursors of any age stay valid. A hash of the id
names one bucket of each generation, in one of which the person is. These buckets have the same *slot*: people of
different generations came at different times, but those of some slots are a random sample of all people.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass

from app.errors import ErrorCode, Refusal

PEOPLE_IN_A_BUCKET = 1 << 16
FEWEST_BUCKET_BITS = 4
MOST_BUCKET_BITS = 14
"""Of one generation."""
MOST_BUCKETS = 1 << (MOST_BUCKET_BITS + 1)
_SLOT_BITS = MOST_BUCKET_BITS
"""Lower bits of a bucket's number for its slot; the others number the buckets of a slot."""
_ADDED = "added_bits"


@dataclass(frozen=True, slots=True)
class Generation:
    """2^`bits` buckets; 2^`slot_bits` of them have the number `first` within their slot, and so on."""

    first: int
    slot_bits: int
    bits: int

    def bucket_of(self, profile_id: str) -> int:
        """The bucket of a person by the id `namespace:id`; `bucket_sql` is the equivalent SQL."""
        number = hash_of(profile_id)
        slot, rest = number & self._mask(self.slot_bits), number >> self.slot_bits
        return ((self.first + (rest & self._mask(self.bits - self.slot_bits))) << _SLOT_BITS) + slot

    def bucket_sql(self, hash: str) -> str:
        """The bucket as SQL; `hash` is an SQL expression, such as `hash_sql` returns."""
        slot = f"({hash} & {self._mask(self.slot_bits)})"
        rest = f"(({hash} >> {self.slot_bits}) & {self._mask(self.bits - self.slot_bits)})"
        return f"((({self.first} + {rest}) << {_SLOT_BITS}) + {slot})::INTEGER"

    def __contains__(self, bucket: int) -> bool:
        number = (bucket >> _SLOT_BITS) - self.first
        return 0 <= number < 1 << (self.bits - self.slot_bits) and slot_of(bucket) < 1 << self.slot_bits

    @staticmethod
    def _mask(bits: int) -> int:
        return (1 << bits) - 1


@dataclass(frozen=True, slots=True)
class Layout:
    """The generations of a sandbox by the logarithms of their sizes, oldest first; none has fewer buckets than the
    first.

    >>> layout = Layout((4, 4, 5))
    >>> layout.buckets, [generation.bucket_of("CRM:1") for generation in layout.generations]
    (64, [0, 16384, 49152])
    """

    bits: tuple[int, ...]

    @property
    def buckets(self) -> int:
        return sum(1 << bits for bits in self.bits)

    @property
    def generations(self) -> list[Generation]:
        first, generations = 0, []
        for bits in self.bits:
            generations.append(Generation(first, self.bits[0], bits))
            first += 1 << (bits - self.bits[0])
        return generations

    def __contains__(self, bucket: int) -> bool:
        return any(bucket in generation for generation in self.generations)

    def grown(self, present: int, new: int, people_in_a_bucket: int) -> "Layout":
        """The layout in which `new` people find room; `present` are the people of the last generation.

        A new generation has at least as many buckets as there are already. Above `MOST_BUCKETS` buckets become larger.
        """
        if present + new <= people_in_a_bucket << self.bits[-1]:
            return self
        bits = _bits_for(new, people_in_a_bucket, max(self.bits[0], (self.buckets - 1).bit_length()))
        while bits >= self.bits[0] and self.buckets + (1 << bits) > MOST_BUCKETS:
            bits -= 1
        return Layout((*self.bits, bits)) if bits >= self.bits[0] else self

    def require(self, buckets: Iterable[int]) -> None:
        """Raises `LayoutLost` unless these buckets with people exist."""
        unknown = [bucket for bucket in buckets if bucket not in self]
        if unknown:
            problem = f"layout.json says {self.buckets:,} buckets, but there are profiles in bucket {min(unknown)}"
            raise LayoutLost(problem)

    def as_json(self) -> bytes:
        # The total is redundant: one damaged digit would mean a different layout.
        content: dict[str, object] = {"bucket_bits": self.bits[0], "buckets": self.buckets}
        return json.dumps(content | ({_ADDED: self.bits[1:]} if len(self.bits) > 1 else {})).encode()

    @classmethod
    def from_json(cls, content: bytes) -> "Layout":
        """Raises `LayoutLost`."""
        try:
            stored = json.loads(content)
            bits = (stored["bucket_bits"], *stored.get(_ADDED, ()))
        except (ValueError, KeyError, TypeError, AttributeError):
            raise LayoutLost("layout.json cannot be read") from None
        for number in bits:
            if type(number) is not int or not FEWEST_BUCKET_BITS <= number <= MOST_BUCKET_BITS or number < bits[0]:
                raise LayoutLost(f"layout.json says {number!r} bits, which this program never wrote")
        layout = cls(bits)
        # Earlier versions did not store the total.
        if stored.get("buckets", 1 << bits[0]) != layout.buckets:
            says = " and ".join(map(str, bits))
            raise LayoutLost(f"layout.json says {says} bits, but {stored.get('buckets')!r} buckets")
        return layout


def first_layout(people: int, people_in_a_bucket: int) -> Layout:
    """The layout of a sandbox that starts with this many people."""
    return Layout((_bits_for(people, people_in_a_bucket, FEWEST_BUCKET_BITS),))


def _bits_for(people: int, people_in_a_bucket: int, fewest: int) -> int:
    bits = fewest
    while bits < MOST_BUCKET_BITS and people > people_in_a_bucket << bits:
        bits += 1
    return min(bits, MOST_BUCKET_BITS)


class LayoutLost(Refusal):
    """The bucket layout is unknown; guessing would lose existing people and duplicate them."""

    def __init__(self, problem: str) -> None:
        super().__init__(
            ErrorCode.INVALID_STATE,
            f"{problem}, and without it no profile could be found: restore it from a copy of the lake "
            "(`segmentation doctor` names the folder)",
        )
        self.problem = problem


def hash_of(profile_id: str) -> int:
    """The hash of a person's id `namespace:id`, which chooses the buckets; `hash_sql` is the equivalent SQL."""
    return int.from_bytes(hashlib.md5(profile_id.encode()).digest()[8:], "little") & ((1 << MOST_BUCKET_BITS) - 1)


def hash_sql(profile_id: str) -> str:
    """The hash as SQL; `profile_id` is an SQL expression."""
    return f"(md5_number_lower({profile_id}) & {(1 << MOST_BUCKET_BITS) - 1})::INTEGER"


def slot_of(bucket: int) -> int:
    """What the buckets of one hash have in common over all generations; `slot_sql` is the equivalent SQL."""
    return bucket & ((1 << _SLOT_BITS) - 1)


def slot_sql(bucket: str) -> str:
    """The slot as SQL; `bucket` is an SQL expression."""
    return f"({bucket} & {(1 << _SLOT_BITS) - 1})"
