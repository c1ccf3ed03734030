import pytest
import torch

from segcontext.ops.point_attention import point_attention
from segcontext.types import OffsetMap


def slow(features, logits, branch, outside="nothing"):
    """Zhao et al. 2018, eqs. 3-6, one pair of positions at a time; out-of-window pairs left out, or with logit 0."""
    batch, _, height, width = features.shape
    side = round(logits.shape[1] ** 0.5)
    half = (side - 1) // 2
    cells = logits.view(batch, side, side, height, width)
    positions = [(y, x) for y in range(height) for x in range(width)]
    out = torch.zeros_like(features)
    for image in range(batch):
        for y, x in positions:
            sources, weights = [], []
            for v, u in positions:
                owner = (y, x) if branch == "collect" else (v, u)
                other = (v, u) if branch == "collect" else (y, x)
                down, across = other[0] - owner[0], other[1] - owner[1]
                if 0 <= down + half < side and 0 <= across + half < side:
                    sources.append((v, u))
                    weights.append(cells[image, down + half, across + half, owner[0], owner[1]].exp())
                elif outside == "zero_logit":
                    sources.append((v, u))
                    weights.append(torch.ones((), dtype=features.dtype))
            for (v, u), weight in zip(sources, weights, strict=True):
                out[image, :, y, x] += weight / sum(weights) * features[image, :, v, u]
    return out


def tensors(size, side, *, channels=2, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2, channels, *size, generator=generator).to(dtype)
    return features, torch.randn(2, side**2, *size, generator=generator).to(dtype)


@pytest.mark.parametrize("branch", ["collect", "distribute"])
@pytest.mark.parametrize(
    ("size", "side"), [((3, 4), 7), ((3, 4), 3), ((4, 2), 11), ((1, 1), 5), ((1, 5), 3), ((2, 3), 1), ((3, 4), 4)]
)
@pytest.mark.parametrize("outside", ["nothing", "zero_logit"])
@pytest.mark.parametrize("form", ["reference", "rearranged"])
def test_matches_the_equations(size, side, branch, outside, form):
    features, logits = tensors(size, side)
    found = point_attention(features, logits, branch=branch, outside=outside, implementation=form)
    torch.testing.assert_close(found, slow(features, logits, branch, outside))


@pytest.mark.parametrize("branch", ["collect", "distribute"])
@pytest.mark.parametrize("side", [3, 4, 9])
@pytest.mark.parametrize("outside", ["nothing", "zero_logit"])
def test_the_evidence_tells_the_weights_that_were_used(side, branch, outside):
    features, logits = tensors((4, 5), side)
    out = point_attention(features, logits, branch=branch, outside=outside)
    evidence = OffsetMap(logits, logits, outside == "zero_logit")
    for y, x in ((0, 0), (2, 3), (3, 4)):
        row = evidence.row(y, x, branch=branch).double()
        drawn = (features * row[:, None]).sum((2, 3))
        torch.testing.assert_close(out[:, :, y, x], drawn, rtol=1e-5, atol=1e-5)


def test_cells_beyond_the_map_go_unused():
    features, logits = tensors((2, 3), 9)
    changed = logits.view(2, 9, 9, 2, 3).clone()
    changed[:, :3] += 5.0
    for branch in ("collect", "distribute"):
        torch.testing.assert_close(
            point_attention(features, changed.flatten(1, 2), branch=branch),
            point_attention(features, logits, branch=branch),
        )


@pytest.mark.parametrize("branch", ["collect", "distribute"])
@pytest.mark.parametrize("outside", ["nothing", "zero_logit"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_give_what_the_table_gives(branch, outside, dtype):
    """In any dtype and layout, to within the rounding of the result."""
    features, logits = (each.to(dtype) for each in tensors((9, 7), 9, channels=5))
    options = {"branch": branch, "outside": outside}
    exact = point_attention(features.double(), logits.double(), implementation="reference", **options)
    last = [each.contiguous(memory_format=torch.channels_last) for each in (features, logits)]
    apart = [torch.stack([each, each], -1)[..., 0] for each in (features, logits)]
    for given in ((features, logits), last, apart):
        found = point_attention(*given, implementation="rearranged", **options)
        assert found.dtype == dtype
        limit = {torch.float32: 1e-6, torch.bfloat16: 1.5 * 2**-8}[dtype]
        assert (found.double() - exact).norm() <= limit * exact.norm()


def test_gradients_come_from_the_table(caplog):
    features, logits = (each.requires_grad_() for each in tensors((3, 4), 5))
    with caplog.at_level("WARNING"):
        found = point_attention(features, logits, implementation="rearranged")
    assert "its gradients take as much memory" in caplog.text
    assert found.requires_grad
    with torch.no_grad():
        torch.testing.assert_close(point_attention(features, logits), found)


def test_a_window_of_one_cell_hands_the_features_on():
    features, logits = tensors((3, 4), 1)
    torch.testing.assert_close(point_attention(features, logits), features)


@pytest.mark.parametrize("branch", ["collect", "distribute"])
def test_gradients(branch):
    given = [each.requires_grad_() for each in tensors((2, 3), 3)]
    assert torch.autograd.gradcheck(lambda *x: point_attention(*x, branch=branch), given)


def test_autocast_keeps_softmax_and_sums_in_float32():
    given = tensors((6, 7), 5, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = point_attention(*given)
    torch.testing.assert_close(out, point_attention(*given), rtol=0, atol=0)


def test_wrong_arguments_are_refused():
    features = torch.zeros(1, 2, 3, 3)
    with pytest.raises(ValueError, match="a square"):
        point_attention(features, torch.zeros(1, 0, 3, 3))
    with pytest.raises(ValueError, match="a square"):
        point_attention(features, torch.zeros(1, 10, 3, 3))
    with pytest.raises(ValueError, match="outside"):
        point_attention(features, torch.zeros(1, 9, 3, 3), outside="zero")
    with pytest.raises(ValueError, match="expected features"):
        point_attention(features, torch.zeros(1, 9, 3, 4))
    with pytest.raises(ValueError, match="expected features"):
        point_attention(features, torch.zeros(1, 9, 4, 3))
    with pytest.raises(ValueError, match="branch"):
        point_attention(features, torch.zeros(1, 9, 3, 3), branch="both")
