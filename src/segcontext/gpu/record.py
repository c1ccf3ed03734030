"""What `segcontext check-gpu` found out about the kernels on a GPU, kept for later processes."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import torch

from segcontext.files import atomic_path, user_cache

__all__ = ["Verdict", "digest_of_checked", "machine", "read_verdicts", "record_path", "write_record"]

FORMAT = 1

#: What a check runs through, folders and files of the package: the kernels, what calls them, and the check itself.
CHECKED = (
    "gpu",
    "gpu_check",
    "ops",
    "metrics",
    "inference/fusing.py",
    "inference/protocol.py",
    "inference/views.py",
    "types.py",
)


class Verdict(NamedTuple):
    """What is said of an operation's kernels.

    Attributes:
        operation: its name.
        dtype: of what it is given, such as ``"bfloat16"``.
        gradients: whether with those, or the results alone.
        taken: whether the automatic choice takes them: they agreed with the reference and were not slower.
    """

    operation: str
    dtype: str
    gradients: bool
    taken: bool


def machine(index: int) -> dict[str, str]:
    """All that a finding depends on: the GPU, what drives it, and the kernels with what calls them.

    Args:
        index: of the CUDA device.
    """
    properties = torch.cuda.get_device_properties(index)
    driver = getattr(torch._C, "_cuda_getDriverVersion", lambda: "unknown")
    try:
        triton = version("triton")
    except PackageNotFoundError:
        triton = "unknown"
    return {
        "gpu": properties.name,
        "capability": f"{properties.major}.{properties.minor}",
        "driver": str(driver()),
        "cuda": str(torch.version.cuda),
        "torch": torch.__version__,
        "triton": triton,
        "kernels": digest_of_checked(Path(__file__).parents[1]),
    }


def digest_of_checked(package: Path) -> str:
    """A digest of all source files that a check runs through.

    Args:
        package: the folder of segcontext, or of a copy of it.
    """
    digest = hashlib.sha256()
    for name in CHECKED:
        place = package / name
        for path in [place] if place.suffix == ".py" else sorted(place.rglob("*.py")):
            digest.update(path.relative_to(package).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def record_path(found_on: Mapping[str, str]) -> Path:
    """Where the record of a machine lies.

    Args:
        found_on: what `machine` says.
    """
    name = re.sub(r"[^a-z0-9]+", "-", found_on["gpu"].lower()).strip("-")
    digest = hashlib.sha256(json.dumps(dict(found_on), sort_keys=True).encode()).hexdigest()
    return user_cache("kernels") / f"{name}-{digest[:12]}.json"


def write_record(found_on: Mapping[str, str], verdicts: Sequence[Verdict], cases: Sequence[Mapping[str, Any]]) -> Path:
    """Writes a record, which replaces an earlier one of the same machine.

    Args:
        found_on: what `machine` says.
        verdicts: about each operation.
        cases: what they rest on, as JSON can say it.

    Returns:
        The file.
    """
    path = record_path(found_on)
    content = {
        "format": FORMAT,
        "machine": dict(found_on),
        "verdicts": [verdict._asdict() for verdict in verdicts],
        "cases": [dict(case) for case in cases],
    }
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return path


def read_verdicts(found_on: Mapping[str, str]) -> list[Verdict] | None:
    """The verdicts of a machine's record.

    Args:
        found_on: what `machine` says.

    Returns:
        `None` where there is no record, or none that can be read; one of another machine or version counts as none.
    """
    try:
        content = json.loads(record_path(found_on).read_text(encoding="utf-8"))
        if content["format"] != FORMAT or content["machine"] != dict(found_on):
            return None
        return [Verdict(**each) for each in content["verdicts"]]
    except (OSError, ValueError, TypeError, KeyError):
        return None
