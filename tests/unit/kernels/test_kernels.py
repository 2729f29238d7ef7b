"""What compiled kernels cost a process that starts."""

from __future__ import annotations

import subprocess
import sys


def test_linear_algebra_is_not_loaded_for_kernels_but_can_be_later() -> None:
    program = (
        "import sys, tailrace.kernels.compiler\n"
        "assert 'scipy.linalg' not in sys.modules\n"
        "import scipy.linalg\n"
        "print(scipy.linalg.det([[2.0, 0.0], [0.0, 3.0]]))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout == "6.0\n", done.stderr
