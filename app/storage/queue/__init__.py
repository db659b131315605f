"""The queue: leases, job claims, attempts, shares of jobs, live workers, and turns of streaming evaluation."""
