"""The backbone against the papers' facts, timm's own dilations, and files that must be refused."""

import logging
import pickle
import types
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from segcontext import backbone_weights
from segcontext.backbone import Backbone
from segcontext.backbone_creation import pick
from segcontext.backbone_dilations import refuse_other_stride
from segcontext.errors import PretrainedUnavailable, RecipeError, ShapeError, WeightsError
from segcontext.types import Features


def on_meta(name: str, **options) -> Backbone:
    """A backbone without numbers: shapes and counts cost nothing."""
    with torch.device("meta"):
        return Backbone(name, pretrained=False, **options).eval()


def shapes(backbone: Backbone, height: int, width: int) -> list[tuple[int, ...]]:
    device = next(backbone.parameters()).device
    with torch.no_grad():
        return [tuple(x.shape) for x in backbone(torch.zeros(1, 3, height, width, device=device))]


def expected(backbone: Backbone, height: int, width: int) -> list[tuple[int, ...]]:
    return [
        (1, channels, -(-height // stride), -(-width // stride))
        for channels, stride in zip(backbone.channels, backbone.strides, strict=True)
    ]


def block_dilations(backbone: Backbone, stage: int) -> list[int]:
    return [block.conv2.dilation[0] for block in backbone.net.get_submodule(f"layer{stage}")]


def geometry(net: nn.Module) -> dict[str, tuple]:
    return {
        name: (conv.kernel_size, conv.stride, conv.dilation, conv.padding)
        for name, conv in net.named_modules()
        if isinstance(conv, nn.Conv2d)
    }


# What the papers say of their backbones.


@pytest.mark.parametrize(
    ("name", "parameters"), [("resnet50s", 23_631_808), ("resnet101s", 42_623_936), ("resnet152s", 58_267_584)]
)
def test_parameters_without_the_classifier(name, parameters):
    backbone = on_meta(name)
    assert sum(p.numel() for p in backbone.parameters()) == parameters
    assert backbone.channels == (256, 1024, 2048)


def test_resnet101_at_513_matches_the_papers_output_and_multiply_adds():
    backbone = on_meta("resnet101s")
    counts = []
    for conv in backbone.modules():
        if isinstance(conv, nn.Conv2d):
            conv.register_forward_hook(lambda m, _, out: counts.append(out[0].numel() * m.weight[0].numel()))
    assert shapes(backbone, 513, 513) == [(1, 256, 129, 129), (1, 1024, 65, 65), (1, 2048, 65, 65)]
    assert sum(counts) / 1e9 == pytest.approx(189.9, abs=0.05)


@pytest.mark.parametrize(("stride", "strides"), [(8, (4, 8, 8)), (16, (4, 16, 16)), (32, (4, 16, 32))])
@pytest.mark.parametrize("name", ["resnet18", "resnet50s"])
def test_output_strides_at_odd_and_tiny_sizes(name, stride, strides):
    backbone = on_meta(name, output_stride=stride)
    assert backbone.strides == strides
    assert backbone.output_stride == stride
    for size in ((33, 47), (64, 96), (1, 1)):
        assert shapes(backbone, *size) == expected(backbone, *size)


@pytest.mark.parametrize(
    ("options", "third", "fourth"),
    [
        ({"output_stride": 8}, [1, 2, 2, 2, 2, 2], [2, 4, 4]),
        ({"output_stride": 16}, [1] * 6, [1, 2, 2]),
        ({"output_stride": 32}, [1] * 6, [1, 1, 1]),
        ({"output_stride": 8, "multi_grid": (1, 2, 4)}, [1, 2, 2, 2, 2, 2], [2, 8, 16]),
        ({"output_stride": 16, "multi_grid": (1, 2, 4)}, [1] * 6, [1, 4, 8]),
        ({"output_stride": 32, "multi_grid": [1, 2, 4]}, [1] * 6, [1, 2, 4]),
        ({"output_stride": 8, "multi_grid": (1, 2, 4), "first_block": "same"}, [2] * 6, [4, 8, 16]),
        ({"output_stride": 16, "multi_grid": (1, 2, 4), "first_block": "same"}, [1] * 6, [2, 4, 8]),
        ({"output_stride": 8, "first_block": "same"}, [2] * 6, [4, 4, 4]),
        ({"dilations": (None, None, (1, 2, 3, 1, 2, 3), [5, 6, 7])}, [1, 2, 3, 1, 2, 3], [5, 6, 7]),
    ],
)
def test_dilations_of_the_last_two_stages(options, third, fourth):
    backbone = on_meta("resnet50s", **options)
    assert block_dilations(backbone, 3) == third
    assert block_dilations(backbone, 4) == fourth
    assert block_dilations(backbone, 2) == [1, 1, 1, 1]
    assert shapes(backbone, 33, 47) == expected(backbone, 33, 47)


@pytest.mark.parametrize(
    ("name", "stride"),
    [
        ("resnet18", 8),
        ("resnet18", 16),
        ("resnet50s", 32),
        ("resnet101s", 8),
        ("seresnext26d_32x4d", 8),
        ("senet154", 16),
    ],
)
def test_a_multi_grid_of_ones_is_what_timm_builds(name, stride):
    with torch.device("meta"):
        reference = timm.create_model(name, output_stride=stride)
    backbone = on_meta(name, output_stride=stride, multi_grid=(1, 1, 1))
    assert geometry(backbone.net) == geometry(reference)


def test_multi_grid_on_basic_blocks_and_on_other_numbers_of_blocks():
    short = on_meta("resnet18", multi_grid=(1, 2, 4))
    assert [(b.conv1.dilation[0], b.conv2.dilation[0]) for b in short.net.layer4] == [(2, 4), (8, 8)]
    cycled = on_meta("resnet50s", multi_grid=(1, 3))
    assert block_dilations(cycled, 4) == [2, 12, 4]
    explicit = on_meta("resnet18", dilations=(None, (1, 2), (3, 3), (4, 5)))
    assert [(b.conv1.dilation[0], b.conv2.dilation[0]) for b in explicit.net.layer4] == [(4, 4), (5, 5)]
    for backbone in (short, cycled, explicit):
        assert shapes(backbone, 65, 40) == expected(backbone, 65, 40)


def test_ceil_mode_rounds_the_stem_pooling_up():
    assert shapes(on_meta("resnet50s"), 64, 65)[0][2:] == (16, 17)
    assert shapes(on_meta("resnet50s", ceil_mode=True), 64, 65)[0][2:] == (17, 17)


@pytest.mark.parametrize(("name", "channels", "stride"), [("resnet18d", 64, 2), ("convnext_atto", 40, 4)])
def test_the_low_map_is_as_fine_as_asked_for_and_the_network_allows(name, channels, stride):
    backbone = on_meta(name, output_stride=32, low_stride=2)
    assert (backbone.channels[0], backbone.strides[0]) == (channels, stride)
    assert backbone.channels[1:] == on_meta(name, output_stride=32).channels[1:]
    assert shapes(backbone, 65, 40) == expected(backbone, 65, 40)


def test_options_of_the_timm_model_reach_it():
    backbone = on_meta("resnet18", output_stride=8, timm_options={"channels": [16, 24, 32, 40], "drop_path_rate": 0.2})
    assert backbone.channels == (16, 32, 40)
    assert backbone.net.layer4[1].drop_path.drop_prob == pytest.approx(0.2)
    assert backbone.strides == (4, 8, 8)


def test_batch_norm_momentum_is_overridden_only_on_request():
    momenta = {m.momentum for m in on_meta("resnet18").modules() if isinstance(m, nn.BatchNorm2d)}
    assert momenta == {0.1}
    momenta = {m.momentum for m in on_meta("resnet18", bn_momentum=3e-4).modules() if isinstance(m, nn.BatchNorm2d)}
    assert momenta == {3e-4}


# Any timm model.


@pytest.mark.parametrize(
    ("name", "stride", "strides"),
    [
        ("convnext_tiny", 8, (4, 8, 8)),
        ("convnext_atto", 16, (4, 16, 16)),
        ("mobilenetv3_small_050", 8, (4, 8, 8)),
        ("mobilenetv3_large_100", 32, (4, 16, 32)),
        ("mobilenetv2_050", 16, (4, 16, 16)),
        ("efficientnet_b0", 8, (4, 8, 8)),
        ("tf_efficientnet_b0", 16, (4, 16, 16)),
        ("resnet34", 8, (4, 8, 8)),
        ("regnety_002", 8, (4, 8, 8)),
        ("hrnet_w18_small", 32, (4, 16, 32)),
        ("swinv2_tiny_window8_256", 32, (4, 16, 32)),
        ("vit_tiny_patch16_224", 16, (16, 16, 16)),
        ("vgg11", 32, (4, 16, 32)),
    ],
)
def test_other_networks_have_the_strides_they_say(name, stride, strides):
    backbone = on_meta(name, output_stride=stride)
    assert backbone.strides == strides
    assert backbone.output_stride == strides[2]
    for size in ((33, 47), (97, 130)):
        assert shapes(backbone, *size) == expected(backbone, *size)


def test_swin_reports_its_own_stride_and_takes_any_size(caplog):
    torch.manual_seed(0)
    with caplog.at_level(logging.WARNING, logger="segcontext.backbone"):
        backbone = Backbone("swin_tiny_patch4_window7_224", output_stride=8, pretrained=False).eval()
    assert backbone.output_stride == 32
    assert len(caplog.records) == 1
    assert "output stride 8; it keeps its own, 32" in caplog.text
    with torch.no_grad():
        features = backbone(torch.randn(1, 3, 61, 97))
    assert [tuple(x.shape) for x in features] == [(1, 96, 16, 25), (1, 384, 4, 7), (1, 768, 2, 4)]
    assert all(torch.isfinite(x).all() for x in features)


def test_a_network_that_can_change_its_stride_logs_nothing(caplog):
    on_meta("convnext_atto", output_stride=8)
    assert not caplog.records


def test_swin_maps_are_rows_by_columns():
    # One 4×4 patch differs from a flat image; the map must differ most where that patch lies, not at its transpose.
    torch.manual_seed(0)
    backbone = Backbone("swin_tiny_patch4_window7_224", output_stride=32, pretrained=False).eval()
    flat = torch.zeros(1, 3, 64, 128)
    marked = flat.clone()
    marked[..., 4:8, 40:44] = 3.0
    with torch.no_grad():
        change = (backbone(marked).low - backbone(flat).low).abs().sum(1)[0]
    assert divmod(int(change.argmax()), change.shape[1]) == (1, 10)


def test_the_maps_of_a_vision_transformer_come_from_three_depths():
    backbone = Backbone("test_vit", output_stride=16, pretrained=False).eval()
    with torch.no_grad():
        low, auxiliary, deep = backbone(torch.randn(1, 3, 40, 50))
    assert low.shape == auxiliary.shape == deep.shape == (1, backbone.channels[2], 3, 4)
    assert not torch.equal(low, auxiliary)
    assert not torch.equal(auxiliary, deep)
    assert pick([16] * 12, 4) == (2, 8, 11)


def test_maps_equal_those_of_timms_own_feature_model():
    torch.manual_seed(0)
    backbone = Backbone("resnet18", output_stride=16, pretrained=False).eval()
    reference = timm.create_model("resnet18", features_only=True, output_stride=16, out_indices=(1, 3, 4)).eval()
    reference.load_state_dict(backbone.net.state_dict())
    x = torch.randn(1, 3, 50, 37)
    with torch.no_grad():
        features = backbone(x)
        assert isinstance(features, Features)
        for ours, theirs in zip(features, reference(x), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["resnet50s", "convnext_atto", "mobilenetv3_small_050", "efficientnet_b0"])
def test_a_state_fits_the_same_backbone_at_another_stride(name):
    states = [
        {key: tuple(tensor.shape) for key, tensor in on_meta(name, output_stride=stride).state_dict().items()}
        for stride in (8, 16, 32)
    ]
    assert states[0] == states[1] == states[2]


@pytest.mark.parametrize(
    ("name", "stride"),
    [
        ("test_resnet", 8),
        ("test_convnext", 8),
        ("mobilenetv3_small_050", 8),
        ("mobilenetv3_small_050", 32),
        ("test_vit", 16),
        ("swin_tiny_patch4_window7_224", 32),
    ],
)
def test_every_parameter_gets_a_gradient(name, stride):
    torch.manual_seed(0)
    backbone = Backbone(name, output_stride=stride, pretrained=False).train()
    features = backbone(torch.randn(2, 3, 70, 65))
    sum(x.square().sum() for x in features).backward()
    assert [key for key, parameter in backbone.named_parameters() if parameter.grad is None] == []


def without_a_gradient(backbone: Backbone, maps: tuple[str, ...]) -> set[str]:
    """The parameters that a real backward pass from these maps leaves out."""
    backbone.requires_grad_(True).zero_grad()
    features = backbone(torch.randn(1, 3, *(backbone._fixed_size or (64, 64))))
    sum(getattr(features, name).square().sum() for name in maps).backward()
    return {key for key, parameter in backbone.named_parameters() if parameter.grad is None}


def frozen(backbone: Backbone) -> set[str]:
    return {key for key, parameter in backbone.named_parameters() if not parameter.requires_grad}


@pytest.mark.parametrize("name", ["hrnet_w18_small", "coat_tiny"])
def test_what_no_map_depends_on_is_frozen_and_nothing_else_changes(name, monkeypatch):
    torch.manual_seed(0)
    backbone = Backbone(name, output_stride=32, pretrained=False)
    state, generator = backbone.state_dict(), torch.get_rng_state()
    with monkeypatch.context() as patch:
        patch.setattr(Backbone, "freeze_unused", lambda self: None)
        torch.manual_seed(0)
        plain = Backbone(name, output_stride=32, pretrained=False)
    assert torch.equal(generator, torch.get_rng_state())
    assert frozen(plain) == set()
    torch.testing.assert_close(state, plain.state_dict(), rtol=0, atol=0)
    assert all(parameter.grad is None for parameter in backbone.parameters())

    everything = frozen(backbone)
    assert everything
    backbone.freeze_unused(("deep",))
    deep_only = frozen(backbone)
    assert deep_only >= everything
    assert everything == without_a_gradient(backbone, ("low", "auxiliary", "deep"))
    assert deep_only == without_a_gradient(backbone, ("deep",))


def test_freezing_works_in_inference_mode():
    with torch.inference_mode():
        backbone = Backbone("test_convnext", pretrained=False)
    assert frozen(backbone) == set()
    assert {tensor.device.type for tensor in backbone.state_dict().values()} == {"cpu"}


def test_what_was_frozen_before_stays_frozen():
    backbone = on_meta("test_convnext")
    backbone.net.stem.requires_grad_(False)
    backbone.freeze_unused()
    assert frozen(backbone) == {f"net.stem.{key}" for key, _ in backbone.net.stem.named_parameters()}


def test_a_network_that_cannot_run_without_numbers_stays_trainable(monkeypatch, caplog):
    def needs_numbers(self, x):
        raise RuntimeError("Tensor.item() cannot be called on meta tensors")

    monkeypatch.setattr(Backbone, "forward", needs_numbers)
    with caplog.at_level(logging.DEBUG, logger="segcontext.backbone"):
        backbone = on_meta("test_convnext")
    assert frozen(backbone) == set()
    assert "are not known: Tensor.item()" in caplog.text


def test_a_network_of_one_size_is_not_padded_beyond_it():
    # Its size, 224, is no multiple of its stride, 64.
    backbone = on_meta("levit_128s", output_stride=32)
    assert shapes(backbone, 224, 224) == expected(backbone, 224, 224)


def test_a_network_of_one_size_says_so():
    backbone = on_meta("test_maxvit", output_stride=32)
    size = backbone.net.pretrained_cfg["input_size"][1:]
    assert shapes(backbone, *size) == expected(backbone, *size)
    with pytest.raises(ShapeError, match=rf"takes images of {size[0]}×{size[1]} only, these are 64×96"):
        shapes(backbone, 64, 96)


def test_normalisation_comes_from_the_weights():
    backbone = on_meta("resnet50s")
    assert backbone.mean == pytest.approx((0.485, 0.456, 0.406))
    assert backbone.std == pytest.approx((0.229, 0.224, 0.225))
    assert on_meta("vit_tiny_patch16_224").mean == (0.5, 0.5, 0.5)


def test_it_exports_and_takes_other_sizes_afterwards():
    torch.manual_seed(0)
    backbone = Backbone("resnet18", pretrained=False).eval()
    auto = torch.export.Dim.AUTO
    program = torch.export.export(backbone, (torch.randn(2, 3, 66, 97),), dynamic_shapes=({2: auto, 3: auto},))
    x = torch.randn(2, 3, 33, 47)
    torch.testing.assert_close(program.module()(x), backbone(x))


# Wrong settings.


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "resnet50ss"}, "nearest names are: resnet50s"),
        ({"name": "resnet18.no_such_tag"}, "no_such_tag"),
        ({"name": "hf-hub:someone/something"}, "not a timm model"),
        ({"output_stride": 4}, "must be 8, 16 or 32, not 4"),
        ({"first_block": "last"}, "'previous' or 'same', not 'last'"),
        ({"multi_grid": ()}, "multi_grid is empty"),
        ({"multi_grid": (1, 0, 4)}, r"multi_grid takes whole numbers from 1 up, not \[1, 0, 4\]"),
        ({"dilations": (None, None, None, (1, 2.5))}, r"dilations takes whole numbers from 1 up, not \[1, 2.5\]"),
        ({"dilations": (None, None, (1, 2))}, r"of \[2, 2, 2, 2\] numbers"),
        ({"dilations": (None, None, None, (1, 2, 4))}, r"of \[2, 2, 2, 2\] numbers"),
        ({"dilations": (None,) * 4, "multi_grid": (1, 2)}, "leave out multi_grid"),
        ({"dilations": 3}, r"of \[2, 2, 2, 2\] numbers .* not 3"),
        ({"dilations": (None, None, 2, 4)}, r"of \[2, 2, 2, 2\] numbers"),
        ({"dilations": (None, None, None, (True, 2))}, r"dilations takes whole numbers from 1 up, not \[True, 2\]"),
        ({"multi_grid": 4}, "multi_grid takes whole numbers from 1 up, not 4"),
        (
            {"name": "convnext_atto", "multi_grid": (1, 2, 4)},
            "need a ResNet's stages; backbone 'convnext_atto' has none",
        ),
        ({"name": "res2net50d", "first_block": "same"}, "need a ResNet's stages"),
        ({"name": "convnext_atto", "dilations": (None,) * 4}, "need a ResNet's stages"),
        ({"name": "convnext_atto", "ceil_mode": True}, "needs a max-pool"),
        ({"low_stride": 3}, "low_stride must be 2 or 4, not 3"),
        ({"timm_options": {"chanels": [8] * 4}}, r"cannot build backbone 'resnet18' with the timm_options .*chanels"),
        ({"timm_options": {"output_stride": 8, "in_chans": 1}}, "must not set in_chans, output_stride"),
        ({"timm_options": {"checkpoint_path": "a.pth"}}, "must not set checkpoint_path"),
        ({"timm_options": {"pretrained_cfg": {"file": "a.pth"}}}, "must not set pretrained_cfg"),
    ],
)
def test_wrong_settings_are_refused(options, message):
    with pytest.raises(RecipeError, match=message):
        on_meta(**{"name": "resnet18", **options})


@pytest.mark.parametrize(
    ("name", "stride", "dilations", "message"),
    [
        ("resnet18", 8, (None, None, (1, 1), (2, 4)), "at most 1 in stage 3, but output stride 8 by itself needs 2"),
        ("resnet18", 8, (None, None, None, (1, 2)), "at most 2 in stage 4, but output stride 8 by itself needs 4"),
        (
            "resnet50s",
            16,
            (None, None, None, (1, 1, 1)),
            "at most 1 in stage 4, but output stride 16 by itself needs 2",
        ),
    ],
)
def test_dilations_of_another_stride_are_refused_where_they_are_too_small(name, stride, dilations, message):
    with pytest.raises(RecipeError, match=message) as caught:
        on_meta(name, output_stride=stride, dilations=dilations)
    for way_out in ("load_model without output_stride", "null for the stage", "multi_grid"):
        assert way_out in str(caught.value)


def test_dilations_of_ones_own_may_be_what_timm_builds():
    # A stage of one bottleneck keeps the previous stage's dilation, which is less than the stride's own.
    assert on_meta("resnet10t", output_stride=8, dilations=(None, None, (2,), (4,))).output_stride == 8
    assert geometry(on_meta("resnet50s", dilations=(None, None, [1, 2, 2, 2, 2, 2], [2, 4, 4])).net) == geometry(
        on_meta("resnet50s").net
    )


@pytest.mark.parametrize(
    ("dilations", "made_for", "stride", "stages"),
    [
        ((None, None, (1, 1), (2, 4)), 16, 8, "stage 3 and 4"),
        ((None, None, (2, 2), (4, 4)), 8, 16, "stage 3 and 4"),
        ((None, None, None, (2, 4)), 16, 8, "stage 4"),
        ((None, None, (1, 3), (2, 4)), 16, 32, "stage 4"),
    ],
)
def test_dilations_are_not_taken_to_another_stride(dilations, made_for, stride, stages):
    message = rf"for output stride {made_for}, and those of {stages} would be wrong at output stride {stride}\. Keep"
    with pytest.raises(RecipeError, match=message):
        refuse_other_stride(dilations, made_for, stride)


@pytest.mark.parametrize(
    ("dilations", "made_for", "stride"),
    [
        (None, 16, 8),
        ((None,) * 4, 16, 8),
        ((None, None, (1, 1), (2, 4)), 16, 16),
        (((1, 2), (1, 2), None, None), 16, 8),
        ((None, None, (1, 3), None), 16, 32),
    ],
)
def test_dilations_that_mean_the_same_at_both_strides_pass(dilations, made_for, stride):
    assert refuse_other_stride(dilations, made_for, stride) is None


# Weights.


@pytest.fixture(scope="module")
def published() -> dict[str, torch.Tensor]:
    """The tensors of a whole timm network, its classifier included."""
    torch.manual_seed(7)
    return timm.create_model("test_resnet").state_dict()


def assert_loaded(backbone: Backbone, state: dict[str, torch.Tensor]) -> None:
    for key, tensor in backbone.net.state_dict().items():
        torch.testing.assert_close(tensor, state[key], rtol=0, atol=0, msg=key)


def test_safetensors_with_another_classifier(tmp_path, published):
    state = {**published, "fc.weight": torch.zeros(5, 3), "fc.bias": torch.zeros(5)}
    save_file(state, tmp_path / "w.safetensors")
    assert_loaded(Backbone("test_resnet", weights=tmp_path / "w.safetensors"), published)


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"epoch": 3, "state_dict": s}, lambda s: {"model": s}])
def test_pytorch_files(tmp_path, published, wrap):
    path = tmp_path / "w.pth"
    headless = {f"module.{key}": tensor for key, tensor in published.items() if not key.startswith("fc.")}
    torch.save(wrap(headless), path)
    assert_loaded(Backbone("test_resnet", weights=str(path)), published)


def test_files_without_step_counters_load(tmp_path, published):
    state = {key: tensor for key, tensor in published.items() if not key.endswith("num_batches_tracked")}
    torch.save(state, tmp_path / "w.pth")
    assert_loaded(Backbone("test_resnet", weights=tmp_path / "w.pth"), published)


def test_a_mobilenet_loads_at_every_stride_in_spite_of_its_head(tmp_path):
    state = timm.create_model("mobilenetv3_small_050").state_dict()
    save_file(state, tmp_path / "w.safetensors")
    for stride in (8, 32):
        backbone = Backbone("mobilenetv3_small_050", output_stride=stride, weights=tmp_path / "w.safetensors")
        assert_loaded(backbone, state)


def test_a_file_on_which_timms_own_converter_stumbles_is_refused_by_name(tmp_path):
    torch.save({"elsewhere.relative_position_bias_table": torch.zeros(2, 3)}, tmp_path / "w.pth")
    with (
        torch.device("meta"),
        pytest.raises(WeightsError, match=r"unexpected \(1\): elsewhere.relative_position_bias_table \(2, 3\)"),
    ):
        Backbone("swin_tiny_patch4_window7_224", output_stride=32, weights=tmp_path / "w.pth")


def test_swin_buffers_of_older_files_are_dropped(tmp_path):
    name = "swin_tiny_patch4_window7_224"
    with torch.device("meta"):
        state = timm.create_model(name).state_dict()
    state = {key: torch.full_like(tensor, 0.5, device="cpu") for key, tensor in state.items()}
    state["layers.0.blocks.0.attn.relative_position_index"] = torch.zeros(49, 49, dtype=torch.int64)
    save_file(state, tmp_path / "w.safetensors")
    backbone = Backbone(name, output_stride=32, weights=tmp_path / "w.safetensors")
    assert all(bool((parameter == 0.5).all()) for parameter in backbone.parameters())


def test_what_does_not_fit_is_listed_by_name_and_shape(tmp_path, published):
    state = dict(published)
    shape = tuple(state.pop("layer1.0.conv1.weight").shape)
    state["bn1.weight"] = torch.zeros(77)
    state["decoder.weight"] = torch.zeros(2, 3)
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(WeightsError) as caught:
        Backbone("test_resnet", weights=tmp_path / "w.pth")
    message = str(caught.value)
    assert f"missing (1): layer1.0.conv1.weight {shape}" in message
    assert "unexpected (1): decoder.weight (2, 3)" in message
    assert "of another shape (1): bn1.weight (77,), not" in message


def test_a_file_of_another_network_is_refused_on_one_screen(tmp_path, published):
    torch.save(published, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="does not fit backbone 'resnet18'") as caught:
        Backbone("resnet18", weights=tmp_path / "w.pth")
    assert len(str(caught.value)) < 2000


class Touch:
    """Unpickled carelessly, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("save", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content))])
def test_a_pickle_with_code_is_refused_and_not_executed(tmp_path, published, save):
    trap = tmp_path / "executed"
    path = tmp_path / "w.pth"
    save({**published, "trap": Touch(trap)}, path)
    with pytest.raises(WeightsError, match="not executed"):
        Backbone("test_resnet", weights=path)
    assert not trap.exists()


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_damaged_and_missing_files_are_refused(tmp_path, published, name):
    path = tmp_path / name
    with pytest.raises(WeightsError, match="no weight file"):
        Backbone("test_resnet", weights=path)
    (save_file if path.suffix == ".safetensors" else torch.save)(dict(published), path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(WeightsError, match=r"w\.(pth|safetensors)"):
        Backbone("test_resnet", weights=path)


@pytest.mark.parametrize("content", [b"", b"\x80\x02.", b"\x80\x02X\x03", b"no weights at all"])
def test_bytes_that_are_no_weights_are_refused(tmp_path, content):
    for name in ("w.pth", "w.safetensors"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(WeightsError, match=name):
            Backbone("test_resnet", weights=tmp_path / name)


@pytest.mark.parametrize("content", [[torch.zeros(3)], {"epoch": 3}, torch.zeros(3)])
def test_a_file_without_named_tensors_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="no tensors by name"):
        Backbone("test_resnet", weights=tmp_path / "w.pth")


# The hub, without a network.


def unreachable(*_args, **_options):
    raise ConnectionError("Name or service not known")


def test_without_a_network_the_error_says_how_to_go_on(monkeypatch):
    monkeypatch.setattr(backbone_weights, "try_to_load_from_cache", lambda *_: None)
    monkeypatch.setattr(backbone_weights, "get_session", lambda: types.SimpleNamespace(head=unreachable))
    monkeypatch.setattr(
        backbone_weights, "hf_hub_download", lambda *_: pytest.fail("tried to download without a network")
    )
    with pytest.raises(PretrainedUnavailable) as caught:
        Backbone("test_resnet")
    for word in ("test_resnet", "Name or service not known", "weights=", "pretrained=False"):
        assert word in str(caught.value)


def test_cached_weights_need_no_network(monkeypatch, tmp_path, published):
    save_file(published, tmp_path / "model.safetensors")
    monkeypatch.setattr(backbone_weights, "try_to_load_from_cache", lambda *_: str(tmp_path / "model.safetensors"))
    monkeypatch.setattr(backbone_weights, "get_session", lambda: types.SimpleNamespace(head=unreachable))
    assert_loaded(Backbone("test_resnet"), published)


def test_the_hub_is_asked_for_the_models_own_file(monkeypatch, tmp_path, published):
    save_file(published, tmp_path / "model.safetensors")
    asked = []

    def download(repository, file):
        asked.append((repository, file))
        return str(tmp_path / file)

    monkeypatch.setattr(backbone_weights, "try_to_load_from_cache", lambda *_: None)
    monkeypatch.setattr(backbone_weights, "get_session", lambda: types.SimpleNamespace(head=lambda *_, **__: None))
    monkeypatch.setattr(backbone_weights, "hf_hub_download", download)
    assert_loaded(Backbone("test_resnet"), published)
    assert asked == [("timm/test_resnet.r160_in1k", "model.safetensors")]


def test_the_papers_weights_are_the_hubs_gluon_weights(monkeypatch):
    monkeypatch.setattr(backbone_weights, "try_to_load_from_cache", lambda *_: None)
    monkeypatch.setattr(backbone_weights, "get_session", lambda: types.SimpleNamespace(head=unreachable))
    for name in ("resnet50s", "resnet101s", "resnet152s"):
        with torch.device("meta"), pytest.raises(PretrainedUnavailable, match=rf"timm/{name}\.gluon_in1k"):
            Backbone(name)


def test_a_model_without_published_weights_says_so(monkeypatch):
    monkeypatch.setattr(backbone_weights, "get_session", lambda: pytest.fail("asked the hub"))
    with torch.device("meta"), pytest.raises(PretrainedUnavailable, match="has no weights"):
        Backbone("efficientnet_b0_gn")
