"""The table of operations, specified in `app/pql/core.py`. A new operation is a kernel and a row in its module."""

from app.engine.evaluate import arrays, chain, dates, joins, logic, samples, sets, text
from app.engine.evaluate.memo import Kernels

KERNELS = Kernels(
    rows={**logic.KERNELS, **text.KERNELS, **dates.KERNELS, **arrays.KERNELS, **sets.KERNELS, **samples.KERNELS},
    binders={**arrays.BINDERS, **chain.BINDERS, **joins.BINDERS},
)
