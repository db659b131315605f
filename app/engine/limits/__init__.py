"""What work may use of memory, time and threads, and how it is stopped; knows no work."""
