"""Transactions whose frequent statements go directly to the driver."""
