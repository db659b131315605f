"""Schedules: what clients ask of them, and the runs that fall due."""
