"""Models as data: packages, what is checked before one is opened, and what runs them."""

import os

# ONNX Runtime's builds tell Microsoft which models are opened, their names and hashes of their weights among it, unless
# this is set before they are loaded; `onnxruntime.disable_telemetry_events` comes too late for its threads and files.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
