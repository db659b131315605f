"""Combines checked expressions into one plan that all definitions of a job share.

It works like a query optimiser, but on a graph instead of a tree, and on many queries at once:

1. **Rewrite** (`rules`): a short list of rules makes each condition cheaper without changing its meaning. First, equal
   nodes of all definitions become one object: the engine computes each node once per bucket, so common parts are
   scanned once. The rules aim to give as many definitions as possible the same first filter.
2. **Order** (`plan`): definitions that others reference with `inSegment` come first.
3. **Project** (`projection`): load only the columns that the graph reads.
4. **Lifetimes** (`plan`): count the users of each node, so that its column is dropped after its last use.

There are no statistics or costs: rules only consider the shape of a condition, so that a plan depends on nothing but
its definitions.
"""
