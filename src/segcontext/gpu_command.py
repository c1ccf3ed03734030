"""What ``segcontext check-gpu`` does with its options."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from segcontext.errors import KernelError, RecipeError

__all__ = ["run_check_gpu"]


def run_check_gpu(given: dict[str, Any], console: Console) -> int:
    """``segcontext check-gpu``: tries the kernels for a GPU and keeps what was found; 1 where some are not right."""
    import torch

    from segcontext.gpu.record import machine, write_record
    from segcontext.gpu.trust import forget
    from segcontext.gpu_check import Finding, check_kernels, verdicts

    device = torch.device(_device(given.pop("device", None)))
    whole = device.type == "cuda" and not given.get("small") and not given.get("only")

    def tell(finding: Finding) -> None:
        words = "ok" if finding.agreed else f"[red]{escape(finding.failure or 'wrong')}[/]"
        console.print(f"{_named(finding)}, {escape(finding.what)}: {words}", highlight=False, soft_wrap=True)

    findings = check_kernels(str(device), tell=tell, **given)
    table = Table("operation", "dtype", "error", "ms", "without", "ratio", "", title=_title(device), box=None)
    found = verdicts(findings)
    for verdict in found:
        group = [each for each in findings if each[:3] == verdict[:3]]
        timed = [each for each in group if each.kernels is not None and each.otherwise is not None]
        errors = [each.error for each in group if each.error is not None]
        table.add_row(
            verdict.operation,
            f"{_SHORT.get(verdict.dtype, verdict.dtype)}{' + grad' if verdict.gradients else ''}",
            f"{max(errors):.1e}" if errors else "",
            "\n".join(f"{each.kernels:.3f}" for each in timed),
            "\n".join(f"{each.otherwise:.3f}" for each in timed),
            "\n".join(f"{(each.otherwise or 0) / (each.kernels or 1):.2f}×" for each in timed),
            _word(group, taken=verdict.taken, timed=bool(timed)),
        )
    console.print(table)
    if whole:
        path = write_record(machine(device.index or 0), found, [each._asdict() for each in findings])
        forget()
        console.print(f"The automatic choice goes by this from now on: {escape(str(path))}", soft_wrap=True)
    else:
        console.print("Nothing is kept of this: the automatic choice goes by a whole check on a GPU.", soft_wrap=True)
    return 0 if all(each.agreed for each in findings) else 1


_SHORT = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}


def _device(asked: str | None) -> str:
    import os

    import torch

    from segcontext.devices import usable_device
    from segcontext.gpu_check import NEEDS

    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    if asked is not None:
        name = usable_device(asked)
    elif torch.cuda.is_available() and not interpreted:
        name = f"cuda:{torch.cuda.current_device()}"
    elif interpreted:
        name = "cpu"
    else:
        raise KernelError(f"PyTorch sees no GPU here. {NEEDS}")
    kind = torch.device(name).type
    if kind != "cuda" and not (kind == "cpu" and interpreted):
        raise RecipeError(f"'{name}' is no NVIDIA GPU. {NEEDS}")
    return name


def _title(device: Any) -> str:
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else "Triton's interpreter, on the CPU"


def _named(finding: Any) -> str:
    return f"{finding.operation}, {finding.dtype}{', with gradients' if finding.gradients else ''}"


def _word(group: list[Any], *, taken: bool, timed: bool) -> str:
    if taken:
        return "[green]taken[/]"
    if any(each.failure for each in group):
        return "[red]failed[/]"
    if not all(each.agreed for each in group):
        return "[red]wrong[/]"
    return "[yellow]slower[/]" if timed else "right"
