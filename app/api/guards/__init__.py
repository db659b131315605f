"""Authorization, cost and limits of operations, checked before and while they run."""
