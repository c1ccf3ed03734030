"""Kernels run on a GPU, or in Triton's interpreter, which `test_interpreted.py` starts; elsewhere they are left out."""

import os

import pytest
import torch

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
#: What has kernels, and the files that run them.
OPERATIONS = ("em_attention", "em_output", "local_attention", "gating", "largest", "boundary", "fusion", "forms")
RUNNING = [f"test_{name}.py" for name in OPERATIONS]

collect_ignore = [] if INTERPRETED or torch.cuda.is_available() else RUNNING


@pytest.fixture
def device():
    return "cpu" if INTERPRETED else "cuda"


@pytest.fixture(params=["float32", "float16", "bfloat16"])
def precision(request):
    """A dtype, and the relative error that its rounding explains."""
    if INTERPRETED and request.param == "bfloat16":
        pytest.skip("the interpreter multiplies bfloat16 wrongly")
    return getattr(torch, request.param), {"float32": 3e-6, "float16": 1e-2, "bfloat16": 3e-2}[request.param]


def far(found, wanted):
    """The relative distance, in the Euclidean norm."""
    wanted = wanted.double().cpu()
    return ((found.double().cpu() - wanted).norm() / wanted.norm().clamp_min(1e-12)).item()


def check_operator(operator, arguments):
    """That an operator says what it writes and returns and how it is differentiated; compiling is tested apart."""
    kinds = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(operator, arguments, test_utils=kinds)


@pytest.fixture(name="far")
def far_fixture():
    return far
