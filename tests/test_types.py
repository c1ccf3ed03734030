import pytest
import torch
from torch.nn import functional as F
from torch.utils import _pytree as pytree

from segcontext.ops.local_attention import local_attention
from segcontext.ops.point_attention import point_attention
from segcontext.types import Affinity, Context, Features, GatherMap, Mask, OffsetMap, Output, Responsibilities, Stages


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("key_size", [(4, 5), (2, 3)])
def test_a_global_row_is_the_softmax_over_all_positions(key_size):
    query, key = draw(2, 3, 4, 5), draw(2, 3, *key_size, seed=1)
    for y, x in ((0, 0), (3, 4), (1, 2)):
        row = Affinity(query, key, 0, 1).row(y, x)
        logits = torch.einsum("bd,bdhw->bhw", query[:, :, y, x], key)
        wanted = (logits.exp() / logits.exp().sum((1, 2), keepdim=True)).float()
        torch.testing.assert_close(row, wanted)


@pytest.mark.parametrize("size", [(1, 1), (3, 8), (6, 2)])
@pytest.mark.parametrize(("kernel_size", "dilation"), [(1, 1), (3, 1), (3, 3), (5, 2)])
def test_a_windowed_row_holds_the_weights_of_local_attention(size, kernel_size, dilation):
    query, key = draw(2, 3, *size), draw(2, 3, *size, seed=1)
    pixels = size[0] * size[1]
    # With one-hot values each output channel is the weight of one position.
    places = torch.eye(pixels).double().reshape(1, pixels, *size).expand(2, -1, -1, -1)
    weights = local_attention(query, key, places, kernel_size=kernel_size, dilation=dilation)
    evidence = Affinity(query, key, kernel_size, dilation)
    for y in range(size[0]):
        for x in range(size[1]):
            wanted = weights[:, :, y, x].reshape(2, *size)
            torch.testing.assert_close(evidence.row(y, x), wanted.float(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("branch", ["collect", "distribute"])
@pytest.mark.parametrize(("size", "side"), [((1, 1), 3), ((3, 5), 3), ((4, 2), 9), ((5, 5), 1)])
def test_a_row_of_offsets_holds_the_weights_of_point_attention(branch, size, side):
    logits, pixels = draw(2, side**2, *size), size[0] * size[1]
    places = torch.eye(pixels).double().reshape(1, pixels, *size).expand(2, -1, -1, -1)
    weights = point_attention(places, logits, branch=branch)
    evidence = OffsetMap(logits, torch.full_like(logits, torch.nan))
    if branch == "distribute":
        evidence = OffsetMap(torch.full_like(logits, torch.nan), logits)
    for y in range(size[0]):
        for x in range(size[1]):
            row = evidence.row(y, x, branch=branch)
            torch.testing.assert_close(row, weights[:, :, y, x].reshape(2, *size).float(), rtol=1e-4, atol=1e-6)
            torch.testing.assert_close(row.sum((1, 2)), torch.ones(2))


@pytest.mark.parametrize("align_corners", [True, False])
def test_logits_are_upsampled_on_access(align_corners):
    small = draw(2, 3, 4, 5)
    output = Output(small, (13, 17), align_corners)
    wanted = F.interpolate(small, size=(13, 17), mode="bilinear", align_corners=align_corners)
    assert torch.equal(output.logits, wanted)
    assert output.logits is not output.logits
    other = draw(2, 3, 2, 2, seed=1)
    assert torch.equal(
        output.upsample(other), F.interpolate(other, size=(13, 17), mode="bilinear", align_corners=align_corners)
    )


def test_everything_optional_is_absent_by_default():
    output = Output(draw(1, 2, 3, 3), (3, 3), True)
    assert output[3:] == (None, None, None, None)
    assert Context(draw(1, 2, 3, 3)).evidence is None


def test_tensors_are_found_inside_every_tuple():
    one = draw(1, 2, 3, 3)
    evidence = (
        Responsibilities(one, one),
        Mask(one),
        Affinity(one, one, 5, 3),
        GatherMap(one, one),
        OffsetMap(one, one),
    )
    output = Output(one, (3, 3), True, None, evidence[0], evidence[2], Stages(one, one, one, one, one))
    leaves = pytree.tree_leaves((Features(one, one, one), evidence, output))
    assert sum(isinstance(leaf, torch.Tensor) for leaf in leaves) == 3 + 9 + 10
    again = pytree.tree_map(lambda leaf: leaf, output)
    assert type(again) is Output
    assert type(again.distribution) is Affinity
