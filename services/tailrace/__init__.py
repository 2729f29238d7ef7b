"""The feedback loop for machine-learning models in production, on Kafka.

Applications use :class:`Client`, which needs Kafka and Avro only. :func:`publish` makes a scikit-learn
estimator the next version of a model, and needs the extras ``services`` and ``train``. Each is loaded when it
is first named.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tailrace.client import Client, DeliveryFailed, Rejected, Timeout
    from tailrace.control.publish import publish

__all__ = ["Client", "DeliveryFailed", "Rejected", "Timeout", "publish"]

_HOMES = dict.fromkeys(("Client", "DeliveryFailed", "Rejected", "Timeout"), "tailrace.client") | {
    "publish": "tailrace.control.publish"
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'tailrace' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
