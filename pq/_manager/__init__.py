"""The base of `pq.PQ`: the queues of one table, and what stands beside them, without tasks."""

from .manager import PQ

__all__ = ["PQ"]
