"""Questions about the profiles of a snapshot: who, how many, in which order, and why; knows no audiences' rows."""
