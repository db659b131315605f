"""The queue: leases, claims of jobs, attempts at them, and turns of streaming evaluation."""
