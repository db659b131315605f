"""Schedules: requests from clients, and due runs."""
