"""The networks that are built compute what the source networks compute, at 1e-4 of their largest output."""

import pytest
import torch
from tests.importing.sources import SOURCES, filled, source
from torch.nn import functional as F

import segcontext
from segcontext.checkpoint import load_tensors
from segcontext.importing import LAYOUTS, import_run
from segcontext.importing.recognition import load
from segcontext.recipe_file import read_yaml

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
# The GALD authors' mean of blue, green and red.
BGR_MEAN = (104.00698793, 116.66876762, 122.67891434)

# Sizes that the parts treat differently: odd and even maps, a pool that rounds, maps that just hold three halvings.
SIZES = {"gald": (124, 121), "openmmlab_psanet": (57, 66)}


def pictures(name, batch=2, size=None):
    generator = torch.Generator().manual_seed(3)
    return torch.rand(batch, 3, *(size or SIZES.get(name, (65, 57))), generator=generator)


def as_theirs(images, name):
    """RGB images in [0, 1] as the source network takes them."""
    if name == "gald":
        return 255 * images.flip(1) - torch.tensor(BGR_MEAN).view(1, 3, 1, 1)
    mean, std = (torch.tensor(each).view(1, 3, 1, 1) for each in IMAGENET)
    return (images - mean) / std


def assert_same(found, wanted):
    assert found.shape == wanted.shape
    assert wanted.std() > 0.05 * wanted.abs().max()
    assert (found - wanted).abs().max() < 1e-4 * wanted.abs().max()


def assert_computes_the_same(model, network, name, images):
    with torch.no_grad():
        logits, auxiliary = network(as_theirs(images, name))
        output = model(images, auxiliary=True)
    assert_same(output.features_logits, logits)
    aligned = name in ("emanet", "gald") or getattr(getattr(network, "decode_head", None), "align_corners", False)
    wanted = F.interpolate(logits, size=images.shape[2:], mode="bilinear", align_corners=aligned)
    assert_same(output.logits, wanted)
    assert (output.auxiliary is None) == (auxiliary is None)
    if auxiliary is not None:
        assert_same(output.auxiliary, auxiliary)


#: What the code bases wrap their tensors in.
WRAPPED = {
    "emanet": lambda tensors: {"net": tensors, "step": 30000},
    "gald": lambda tensors: {f"module.{name}": tensor for name, tensor in tensors.items()},
}


def as_saved(name, tensors):
    if name.startswith("openmmlab"):
        return {"meta": {"CLASSES": tuple("abcde"), "iter": 1}, "state_dict": tensors, "optimizer": {"state": {}}}
    return WRAPPED.get(name, lambda tensors: tensors)(tensors)


def test_every_layout_has_a_source_network():
    assert set(SOURCES) == set(LAYOUTS)


@pytest.mark.parametrize("name", SOURCES)
def test_the_network_computes_what_the_source_computes(tmp_path, name):
    images = pictures(name)
    options = {"side": 4} if name == "openmmlab_psanet" else {}
    network = filled(source(name, **options), as_theirs(images, name))
    torch.save(as_saved(name, network.state_dict()), tmp_path / "weights.pth")
    # Brought into a run folder, built anew by its recipe, and loaded from it: all three are the same.
    run = import_run(tmp_path / "weights.pth", tmp_path / "run", align_corners=None)
    assert run.layout.name == name
    model = segcontext.load_model(tmp_path / "run")
    assert_computes_the_same(model, network, name, images)
    keys = read_yaml(tmp_path / "run" / "recipe.yaml")
    recipe = segcontext.Recipe.from_mapping({**keys, "data": "demo"})
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        built = segcontext.build(recipe.model, 5, recipe.network())
    assert {key: tensor.shape for key, tensor in built.state_dict().items()} == {
        key: tensor.shape for key, tensor in model.state_dict().items()
    }
    assert type(built.normalize)(recipe.model_options["mean"], recipe.model_options["std"]).mean.allclose(
        model.normalize.mean
    )


@pytest.mark.parametrize(
    ("name", "options", "size"),
    [
        ("openmmlab_pspnet", {"align_corners": True}, (49, 65)),
        ("openmmlab_psanet", {"align_corners": True, "side": 7}, (65, 65)),
    ],
)
def test_openmmlabs_aligned_form_too(tmp_path, name, options, size):
    """Their configurations of 769×769 pixels align corners."""
    images = pictures(name, size=size)
    network = filled(source(name, **options), as_theirs(images, name))
    file = tmp_path / f"{name.partition('_')[2]}_r50-d8_769x769_40k_cityscapes.pth"
    torch.save({"state_dict": network.state_dict()}, file)
    assert_computes_the_same(segcontext.import_weights(file), network, name, images)


@pytest.mark.parametrize("name", ["emanet", "openmmlab_emanet"])
def test_bases_with_next_to_no_pixels_follow_the_source(tmp_path, name):
    images = pictures(name, size=(49, 65))
    network = filled(source(name), as_theirs(images, name), sharpness=6.0)
    torch.save({"state_dict": network.state_dict()}, tmp_path / "weights.pth")
    model = segcontext.import_weights(tmp_path / "weights.pth")
    masses = model(images, evidence=True).aggregation.maps.sum((3, 4))
    assert (masses < 1e-6).any()
    assert_computes_the_same(model, network, name, images)
    # The default, which keeps such bases, is another network.
    model.aggregation.without_mass, model.aggregation.eps = "keep", 1e-6
    with pytest.raises(AssertionError):
        assert_computes_the_same(model, network, name, images)


def test_emanet_at_stride_16_has_the_published_dilations(tmp_path):
    """At stride 16 the authors' third stage has a stride of 2 and no dilation, and the fourth 1, 4 and 8."""
    images = pictures("emanet", size=(97, 81))
    network = source("emanet")
    third, fourth = network.extractor[6], network.extractor[7]
    third[0].conv2.stride = third[0].downsample[0].stride = (2, 2)
    for block, dilation in (*((block, 1) for block in third), *zip(fourth, (1, 4, 8), strict=True)):
        block.conv2.dilation = block.conv2.padding = (dilation, dilation)
    network = filled(network, as_theirs(images, "emanet"))
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    import_run(tmp_path / "weights.pth", tmp_path / "run")
    model = segcontext.load_model(tmp_path / "run", output_stride=16)
    assert_computes_the_same(model, network, "emanet", images)


def test_what_is_imported_can_be_written_back_and_read_again(tmp_path):
    images = pictures("gald")
    network = filled(source("gald"), as_theirs(images, "gald"))
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    found = load(tmp_path / "weights.pth")
    for ending in ("pth", "safetensors"):
        file = tmp_path / f"again.{ending}"
        assert segcontext.export_weights(found.model, file, layout="gald") == ()
        again = load(file).model
        load_tensors(again, found.model.state_dict(), source="the first")
    written = torch.load(tmp_path / "again.pth", weights_only=True)
    own = network.state_dict()
    assert set(written) == set(own)
    assert all(torch.equal(written[name], own[name]) for name in own)
