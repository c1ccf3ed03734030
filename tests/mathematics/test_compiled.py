"""The same numbers under torch.compile, torch.export and channels-last, for every function, module and network.

Every part is traced by the ``aot_eager`` backend, which takes forward and backward apart like any other but leaves the
kernels to PyTorch. Generated C++ takes minutes for all parts, so two go through Inductor here, and all of them with
``pytest -m slow``; so do other sizes of compiled parts, and most of the networks whole.

Exported programs take maps of any size from those on where no side shrinks to one pixel inside: `torch.export`
always specialises sides of length one. Those are 2 pixels for most, 3 where the map is halved, 9 for LDv1.
"""

import copy
import shutil

import pytest
import torch
from tests.test_contract import CHANNELS, LOCAL_CHANNELS, inputs, parts
from tests.test_contract import build as build_part
from torch.utils import _pytree

from segcontext import ops
from segcontext.distribution import AffinityDistribution
from segcontext.model import update_bases
from segcontext.zoo import BUILDERS
from segcontext.zoo import build as build_network

NETWORKS = [name for name in BUILDERS if name != "segmenter"]
# Smaller than the papers' settings, so that the tests are quick.
SMALL = {
    "psanet": {"aggregation_options": {"channels": 8, "mask_size": 5}},
    "emanet": {"reduce_channels": 16, "aggregation_options": {"num_bases": 4}},
    "galdnet_v1": {"reduce_channels": 16, "project_channels": 16},
    "galdnet_v2": {"distribution_options": {"kernel_size": 3, "key_channels": 4, "value_channels": 8}},
}
# The smallest sides that an exported program takes, where not 2.
LEAST = {"aggregation.PSA": 3, "aggregation.Downsampled": 3, "distribution.MaskDistribution": 9}

every_part = pytest.mark.parametrize("part", list(parts()))
# The quick tests take these through the tracers whole; of the other networks they take the parts.
QUICK = ("emanet", "galdnet_v1")
QUICK_KERNELS = ("aggregation.EMA", "distribution.MaskDistribution")
every_network = pytest.mark.parametrize("name", NETWORKS)
some_networks = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in NETWORKS]
)
needs_compiler = pytest.mark.skipif(
    not any(map(shutil.which, ("g++", "clang++", "c++"))), reason="Inductor needs a C++ compiler"
)


@pytest.fixture(autouse=True)
def _nothing_compiled_before():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def build(part):
    """As for the contract, but for a window of nine positions: each of them is traced by itself."""
    if part != "distribution.AffinityDistribution":
        return build_part(part)
    torch.manual_seed(0)
    return AffinityDistribution(CHANNELS, LOCAL_CHANNELS, kernel_size=3, key_channels=8, value_channels=8)


def doubles(part, size, **options):
    return inputs(part, size, dtype=torch.float64, **options)


def network(name):
    torch.manual_seed(0)
    options = {"backbone": "test_resnet", "pretrained": False, "dropout": 0.0, **SMALL.get(name, {})}
    return build_network(name, 3, options).double()


def pictures(*size):
    return torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def step(model, forward, given):
    """The output of a training step, and every gradient of it."""
    given = [each.clone().requires_grad_() for each in given]
    out = forward(*given)
    out = getattr(out, "features", getattr(out, "features_logits", out))
    sign = torch.randn(out.shape, generator=torch.Generator().manual_seed(2), dtype=out.dtype)
    learning = {name: each for name, each in model.named_parameters() if each.requires_grad}
    gradients = torch.autograd.grad((out * sign).sum(), [*given, *learning.values()], allow_unused=True)
    return {"output": out, **dict(zip([*range(len(given)), *learning], gradients, strict=True))}


def assert_same(left, right):
    torch.testing.assert_close(left, right, rtol=1e-9, atol=1e-9)


# --- torch.compile ---------------------------------------------------------------------------------------------------


FUNCTIONS = {
    "compact_attention": [(2, 4, 6), (2, 4, 6), (2, 4, 6)],
    "double_attention": [(2, 4, 6), (2, 3, 6), (2, 3, 6)],
    "em_attention": [(2, 6, 4), (3, 4)],
    "em_responsibilities": [(2, 6, 4), (3, 4)],
    "gated_by_mask": [(2, 3, 5, 6), (2, 3, 2, 3)],
    "local_attention": [(2, 4, 5, 6), (2, 4, 5, 6), (2, 3, 5, 6)],
    "non_local_attention": [(2, 4, 6), (2, 4, 6), (2, 3, 6)],
    "point_attention": [(2, 4, 3, 4), (2, 9, 3, 4)],
}


def test_every_function_is_named_here():
    # Labels have no gradients, and the choice of a form is made before anything is compiled.
    others = {"label_dtype", "resized_argmax", "use_implementation"}
    assert set(FUNCTIONS) | others == {name for name in ops.__all__ if name.islower()}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_compile_whole(name):
    """Without a break in the graph, forward and backward."""
    function = getattr(ops, name)
    options = {"em_attention": {"gradient": "all"}, "local_attention": {"kernel_size": 3, "dilation": 2}}.get(name, {})
    generator = torch.Generator().manual_seed(0)
    given = [torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in FUNCTIONS[name]]
    compiled = torch.compile(function, backend="aot_eager", fullgraph=True)
    results = []
    for each in (function, compiled):
        tensors = [tensor.clone().requires_grad_() for tensor in given]
        out = each(*tensors, **options)
        out = out if isinstance(out, torch.Tensor) else out[0]
        results.append([out, *torch.autograd.grad(out.square().sum(), tensors)])
    assert_same(*results)


@every_part
def test_parts_compile_whole(part):
    module, given = build(part).double().eval(), doubles(part, (6, 7))
    compiled = torch.compile(module, backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        assert_same(compiled(*given).features, module(*given).features)


@pytest.mark.slow
@every_part
def test_compiled_parts_take_other_sizes(part):
    module = build(part).double().eval()
    compiled = torch.compile(module, backend="aot_eager", fullgraph=True)
    for size in ((6, 7), (12, 9), (33, 20)):
        given = doubles(part, size)
        assert_same(compiled(*given).features, module(*given).features)


@every_part
def test_parts_train_the_same_when_compiled(part):
    module = build(part).double().train()
    twin = copy.deepcopy(module)
    given = doubles(part, (6, 7))
    compiled = torch.compile(twin, backend="aot_eager", fullgraph=True)
    for _ in range(2):
        assert_same(step(twin, compiled, given), step(module, module, given))
        assert update_bases(twin) == update_bases(module)
        assert_same(twin.state_dict(), module.state_dict())


@some_networks
def test_networks_train_the_same_when_compiled(name):
    model = network(name).train()
    twin = copy.deepcopy(model)
    compiled = torch.compile(twin, backend="aot_eager", fullgraph=True)
    assert_same(step(twin, compiled, [pictures(33, 41)]), step(model, model, [pictures(33, 41)]))
    update_bases(twin)
    update_bases(model)
    assert_same(twin.state_dict(), model.state_dict())


def inductor(module):
    """Generated kernels, compiled in this process: a pool of workers takes longer to start than these to compile."""
    return torch.compile(module, backend="inductor", options={"compile_threads": 1}, fullgraph=True)


@needs_compiler
@pytest.mark.parametrize("part", QUICK_KERNELS)
def test_generated_kernels_give_the_same(part):
    module, given = build(part).double().eval(), doubles(part, (6, 7))
    with torch.no_grad():
        assert_same(inductor(module)(*given).features, module(*given).features)


@needs_compiler
@pytest.mark.slow
@every_part
@pytest.mark.parametrize("training", [False, True])
def test_generated_kernels_give_the_same_everywhere(part, training):
    module = build(part).double().train(training)
    twin = copy.deepcopy(module)
    assert_same(step(twin, inductor(twin), doubles(part, (6, 7))), step(module, module, doubles(part, (6, 7))))
    assert_same(twin.state_dict(), module.state_dict())


@needs_compiler
@pytest.mark.slow
@every_network
def test_networks_of_generated_kernels_give_the_same(name):
    model = network(name).train()
    twin = copy.deepcopy(model)
    assert_same(step(twin, inductor(twin), [pictures(33, 41)]), step(model, model, [pictures(33, 41)]))


# --- torch.export ----------------------------------------------------------------------------------------------------


@every_part
def test_parts_export_with_their_evidence(part):
    """../test_contract.py exports them without."""
    module, given = build(part).double().eval(), doubles(part, (6, 7))
    program = torch.export.export(module, given, {"evidence": True})
    found = _pytree.tree_leaves(program.module()(*given, evidence=True))
    assert_same(found, _pytree.tree_leaves(module(*given, evidence=True)))


@every_part
def test_parts_export_for_any_size(part):
    module = build(part).double().eval()
    given, least = doubles(part, (16, 13)), LEAST.get(part, 2)
    sides = {2: torch.export.Dim("h", min=least, max=4096), 3: torch.export.Dim("w", min=least, max=4096)}
    program = torch.export.export(module, given, dynamic_shapes=tuple(sides for _ in given))
    for size in ((least, least), (least, 40), (9, 16), (33, 17)):
        other = doubles(part, size)
        assert_same(program.module()(*other).features, module(*other).features)


@pytest.mark.parametrize(
    "part",
    list(parts()),
)
def test_parts_export_for_any_number_of_images(part):
    module, given = build(part).double().eval(), doubles(part, (10, 13))
    images = {0: torch.export.Dim("images", min=1, max=64)}
    program = torch.export.export(module, given, dynamic_shapes=tuple(images for _ in given))
    for batch in (1, 3):
        other = doubles(part, (10, 13), batch=batch)
        assert_same(program.module()(*other).features, module(*other).features)


@some_networks
def test_networks_export_for_any_size(name):
    """The output says the size of its own images, so its logits are upsampled to that."""
    model, auto = network(name).eval(), torch.export.Dim.AUTO
    program = torch.export.export(model, (pictures(65, 97),), dynamic_shapes=({2: auto, 3: auto},))
    for size in ((65, 97), (97, 129), (66, 80)):
        found, wanted = program.module()(pictures(*size)), model(pictures(*size))
        assert tuple(found.size) == size
        assert_same(found.features_logits, wanted.features_logits)
        assert_same(found.logits, wanted.logits)


# --- channels-last ---------------------------------------------------------------------------------------------------


@every_part
@pytest.mark.parametrize("size", [(1, 1), (6, 7)])
def test_parts_train_the_same_in_channels_last(part, size):
    """Maps and weights, as the training has them; ../test_contract.py has evaluation."""
    module = build(part).double().train()
    turned = copy.deepcopy(module).to(memory_format=torch.channels_last)
    given = doubles(part, size)
    last = [each.contiguous(memory_format=torch.channels_last) for each in given]
    assert_same(step(turned, turned, last), step(module, module, given))
    assert update_bases(turned) == update_bases(module)
    assert_same(turned.state_dict(), module.state_dict())


@every_network
@pytest.mark.parametrize("training", [False, True])
def test_networks_give_the_same_in_channels_last(name, training):
    model = network(name).train(training)
    turned = copy.deepcopy(model).to(memory_format=torch.channels_last)
    images = pictures(33, 41)
    last = images.contiguous(memory_format=torch.channels_last)
    found, wanted = step(turned, turned, [last]), step(model, model, [images])
    # Sums in another order differ in the last digits, which batch norms over few pixels make the larger.
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-6)
