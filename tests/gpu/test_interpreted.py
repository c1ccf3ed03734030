"""The numbers of the kernels without a GPU, in a process whose Triton interprets them: it asks once, at its import."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tests.gpu.conftest import RUNNING

pytest.importorskip("triton")


@pytest.mark.skipif(torch.cuda.is_available(), reason="they run on the GPU here")
def test_kernels():
    # Triton before 3.7 converts arrays to numbers as NumPy no longer likes.
    lenient = ["-W", "ignore:Conversion of an array with ndim:DeprecationWarning"]
    # One process for all files: half of what each took was its imports.
    paths = [str(Path(__file__).parent / name) for name in RUNNING]
    command = [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", *lenient, *paths]
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    run = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=280)
    if "only 0-dimensional arrays can be converted" in run.stdout:
        pytest.skip("this Triton's interpreter does not go with this NumPy")
    assert run.returncode == 0, run.stdout + run.stderr
    assert set(re.findall(r"(test_\w+\.py)::\S+ PASSED", run.stdout)) == set(RUNNING)
