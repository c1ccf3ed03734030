"""Cases of every kind of ending, for the process that checks kernels."""

import os
import time

import torch

from segcontext.gpu_check.case import Case, Work


def fine():
    return (torch.tensor(0.1),)


def wrong():
    return (torch.tensor(0.1 if os.environ.get("SEGCONTEXT_TRITON") == "0" else 0.7),)


def ill_conditioned():
    return (torch.tensor(0.7),)


def fails():
    raise RuntimeError("out of resource: shared memory\nRequired: much")


def aborts():
    os.abort()


def hangs():
    time.sleep(60)


def case(call):
    work = Work(call, lambda found: found[0].item(), 0.5)
    return Case("op", torch.float32, False, call.__name__, False, lambda device: work)


def failing_cases(**options):
    return [case(each) for each in (fine, wrong, ill_conditioned, fails, fine)]


def crashing_cases(**options):
    return [case(each) for each in (fine, aborts, hangs)]
