"""Questions about the profiles of a sandbox: why, who, how many, how they overlap, what changed."""
