"""From checked expressions to one plan that all definitions of a job share.

It works as a query optimiser does, on a graph instead of a tree, and on many queries at once:

1. **Rewrite** (`rules`): each condition goes through a short list of rules that keep its meaning and make it cheaper.
   Equal nodes become one object first, across all definitions: the engine computes each node once a bucket, so that
   what two definitions have in common is scanned once. The rules aim at the same first filter for as many as possible.
2. **Order** (`plan`): definitions that others refer to by `inSegment` come first.
3. **Project** (`projection`): only the columns that the graph reads are loaded.
4. **Lifetimes** (`plan`): how many nodes use a node, so that its column is dropped after its last use.

There are no statistics and no costs: what a rule looks at is the shape of a condition alone, so that a plan depends on
nothing but its definitions.
"""
