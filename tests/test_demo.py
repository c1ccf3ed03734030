"""The demo itself, for two steps."""

import dataclasses
import json

import pytest
from PIL import Image

from segcontext import demo as module
from segcontext.demo import demo, demo_recipe


def test_the_demo_trains_scores_and_explains(tmp_path, monkeypatch):
    def shorter(**options):
        """Validation takes most of two steps' time."""
        return dataclasses.replace(demo_recipe(**options), val_every=2, val_limit=6)

    monkeypatch.setattr(module, "demo_recipe", shorter)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    out = tmp_path / "demo"
    result = demo(out, steps=2)
    assert (result.folder, result.step) == (out, 2)
    for name in ("recipe.yaml", "model.json", "metrics.csv", "weights/best.safetensors", "weights/last.safetensors"):
        assert (out / name).stat().st_size > 0, name
    scores = json.loads((out / "validation/scores.json").read_text())
    assert (scores["dataset"], scores["split"], scores["images"]) == ("scenes", "val", 6)
    assert scores["miou"] == pytest.approx(result.best)
    assert 0 < scores["miou"] < 1
    report = (out / "report.md").read_text()
    for name in ("curves.png", "validation/pictures/overview.png", "explained_00.png", "explained_07.png"):
        assert f"({name})" in report
        with Image.open(out / name) as picture:
            assert min(picture.size) > 100
