"""The table of operations (`app/pql/core.py` has their meaning); a new one is a kernel and its row in a module."""

from app.engine.evaluate import arrays, chain, dates, logic, samples, sets, text
from app.engine.evaluate.memo import Kernels

KERNELS = Kernels(
    rows={**logic.KERNELS, **text.KERNELS, **dates.KERNELS, **arrays.KERNELS, **sets.KERNELS, **samples.KERNELS},
    binders={**arrays.BINDERS, **chain.BINDERS},
)
