"""What applications import: send requests, read answers, say what came of it. Needs Kafka and Avro,
nothing else.
"""

from __future__ import annotations

from tailrace.client.client import Client
from tailrace.client.errors import DeliveryFailed, Rejected, Timeout

__all__ = ["Client", "DeliveryFailed", "Rejected", "Timeout"]
