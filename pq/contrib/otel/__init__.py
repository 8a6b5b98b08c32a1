"""Spans and metrics by OpenTelemetry: the extra ``pq[otel]``.

    from pq.contrib import otel

    pq.instrument(otel.Instrument())
"""

from .instrument import Instrument

__all__ = ["Instrument"]
