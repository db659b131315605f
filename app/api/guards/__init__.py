"""What an operation may do and may cost, checked before and while it runs."""
