"""What an OpenMMLab checkpoint says of itself besides its tensors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from segcontext.importing.layout import Told

__all__ = ["told"]

#: The strides of the four stages at output stride 8.
_D8: Final = "1, 2, 1, 1"


def told(facts: Mapping[str, Any], file_name: str) -> Told:
    """What a checkpoint says of itself in the text of its configuration, which is not run, or else in its name.

    Args:
        facts: the checkpoint's ``meta``.
        file_name: such as ``pspnet_r50-d8_769x769_40k_cityscapes.pth``.

    Returns:
        Whether corners are aligned (the 769×769 configurations do so, the others do not), and what is in the way.
    """
    config = next((facts[key] for key in ("config", "cfg") if isinstance(facts.get(key), str)), "")
    strides = re.search(r"\bstrides\s*=\s*\(([^)]*)\)", config)
    numbers = ", ".join(re.findall(r"\d+", strides[1])) if strides else _D8
    named = re.search(r"-d(16|32)(?!\d)", file_name)
    problem = None
    if numbers != _D8 or named:
        said = f"strides ({numbers})" if numbers != _D8 else named and named[0][1:]
        problem = f"it is of another output stride than 8 ({said}), and only those of stride 8 (…-d8) can be rebuilt"
    head = config.find("decode_head")
    aligned = re.search(r"align_corners\s*=\s*(True|False)", config[max(0, head) :])
    if aligned:
        return Told(aligned[1] == "True", problem)
    crops = re.findall(r"(?<!\d)(\d{3,4})x\d{3,4}(?!\d)", file_name)
    return Told("769" in crops if crops else None, problem)
