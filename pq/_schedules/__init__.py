"""Schedules: jobs that are put again and again, by the clock."""

from .schedule import Schedule, ScheduleInfo, check_schedule
from .store import Schedules, declare
from .ticker import Ticker

__all__ = ["Schedule", "ScheduleInfo", "Schedules", "Ticker", "check_schedule", "declare"]
