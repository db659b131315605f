"""Memory that the work of a job has left free in this process; knows no work."""

import ctypes
import sys

import pyarrow as pa


def release() -> None:
    """Gives back to the system what Arrow and the C library hold for later; takes some milliseconds.

    What the threads of a job free stays with their arenas otherwise, so that a server's memory grows from job to job.
    """
    pa.default_memory_pool().release_unused()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of the GNU library alone
        if trim is not None:
            trim(0)
