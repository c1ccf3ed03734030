"""Label maps in MATLAB files."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segcontext.errors import SampleError

__all__ = ["matlab_labels"]

# One variable per release: SBD's cls/ folder, PASCAL Context, COCO-Stuff 10k.
_VARIABLES = ("GTcls", "LabelMap", "S")


def matlab_labels(path: Path) -> npt.NDArray[np.integer[Any]]:
    """Reads the label map of a MATLAB file, as three releases store theirs.

    These are SBD (``GTcls.Segmentation``), PASCAL Context (``LabelMap``) and COCO-Stuff 10k (``S``). The file is data;
    reading it runs no code.

    Args:
        path: a ``.mat`` file of format 5 to 7.2.

    Returns:
        Integers, (H, W), before any label map.

    Raises:
        SampleError: if the file cannot be read or holds none of these variables.
    """
    # SciPy takes a while to import, and most data sets do without.
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        with path.open("rb") as file:
            content = loadmat(file, variable_names=_VARIABLES)
        name = next((name for name in _VARIABLES if name in content), None)
        labels = None if name is None else np.asarray(content[name])
        if name == "GTcls" and labels is not None:
            labels = np.asarray(labels["Segmentation"].item())
    except FileNotFoundError as error:
        raise SampleError(f"{path} does not exist. Check the path; it may have been moved or deleted.") from error
    except (
        *(MatReadError, NotImplementedError, OSError, ValueError, TypeError, KeyError, IndexError),
        *(EOFError, zlib.error, struct.error),
    ) as error:
        raise SampleError(
            f"{path} cannot be read as a MATLAB file: {error}. It may be truncated or of another format; "
            "fetch or unpack the file again."
        ) from error
    if labels is None:
        raise SampleError(
            f"{path} holds no label map: expected one of the variables {', '.join(_VARIABLES)}. "
            "Is it of another data set?"
        )
    if labels.ndim != 2 or labels.dtype.kind not in "uif" or (labels.dtype.kind == "f" and (labels % 1 != 0).any()):
        raise SampleError(
            f"{path} holds {labels.dtype} values of shape {labels.shape} in {name}. "
            "Expected whole numbers, one for each pixel."
        )
    # MATLAB stores columns first, and counts in floats unless told otherwise.
    return np.ascontiguousarray(labels if labels.dtype.kind in "ui" else labels.astype(np.int64))
