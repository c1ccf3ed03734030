import pytest
import torch

from segcontext.distribution.affinity import AffinityDistribution
from segcontext.errors import RecipeError
from segcontext.ops.local_attention import local_attention

AGGREGATED, LOCAL = 3, 5
INPUTS = ("both", "aggregated", "local")


def module(**options):
    torch.manual_seed(0)
    options = {"key_channels": 4, "value_channels": 6, "kernel_size": 3, "dilation": 2, **options}
    return AffinityDistribution(AGGREGATED, LOCAL, **options).double().eval()


def maps(size=(5, 7), *, batch=2):
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(batch, c, *size, generator=generator, dtype=torch.float64) for c in (AGGREGATED, LOCAL)]


def project(layer, x):
    return torch.einsum("oc,bchw->bohw", layer.weight[..., 0, 0], x) + layer.bias[:, None, None]


@pytest.mark.parametrize("query_input", INPUTS)
@pytest.mark.parametrize("key_input", INPUTS)
@pytest.mark.parametrize("scale", [None, 1.0])
def test_query_and_key_come_from_what_was_chosen(query_input, key_input, scale):
    made, (aggregated, local) = module(query_input=query_input, key_input=key_input, scale=scale), maps()
    sources = {"both": torch.cat([aggregated, local], 1), "aggregated": aggregated, "local": local}
    wanted = local_attention(
        project(made.query, sources[query_input]),
        project(made.key, sources[key_input]),
        project(made.value, sources["both"]),
        kernel_size=3,
        dilation=2,
        scale=4**-0.5 if scale is None else scale,
    )
    torch.testing.assert_close(made(aggregated, local).features, wanted)


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (6, 5)])
@pytest.mark.parametrize(("kernel_size", "dilation"), [(3, 1), (3, 2), (5, 3)])
def test_the_rows_are_the_weights_that_were_used(size, kernel_size, dilation):
    made, given = module(kernel_size=kernel_size, dilation=dilation), maps(size)
    features, evidence = made(*given, evidence=True)
    value = made.value(torch.cat(given, 1))
    for y in range(size[0]):
        for x in range(size[1]):
            row = evidence.row(y, x).double()
            assert row.shape == (2, *size)
            again = torch.einsum("bhw,bchw->bc", row, value)
            torch.testing.assert_close(features[:, :, y, x], again, rtol=1e-5, atol=1e-6)


def test_rows_sum_to_one_inside_and_to_less_at_the_border():
    evidence = module()(*maps((7, 9)), evidence=True).evidence
    torch.testing.assert_close(evidence.row(3, 4).sum((1, 2)), torch.ones(2))
    assert (evidence.row(0, 0).sum((1, 2)) < 1).all()
    assert evidence.row(3, 4)[0].nonzero().tolist() == [[y, x] for y in (1, 3, 5) for x in (2, 4, 6)]


def test_the_defaults_have_the_weights_near_the_printed_number():
    with torch.device("meta"):
        made = AffinityDistribution(256, 2048)
    weights = [layer.weight.numel() for layer in (made.query, made.key, made.value)]
    assert sum(weights) == 2304 * 1024
    assert (made.kernel_size, made.dilation, made.out_channels, made.scale) == (5, 3, 512, 1 / 16)


def test_half_precision_rows_follow_the_weights():
    made, given = module(key_channels=3).float(), [each.float() for each in maps()]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        features, evidence = made(*given, evidence=True)
        value = made.value(torch.cat(given, 1)).float()
    row = evidence.row(2, 3)
    wanted = features.float()[:, :, 2, 3]
    torch.testing.assert_close(torch.einsum("bhw,bchw->bc", row, value), wanted, rtol=0.01, atol=0.005)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"kernel_size": 4}, "kernel_size must be odd"),
        ({"kernel_size": -1}, "not -1 and 2"),
        ({"dilation": 0}, "dilation at least 1"),
        ({"query_input": "deep"}, "query_input must be both, aggregated or local, not 'deep'"),
        ({"key_input": "x"}, "key_input must be"),
    ],
)
def test_impossible_settings_are_refused(options, words):
    with pytest.raises(RecipeError, match=words):
        module(**options)
