"""Fixed samples of profiles: membership in a sample is the same on every machine and in every run."""

import hashlib

import numpy as np

from app.engine.evaluate.columns import Text, Value, condition
from app.engine.evaluate.memo import Call, RowKernel

_SPACE = 1 << 64


def sampled(salt: str, percent: float, profile: str) -> bool:
    """Whether the first 64 bits of SHA-256 over salt, a zero byte and the profile's id are below the percentage.

    >>> [sampled("spring", 50, f"crm:{number}") for number in range(6)]
    [True, False, True, False, True, True]
    """
    number = int.from_bytes(hashlib.sha256(f"{salt}\0{profile}".encode()).digest()[:8], "big")
    return number < int(percent / 100 * _SPACE)


def _sample(call: Call, profiles: Value) -> Value:
    """Tests profile ids; a profile without an id is in no sample."""
    if not isinstance(profiles, Text):
        raise TypeError("a sample is of profiles by their ids")
    salt, percent = call.node.payload
    sampled_profiles = [sampled(salt, percent, id) for id in profiles.dictionary.to_pylist()]
    return condition(profiles.lookup(np.array([*sampled_profiles, False])))


KERNELS: dict[str, RowKernel] = {"sample": _sample}
