"""The kernels for a GPU held against float64 and timed, each in a process that may fail."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from typing import Any

import torch

from segcontext.errors import KernelError, RecipeError, nearest
from segcontext.gpu.record import Verdict
from segcontext.gpu_check.case import Case, Finding
from segcontext.gpu_check.cases import OPERATIONS, all_cases
from segcontext.gpu_check.examining import examine

__all__ = ["NEEDS", "check_kernels", "verdicts"]

#: What the kernels run on.
NEEDS = (
    "The check needs an NVIDIA GPU of compute capability 8.0 or newer, PyTorch for CUDA, and the triton that comes "
    "with it. TRITON_INTERPRET=1 segcontext check-gpu --small tries the kernels without a GPU, in Triton's interpreter."
)

#: Seconds that a process is given to import PyTorch and to wake the GPU.
START = 300

#: Seconds, a day, that a case is given at most.
LONGEST = 86_400

#: Kernels that take at most so much longer than what runs without them are not called slower: clocks differ as much.
NOISE = 1.02


def check_kernels(
    device: str = "cuda",
    *,
    small: bool = False,
    only: Collection[str] = (),
    rounds: int = 15,
    timeout: float = 300,
    tell: Callable[[Finding], None] = lambda finding: None,
    cases: Callable[..., Sequence[Case]] = all_cases,
) -> list[Finding]:
    """Runs each case of the kernels in another process.

    A case that fails, ends its process or gives no answer is reported as such; the next ones run in a fresh process.

    Args:
        device: a CUDA device; or ``"cpu"`` under ``TRITON_INTERPRET=1``, where Triton's interpreter runs the kernels.
        small: tiny cases alone, and no times.
        only: names of operations, for those alone.
        rounds: how often each is timed, at least once.
        timeout: seconds without an answer after which a case is given up, above 0 and at most a day; compiling counts.
        tell: is told each finding as it comes.
        cases: gives the cases; importable by its name.

    Returns:
        A finding for each case, in their order.

    Raises:
        RecipeError: there is no such operation, or so many rounds or seconds cannot be.
        KernelError: kernels cannot run here at all.
    """
    for name in only:
        if name not in OPERATIONS:
            hint = nearest(name, OPERATIONS)
            raise RecipeError(f"There are kernels of {', '.join(OPERATIONS)}, but not of '{name}'.{hint}")
    if rounds < 1:
        raise RecipeError(f"rounds must be at least 1, not {rounds}.")
    if not 0 < timeout <= LONGEST:
        raise RecipeError(f"timeout must be seconds above 0, at most {LONGEST}, not {timeout:g}.")
    options = {"small": small, "interpreted": torch.device(device).type == "cpu", "only": tuple(only)}
    wanted = list(cases(**options))
    findings: list[Finding] = []
    while len(findings) < len(wanted):
        for finding in _in_a_process(cases, options, device, wanted[len(findings) :], rounds, timeout):
            findings.append(finding)
            tell(finding)
    return findings


def verdicts(findings: Sequence[Finding]) -> list[Verdict]:
    """Which kernels are to be taken: of whose cases all agreed, and none was slower.

    Args:
        findings: of `check_kernels`, all of them.

    Returns:
        One for each operation, dtype and direction; where nothing was timed, nothing is taken.
    """
    groups: dict[tuple[str, str, bool], list[Finding]] = {}
    for finding in findings:
        groups.setdefault(finding[:3], []).append(finding)
    return [Verdict(*key, taken=_deserve(group)) for key, group in groups.items()]


def _deserve(findings: Sequence[Finding]) -> bool:
    times = [(each.kernels, each.otherwise) for each in findings if each.kernels is not None]
    fast = [other is not None and own <= NOISE * other for own, other in times]
    return all(each.agreed for each in findings) and bool(fast) and all(fast)


def _in_a_process(
    cases: Callable[..., Sequence[Case]],
    options: dict[str, Any],
    device: str,
    wanted: Sequence[Case],
    rounds: int,
    timeout: float,
) -> Iterator[Finding]:
    """The findings of one process, the last of which may be that it failed.

    Args:
        cases: gives all of them.
        options: for that.
        device: where they run.
        wanted: those that are left.
        rounds: how often each is timed.
        timeout: seconds without an answer after which a case is given up.
    """
    context = multiprocessing.get_context("spawn")
    answers, theirs = context.Pipe(duplex=False)
    given = (theirs, cases, options, device, -len(wanted), rounds)
    process = context.Process(target=examine, args=given, daemon=True)
    process.start()
    theirs.close()
    case: Case | None = None
    try:
        missing = answers.recv() if answers.poll(START) else f"no answer within {START} s"
        if missing is not None:
            raise KernelError(f"The kernels for the GPU cannot run here: {missing}. {NEEDS}")
        for case in wanted:
            if not answers.poll(timeout):
                yield Finding.failed(case, f"no answer within {timeout:g} s")
                return
            found: Finding = answers.recv()
            yield found
            if found.failure is not None:
                return
    except EOFError:
        process.join(10)
        if case is None:
            raise KernelError("The process that runs the kernels for the GPU ended before it began.") from None
        yield Finding.failed(case, f"its process ended ({_ending(process.exitcode)})")
    finally:
        process.kill()
        # One that waits for the driver cannot be killed.
        process.join(10)
        answers.close()


def _ending(code: int | None) -> str:
    if code is not None and code < 0:
        with suppress(ValueError):
            return signal.Signals(-code).name
    return f"exit code {code}"
