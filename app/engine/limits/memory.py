"""Memory that finished jobs leave unused in this process; knows no particular work."""

import ctypes
import sys

import pyarrow as pa


def release() -> None:
    """Returns memory cached by Arrow and the C library to the system; takes a few milliseconds.

    Otherwise memory freed by a job's threads stays in their arenas, and a server's memory grows with every job.
    """
    pa.default_memory_pool().release_unused()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # only in the GNU library
        if trim is not None:
            trim(0)
