"""Marks for tests that need what this kernel may not have. Where CI is true, they run all the same, and fail."""

from __future__ import annotations

import os

import pytest

from tailrace.confinement import landlock

IS_CI = os.environ.get("CI") == "true"
needs_landlock = pytest.mark.skipif(
    not landlock.version() and not IS_CI,
    reason="this kernel has no Landlock: docs/security.md says what that means",
)
needs_ports = pytest.mark.skipif(
    landlock.version() < landlock.NETWORK_SINCE and not IS_CI,
    reason="this kernel has no Landlock rules for TCP",
)
