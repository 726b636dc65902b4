import subprocess
import sys

import pytest

FAULTS = """
import resource, sys
import numpy as np
from motionbox.extraction.worker import keep_freed_memory

if sys.argv[1] == "keep" and not keep_freed_memory():
    sys.exit(77)

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(50):
        np.ones((8, 1 << 18), np.uint8) + 1
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
print(faults())
"""


def count(how: str) -> int:
    done = subprocess.run([sys.executable, "-c", FAULTS, how], capture_output=True, text=True, check=False)
    if done.returncode == 77:
        pytest.skip("this C library has no mallopt")
    return int(done.stdout)


def test_freed_memory_is_not_faulted_in_again() -> None:
    assert count("keep") < 0.1 * count("leave")
