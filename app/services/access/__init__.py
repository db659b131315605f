"""Who a caller is, what its keys are, and what it did."""
