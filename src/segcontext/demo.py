"""The demo: EMA with LDv2 on drawn street scenes, trained, scored and explained in a few minutes."""

from __future__ import annotations

from pathlib import Path

import torch
from rich.console import Console

from segcontext.checkpoint import load_model
from segcontext.data import Scenes
from segcontext.explain import panel
from segcontext.files import atomic_path
from segcontext.pictures import save_picture
from segcontext.recipe import Recipe
from segcontext.training import Result, train

__all__ = ["demo", "demo_recipe"]


def demo_recipe(*, seed: int = 0, steps: int = 360, context: bool = True) -> Recipe:
    """The demo's recipe: timm's smallest ResNet at stride 8, with EMA and LDv2 or without.

    Args:
        seed: of weights, draws and augmentation; the scenes are always the same.
        steps: optimizer steps.
        context: whether there are an aggregation and a distribution.

    Returns:
        A recipe for two CPU cores and a few minutes.
    """
    parts = {
        "aggregation": "ema",
        "aggregation_options": {"num_bases": 16},
        "distribution": "affinity",
        "distribution_options": {"kernel_size": 5, "dilation": 2, "key_channels": 32, "value_channels": 96},
    }
    return Recipe(
        data="demo",
        model="segmenter",
        backbone="test_resnet",
        pretrained=False,
        output_stride=8,
        **(parts if context else {"aggregation": "none", "distribution": "none"}),
        # GALD eq. 3: what was distributed is fused with what the context parts were given.
        model_options={"reduce_channels": 96, "skip": "reduced", "fuse_channels": 96, "decoder_channels": 48},
        steps=steps,
        batch=8,
        crop=[128, 256],
        scale=[0.8, 1.25],
        optimizer="adamw",
        lr=2e-3,
        weight_decay=0.01,
        warmup=20,
        class_weights="inverse_sqrt",
        weight_averaging=0.98,
        val_every=max(1, steps // 3),
        val_limit=40,
        checkpoint_every=100,
        seed=seed,
        workers=0,
        accelerator="auto",
    )


def demo(
    out: str | Path = "runs/demo",
    *,
    overwrite: bool = False,
    seed: int = 0,
    steps: int = 360,
    console: Console | None = None,
) -> Result:
    """Trains the demo's network and adds to its report what it attended to.

    Args:
        out: the run folder.
        overwrite: whether an earlier run there may be replaced.
        seed: of weights, draws and augmentation.
        steps: optimizer steps.
        console: where progress is shown.

    Returns:
        How well it did.

    Raises:
        OutputExists: where the folder holds something and `overwrite` is not set.
    """
    console = console or Console(quiet=True)
    console.print("Training EMA + LDv2 on drawn street scenes.", highlight=False)
    result = train(demo_recipe(seed=seed, steps=steps), out, overwrite=overwrite, console=console)
    model = load_model(result.folder)
    scenes = Scenes(split="val")
    lines = ["\n## What the network attended to\n"]
    for index in (0, 7):
        sample = scenes[index]
        assert sample.mask is not None
        with torch.inference_mode():
            output = model(sample.image[None], evidence=True)
        sheet = panel(sample.image, output, model.palette, truth=sample.mask)
        name = f"explained_{index:02d}.png"
        save_picture(result.folder / name, sheet)
        lines.append(
            f"![image, truth, prediction and error; the responsibilities of four EM bases; the LDv2 affinities of four "
            f"marked pixels, scene {sample.name}]({name})\n"
        )
    report = result.folder / "report.md"
    with atomic_path(report) as temporary:
        temporary.write_text(report.read_text(encoding="utf-8") + "\n".join(lines), encoding="utf-8")
    console.print(
        f"Validation mIoU [bold]{100 * result.best:.1f} %[/] after {result.seconds / 60:.1f} minutes.\n"
        f"Read {report}, and look at {result.folder / 'explained_00.png'}.",
        highlight=False,
        soft_wrap=True,
    )
    return result
