"""Quartz cron expressions."""

from app.quartz.cron import Cron, daily, parse, upcoming

__all__ = ["Cron", "daily", "parse", "upcoming"]
