"""Waiting for a queue."""

from .polling import Polling
from .room import WaitingRoom
from .waiter import Waiter

__all__ = ["Polling", "Waiter", "WaitingRoom"]
