from __future__ import annotations

import os
import subprocess
import sys

import pytest

# how many page faults it takes to make and drop 30 tensors of 8 MB
CODE = """
import resource, torch
from itemic.training.memory import keep_buffers
torch.set_num_threads(1)
print(keep_buffers())
torch.zeros(2_000_000)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(30):
    torch.zeros(2_000_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def run(**environment: str) -> tuple[str, int]:
    out = subprocess.run(
        [sys.executable, "-c", CODE],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **environment},
    )
    told, faults = out.stdout.split()
    return told, int(faults)


@pytest.mark.skipif(sys.platform != "linux", reason="malloc is tuned on glibc alone")
def test_freed_tensors_stay_in_the_process() -> None:
    told, faults = run()
    if told != "True":
        pytest.skip("not glibc, or malloc is tuned by the environment already")
    # a user's own setting wins: here, to hand everything back at once
    told, without = run(MALLOC_MMAP_THRESHOLD_="1000000")
    assert told == "False"
    assert faults < without / 2
