import numpy as np
import pytest
from scipy.io import savemat

from segcontext.data.masks import raw_labels
from segcontext.data.matlab import matlab_labels
from segcontext.errors import SampleError

LABELS = np.arange(12).reshape(3, 4)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.float64])
@pytest.mark.parametrize("variable", ["LabelMap", "S", "GTcls"])
@pytest.mark.parametrize("compressed", [False, True])
def test_label_maps_read_whatever_their_type(tmp_path, dtype, variable, compressed):
    labels = LABELS.astype(dtype)
    content = {"Segmentation": labels, "CategoriesPresent": [1, 2]} if variable == "GTcls" else labels
    savemat(tmp_path / "a.mat", {variable: content, "names": ["x"]}, do_compression=compressed)
    found = raw_labels(tmp_path / "a.mat", None)
    assert found.dtype.kind in "ui"
    assert found.flags.c_contiguous
    assert found.tolist() == LABELS.tolist()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"Other": LABELS}, r"holds no label map: expected one of the variables GTcls, LabelMap, S"),
        ({"LabelMap": LABELS + 0.5}, r"holds float64 values of shape \(3, 4\) in LabelMap"),
        ({"S": LABELS[None].repeat(2, 0)}, r"values of shape \(2, 3, 4\) in S"),
        ({"S": "text"}, r"holds .* values of shape"),
        ({"GTcls": {"Boundaries": LABELS}}, r"cannot be read as a MATLAB file"),
        ({"GTcls": LABELS}, r"cannot be read as a MATLAB file"),
    ],
)
def test_other_contents_are_refused(tmp_path, content, message):
    savemat(tmp_path / "a.mat", content)
    with pytest.raises(SampleError, match=message) as caught:
        matlab_labels(tmp_path / "a.mat")
    assert str(tmp_path / "a.mat") in str(caught.value)


def test_damaged_files_are_named(tmp_path):
    path = tmp_path / "a.mat"
    with pytest.raises(SampleError, match=r"a\.mat does not exist"):
        matlab_labels(path)
    rng = np.random.default_rng(0)
    savemat(path, {"S": rng.integers(0, 180, (50, 50))}, do_compression=True)
    whole = path.read_bytes()
    for damaged in (b"", b"hello", whole[:200], whole[:-50], whole[:150] + b"\xff" * 80 + whole[230:]):
        path.write_bytes(damaged)
        with pytest.raises(SampleError, match=r"a\.mat (cannot be read as a MATLAB file|holds)"):
            matlab_labels(path)
