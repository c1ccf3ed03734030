import copy
import subprocess
import sys
from datetime import timedelta

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from segcontext.aggregation.ema import EMA
from segcontext.errors import RecipeError
from segcontext.model import update_bases
from segcontext.ops.em_attention import em_attention
from segcontext.ops.implementations import use_implementation

CHANNELS, BASES = 8, 3


def unit(*, training=True, **options):
    torch.manual_seed(0)
    return EMA(CHANNELS, num_bases=BASES, **options).train(training)


def images(batch=4, *, size=(5, 6), seed=1):
    return torch.randn(batch, CHANNELS, *size, generator=torch.Generator().manual_seed(seed))


def final_bases(module, x):
    """What EM makes of the unit's bases on each image."""
    with torch.no_grad():
        return em_attention(module.conv1(x).flatten(2).mT, module.bases, iterations=module.iterations).bases


def test_matches_the_paper_step_by_step():
    module, x = unit(training=False).double(), images().double()
    pixels = torch.einsum("oc,bchw->bhwo", module.conv1.weight[..., 0, 0], x) + module.conv1.bias
    assert (pixels < 0).any()
    again = em_attention(pixels.reshape(4, 30, CHANNELS), module.bases, iterations=3).reconstruction
    again = again.reshape(4, 5, 6, CHANNELS).relu() @ module.conv2[0].weight[..., 0, 0].T
    norm = module.conv2[1]
    again = (again - norm.running_mean) / (norm.running_var + norm.eps).sqrt() * norm.weight + norm.bias
    wanted = (x + again.permute(0, 3, 1, 2)).relu()
    torch.testing.assert_close(module(x).features, wanted)


def test_the_bases_start_with_unit_length_and_live_in_the_state():
    module = EMA(512)
    assert module.bases.shape == (64, 512)
    assert module.bases.dtype == torch.float32
    torch.testing.assert_close(module.bases.norm(dim=1), torch.ones(64), rtol=1e-5, atol=0)
    shapes = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items() if tensor.ndim}
    assert shapes == {
        "bases": (64, 512),
        "conv1.weight": (512, 512, 1, 1),
        "conv1.bias": (512,),
        "conv2.0.weight": (512, 512, 1, 1),
        **{f"conv2.1.{name}": (512,) for name in ("weight", "bias", "running_mean", "running_var")},
    }


@pytest.mark.parametrize("split", [[4], [1, 3], [1, 1, 1, 1]])
def test_the_average_moves_once_per_step_whatever_the_micro_batches(split):
    module, x = unit(), images()
    start = module.bases.clone()
    wanted = 0.9 * start + 0.1 * final_bases(module, x).mean(0)
    for part in x.split(split):
        module(part)
        assert torch.equal(module.bases, start)
    assert module.update_bases() == 0
    torch.testing.assert_close(module.bases, wanted, rtol=1e-5, atol=1e-6)
    moved = module.bases.clone()
    assert module.update_bases() == 0
    assert torch.equal(module.bases, moved)


@pytest.mark.parametrize("momentum", [0.0, 0.25, 1.0])
def test_momentum_is_the_share_of_the_old_bases(momentum):
    module, x = unit(momentum=momentum), images()
    wanted = momentum * module.bases + (1 - momentum) * final_bases(module, x).mean(0)
    module(x)
    module.update_bases()
    torch.testing.assert_close(module.bases, wanted, rtol=1e-5, atol=1e-6)


def test_each_step_starts_counting_anew():
    module, other = unit(), unit()
    for seed in (1, 2):
        module(images(seed=seed))
        module.update_bases()
    other(images(seed=1))
    other.update_bases()
    wanted = 0.9 * other.bases + 0.1 * final_bases(other, images(seed=2)).mean(0)
    torch.testing.assert_close(module.bases, wanted, rtol=1e-5, atol=1e-6)


def test_evaluation_never_moves_the_bases():
    module = unit(training=False)
    start = module.bases.clone()
    module(images())
    module.update_bases()
    assert torch.equal(module.bases, start)
    # Nor does what evaluation saw count in the next training step.
    module.train()(images(seed=2))
    module.eval()(images(seed=3))
    twin = unit()
    twin(images(seed=2))
    module.update_bases()
    twin.update_bases()
    assert torch.equal(module.bases, twin.bases)


@pytest.mark.parametrize("upkeep", ["learned", "fixed"])
def test_other_upkeeps_do_not_average(upkeep):
    module = unit(upkeep=upkeep)
    start = module.bases.detach().clone()
    module(images())
    assert module.update_bases() == 0
    assert torch.equal(module.bases, start)
    assert isinstance(module.bases, nn.Parameter) == (upkeep == "learned")


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_recomputed_activations_do_not_count_twice(use_reentrant):
    """Counted twice, the recomputed image would weigh more than the three others of its step."""
    module, plain = unit(gradient="all"), unit(gradient="all")
    calls = []
    module.register_forward_pre_hook(lambda *_: calls.append(1))
    x = images().requires_grad_()
    checkpoint(lambda each: module(each).features, x[:1], use_reentrant=use_reentrant).sum().backward()
    assert len(calls) == 2
    module(x[1:])
    for part in x.split([1, 3]):
        plain(part)
    module.update_bases()
    plain.update_bases()
    # Without a gradient to take, as in the first of two reentrant passes, sums run in another order.
    torch.testing.assert_close(module.bases, plain.bases, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "learns"),
    [({}, False), ({"gradient": "last"}, True), ({"gradient": "all"}, True), ({"upkeep": "learned"}, True)],
)
def test_conv1_is_frozen_exactly_where_no_gradient_reaches_it(options, learns):
    module = unit(**options)
    module(images()).features.square().sum().backward()
    for parameter in module.conv1.parameters():
        assert parameter.requires_grad == learns
        assert (parameter.grad is not None) == learns
    assert module.conv1.weight.grad is None or module.conv1.weight.grad.any()
    if "upkeep" in options:
        assert module.bases.grad.any()


def test_training_and_evaluation_have_iterations_of_their_own():
    module, x = unit(iterations=2, evaluation_iterations=5), images(1)
    assert module(x, evidence=True).evidence.maps.shape == (2, 1, BASES, 5, 6)
    maps, bases = module.eval()(x, evidence=True).evidence
    assert maps.shape == (5, 1, BASES, 5, 6)
    module.iterations = 5
    torch.testing.assert_close(bases, final_bases(module, x))
    assert unit(iterations=4).evaluation_iterations == 4
    assert unit(iterations=4, evaluation_iterations=0).evaluation_iterations == 0


@pytest.mark.parametrize("training", [True, False])
def test_evidence_sums_to_one_in_every_iteration_and_remakes_the_map(training):
    module, x = unit(training=training, iterations=3), images()
    evidence = module(x, evidence=True).evidence
    torch.testing.assert_close(evidence.maps.sum(2), torch.ones(3, 4, 5, 6))
    module.eval()
    again = torch.einsum("bkhw,bkc->bchw", evidence.maps[-1], evidence.bases)
    torch.testing.assert_close(module(x).features, (x + module.conv2(again.relu())).relu())


def test_no_iterations_have_evidence_too():
    module = unit(iterations=0)
    maps, bases = module(images(), evidence=True).evidence
    assert maps.shape == (1, 4, BASES, 5, 6)
    assert torch.equal(bases, module.bases.expand(4, -1, -1))
    start = module.bases.clone()
    module.update_bases()
    torch.testing.assert_close(module.bases, start)


def test_bases_without_mass_are_counted_over_images_and_passes():
    module, x = unit(lam=1e4), images(2).abs() + 1
    with torch.no_grad():
        module.conv1.weight.copy_(torch.eye(CHANNELS)[..., None, None])
        module.conv1.bias.zero_()
        module.bases[2] = -1
    module(x)
    module(x[:1])
    # The two other bases share the pixels as they like, but nothing is left for the third one.
    lost = [(em_attention(each.flatten(2).mT, module.bases, lam=1e4).mass <= 1e-6).sum() for each in (x, x[:1])]
    assert lost[0] >= 2
    assert module.update_bases() == sum(lost)
    torch.testing.assert_close(module.bases[2], torch.full((CHANNELS,), -1.0))
    assert module.update_bases() == 0


def test_a_copy_keeps_what_the_step_has_seen():
    module, x = unit(), images()
    module(x[:2])
    twin = copy.deepcopy(module)
    for each in (module, twin):
        each(x[2:])
        each.update_bases()
    assert torch.equal(module.bases, twin.bases)
    assert not torch.equal(module.bases, unit().bases)
    assert module.bases.data_ptr() != twin.bases.data_ptr()


@pytest.mark.parametrize("upkeep", ["moving_average", "learned", "fixed"])
def test_state_makes_a_round_trip_between_upkeeps(upkeep):
    module = unit()
    module(images())
    module.update_bases()
    other = EMA(CHANNELS, num_bases=BASES, upkeep=upkeep)
    other.load_state_dict(module.state_dict(), strict=True)
    torch.testing.assert_close(other.eval()(images()).features, module.eval()(images()).features)


def test_bases_stay_wide_in_half_precision_training():
    module = unit()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        module(images())
    module.update_bases()
    assert module.bases.dtype == torch.float32
    plain = unit()
    plain(images())
    plain.update_bases()
    torch.testing.assert_close(module.bases, plain.bases, rtol=0, atol=2e-3)


CASTS = {
    "half": lambda module: module.half(),
    "bfloat16": lambda module: module.bfloat16(),
    "to": lambda module: module.to(torch.bfloat16),
    "to device too": lambda module: module.to("cpu", torch.bfloat16),
    "by way of double": lambda module: module.double().half(),
}


@pytest.mark.parametrize("cast", CASTS)
@pytest.mark.parametrize("upkeep", ["moving_average", "fixed"])
def test_bases_stay_wide_when_the_network_is_cast(cast, upkeep):
    module = unit(upkeep=upkeep)
    start = module.bases.clone()
    CASTS[cast](nn.Sequential(module))
    assert module.conv1.weight.dtype in (torch.float16, torch.bfloat16)
    assert module.bases.dtype == torch.float32
    assert torch.equal(module.bases, start)
    assert dict(module.named_buffers())["bases"] is module.bases
    assert next(iter(module.state_dict())) == "bases"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_cast_network_moves_its_bases_by_steps_too_small_for_its_dtype(dtype):
    """Where 0.9999 of the bases stays, most steps are below what half precision tells apart."""
    module, wide = (unit(momentum=0.9999) for _ in range(2))
    module.to(dtype)
    start, x = module.bases.clone(), images().to(dtype)
    for _ in range(3):
        features = module(x).features
        assert features.dtype == dtype
        module.update_bases()
        wide(x.float())
        wide.update_bases()
    assert module.bases.dtype == torch.float32
    moved, wanted = module.bases - start, wide.bases - start
    assert (moved - wanted).norm() < 0.05 * wanted.norm()


def test_other_casts_of_the_bases_are_as_usual():
    assert unit().double().bases.dtype == torch.float64
    assert unit(upkeep="learned").bfloat16().bases.dtype == torch.bfloat16
    assert isinstance(unit(upkeep="learned").bfloat16().bases, nn.Parameter)
    assert unit().to("meta", torch.bfloat16).bases.device.type == "meta"
    state = unit().state_dict()
    state["bases"] = state["bases"] + 1
    cast = unit().bfloat16()
    cast.load_state_dict(state)
    assert torch.equal(cast.bases, state["bases"])
    narrow = {name: tensor.bfloat16() if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    cast.load_state_dict(narrow)
    assert cast.bases.dtype == torch.float32


def test_a_step_over_images_that_are_not_numbers_leaves_the_bases_whole():
    module = unit()
    module(torch.full((1, CHANNELS, 2, 2), float("nan")))
    module.update_bases()
    assert module.bases.isfinite().all()


def test_by_the_published_formula_too():
    module = unit(without_mass="published")
    module(torch.full((1, CHANNELS, 2, 2), float("nan")))
    module.update_bases()
    assert torch.equal(module.bases, unit().bases)


@pytest.mark.parametrize("without_mass", ["keep", "published"])
def test_the_unit_follows_the_published_formula_where_asked(without_mass):
    module, x = unit(training=False, without_mass=without_mass, lam=2.0), images(2).abs() + 1
    with torch.no_grad():
        module.conv1.weight.copy_(torch.eye(CHANNELS)[..., None, None])
        module.conv1.bias.zero_()
        module.bases[2] = -1
    found = em_attention(x.flatten(2).mT, module.bases, lam=2.0, without_mass=without_mass, eps=module.eps)
    bases = module(x, evidence=True).evidence.bases
    torch.testing.assert_close(bases, found.bases)
    # The third base is nobody's: by the formula it turns to the pixels all the same.
    assert (bases[:, 2] == -1).all() == (without_mass == "keep")


def test_the_mean_may_be_brought_to_unit_length_before_it_moves_the_bases():
    module, x = unit(unit_update=True, momentum=0.75), images()
    start, mean = module.bases.clone(), final_bases(module, x).mean(0)
    module(x)
    module.update_bases()
    assert (mean.norm(dim=1) < 0.999).any()
    torch.testing.assert_close(module.bases, 0.75 * start + 0.25 * F.normalize(mean, dim=1))


def test_every_unit_of_a_model_moves():
    model = nn.Sequential(unit(), nn.Sequential(unit(lam=1e4)), nn.Conv2d(1, 1, 1))
    start = [model[0].bases.clone(), model[1][0].bases.clone()]
    model[0](images())
    model[1][0](images())
    assert update_bases(model) >= 0
    assert not torch.equal(model[0].bases, start[0])
    assert not torch.equal(model[1][0].bases, start[1])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"upkeep": "averaged"}, "upkeep must be one of moving_average, learned, fixed, not 'averaged'"),
        ({"norm": "l3"}, "norm must be .* Did you mean 'l2'"),
        ({"kernel": "rfb"}, "Did you mean 'rbf'"),
        ({"gradient": "lost"}, "Did you mean 'last'"),
        ({"without_mass": "keeps"}, "Did you mean 'keep'"),
        ({"eps": 0.0}, "eps keeps denominators from zero"),
        ({"momentum": 1.5}, "share of the old bases"),
        ({"num_bases": 0}, "num_bases must be at least 1"),
        ({"iterations": -1}, "iterations at least 0"),
        ({"evaluation_iterations": -1}, "evaluation: -1"),
        ({"upkeep": "learned", "gradient": "none"}, "Learned bases need gradient='all'"),
    ],
)
def test_impossible_settings_are_refused(options, words):
    with pytest.raises(RecipeError, match=words):
        EMA(CHANNELS, **options)


def take_part(rank, store, folder):
    torch.distributed.init_process_group(
        "gloo", f"file://{store}", rank=rank, world_size=2, timeout=timedelta(seconds=60)
    )
    try:
        module, x = unit(), images()
        # Shares of different sizes, in one and in two micro-batches; in the second step one rank has nothing at all.
        for part in ([x[:1]], [x[1:2], x[2:]])[rank]:
            module(part)
        empty = [module.update_bases()]
        if rank:
            module(images(seed=2))
        empty += [module.update_bases(), module.update_bases()]
        torch.save((module.bases, empty), f"{folder}/{rank}.pt")
    finally:
        torch.distributed.destroy_process_group()


def test_two_processes_move_the_bases_as_one_does(tmp_path):
    arguments = (str(tmp_path / "store"), str(tmp_path))
    # This process is the first rank, so that only one more has to start.
    with subprocess.Popen([sys.executable, __file__, *arguments]) as second:
        take_part(0, *arguments)
    assert second.returncode == 0
    alone = unit()
    for seed in (1, 2):
        alone(images(seed=seed))
        alone.update_bases()
    (first, one), (other, two) = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    assert torch.equal(first, other)
    assert one == two == [0, 0, 0]
    torch.testing.assert_close(first, alone.bases, rtol=1e-5, atol=1e-6)


def test_what_was_gathered_follows_the_module():
    module = unit()
    module(images())
    module.to("meta")
    assert module._seen.is_meta
    module.to_empty(device="cpu")
    assert module._seen is None


FORMS = ("reference", "rearranged", "native")


def settled(**options):
    """A unit whose batch norm has seen something."""
    module = unit(training=False, **options)
    norm = module.conv2[1]
    for each, low, high in ((norm.running_mean, -1, 1), (norm.running_var, 0.5, 2), (norm.bias, -1, 1)):
        torch.nn.init.uniform_(each, low, high)
    nn.init.normal_(module.conv1.bias)
    return module


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize(
    "options", [{}, {"kernel": "rbf"}, {"kernel": "euclidean"}, {"iterations": 0}, {"without_mass": "published"}]
)
def test_every_form_is_the_unit_of_layers(form, last, options):
    module, x = settled(**options), images()
    given = x.contiguous(memory_format=torch.channels_last) if last else x
    exact = copy.deepcopy(module).double()
    # Someone who looks at the layers has them run as layers.
    exact.conv1.register_forward_hook(lambda *_: None)
    wanted = exact(x.double(), evidence=True)
    with torch.no_grad(), use_implementation(form):
        found = module(given, evidence=True)
        alone = module(given).features
    torch.testing.assert_close(found.features.double(), wanted.features, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.evidence.maps.double(), wanted.evidence.maps, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(alone, found.features)


@pytest.mark.parametrize("part", ["conv1", "conv2", "conv2.0", "conv2.1", "relu"])
@pytest.mark.parametrize("hook", ["register_forward_hook", "register_forward_pre_hook"])
def test_whoever_watches_a_layer_sees_it_run(part, hook):
    module, x, seen = settled(), images(1), []
    with torch.no_grad():
        wanted = module(x).features
        getattr(module.get_submodule(part), hook)(lambda *_: seen.append(1))
        torch.testing.assert_close(module(x).features, wanted)
    assert seen


def test_a_norm_left_in_training_normalises_by_its_map():
    module, x = settled(), images()
    module.conv2[1].train()
    before = module.conv2[1].running_mean.clone()
    with torch.no_grad():
        module(x)
    assert not torch.equal(module.conv2[1].running_mean, before)


@pytest.mark.parametrize("form", FORMS)
def test_held_bases_serve_every_form(form):
    module, x = settled(), images()
    with torch.no_grad(), use_implementation(form):
        module.hold("find")
        whole = module(x).features
        module.hold("use")
        torch.testing.assert_close(module(x).features, whole, rtol=0, atol=1.0)
        again = module(x[..., :3]).features
        module.hold(None)
    exact = copy.deepcopy(module).double()
    exact.hold("find")
    exact(x.double())
    exact.hold("use")
    torch.testing.assert_close(again.double(), exact(x[..., :3].double()).features, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"gradient": "last"}, {"gradient": "all"}, {"upkeep": "learned"}])
@pytest.mark.parametrize("training", [True, False])
def test_the_folded_unit_learns_as_the_layers_do(options, training):
    results = []
    for watched in (True, False):
        module = settled(**options).double().train(training)
        if watched:
            module.conv1.register_forward_hook(lambda *_: None)
        x = images().double().requires_grad_()
        module(x).features.square().sum().backward()
        module.update_bases()
        grads = {name: each.grad for name, each in module.named_parameters() if each.requires_grad}
        results.append((grads, x.grad, module.state_dict()))
    torch.testing.assert_close(results[0], results[1], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("cast", [False, True])
def test_in_bfloat16_every_form_is_as_near(form, last, cast):
    """To within 1.5 u of the norm, tests/mathematics/test_precision.py says why."""
    torch.manual_seed(0)
    module = EMA(32, num_bases=4).eval()
    x = torch.randn(2, 32, 13, 17)
    exact = copy.deepcopy(module).double()(x.double()).features
    given = x.contiguous(memory_format=torch.channels_last) if last else x
    with torch.no_grad(), use_implementation(form), torch.autocast("cpu", dtype=torch.bfloat16, enabled=not cast):
        found = module.bfloat16()(given.bfloat16()).features if cast else module(given).features
    assert found.dtype == (torch.bfloat16 if cast else torch.float32)
    assert (found.double() - exact).norm() <= 1.5 * 2**-8 * exact.norm()


def test_relu_and_residual_come_last():
    module, x = unit(), images()
    assert (module(x).features >= 0).all()
    with torch.no_grad():
        module.conv2[1].weight.zero_()
        module.conv2[1].bias.zero_()
    torch.testing.assert_close(module(x).features, F.relu(x))


if __name__ == "__main__":
    # The second rank of the two-process test.
    torch.set_num_threads(1)
    take_part(1, *sys.argv[1:])
