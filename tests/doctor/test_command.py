"""The command, the files that it leaves, and the page."""

import ast
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from tests.doctor.trees import labels, picture

from segcontext import cli, doctor
from segcontext.doctor import examine as examine_function
from segcontext.errors import OutputExists


@pytest.fixture
def run(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)

    def call(*words):
        code = cli.main(["doctor", *map(str, words)])
        return code, *capsys.readouterr()

    return call


def written(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_a_healthy_folder_ends_with_0_and_leaves_its_files(run, tree, tmp_path):
    code, out, _ = run(tree.fill().root)
    assert code == 0
    assert "Nothing is wrong" in out
    assert "6 of 6 images examined" in out
    folder = tmp_path / "runs/doctor-data"
    assert written(folder) == ["doctor.html", "doctor.json", "mend/recipe.yaml"]
    recipe = (folder / "mend/recipe.yaml").read_text()
    assert recipe.startswith(f"data: {tree.root}\ndataset: folder\n")
    assert "crop: [48, 64]" in recipe


def test_errors_end_with_1_and_are_told_everywhere(run, tree, tmp_path):
    tree.fill(values=(1, 2, 3))
    code, out, _ = run(tree.root, "--out", tmp_path / "found", "--workers", "0")
    assert code == 1
    assert re.search(r"error The labels start at 1.* off-by-one", out)
    assert "1 sky\n  2 ground\n  3 thing" in out
    assert "1 error, 1 warning" in out
    values = json.loads((tmp_path / "found/doctor.json").read_text())
    assert (values["format"], values["errors"], values["warnings"], values["notes"]) == (1, 1, 1, 0)
    assert [finding["code"] for finding in values["findings"]] == ["off-by-one", "class-never-seen"]
    assert values["findings"][0]["examples"][0]["mask"].endswith(".png")
    assert values["splits"]["train"]["images"] == 4
    assert (tmp_path / "found/mend/classes.txt").read_text() == values["mend"]["classes.txt"]
    assert "off-by-one" in (tmp_path / "found/doctor.html").read_text()


def test_only_an_earlier_diagnosis_is_replaced_and_only_if_asked(run, tree, tmp_path):
    tree.fill(values=(1, 2, 3))
    out = tmp_path / "found"
    assert run(tree.root, "--out", out)[0] == 1
    code, _, err = run(tree.root, "--out", out)
    assert (code, "--overwrite" in err) == (2, True)
    tree.classes("1 sky\n2 ground\n3 thing")
    assert run(tree.root, "--out", out, "--overwrite")[0] == 0
    # Lines of the earlier one would mislead.
    assert written(out) == ["doctor.html", "doctor.json", "mend/recipe.yaml"]
    before = written(tree.root)
    code, _, err = run(tree.root, "--out", tree.root, "--overwrite")
    assert (code, "something else" in err) == (2, True)
    code, _, err = run(tree.root, "--out", tree.root / "classes.txt")
    assert (code, "is a file" in err) == (2, True)
    assert written(tree.root) == before


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("nowhere",), "No folder nowhere"),
        ((".", "--dataset", "foldr"), "Did you mean 'folder'"),
        ((".", "--limit", "0"), "limit starts at 1"),
        ((".", "--limit", "many"), "--limit cannot be 'many'"),
        ((), "needs DATA"),
        ((".", "--overwrit"), "Did you mean '--overwrite'"),
    ],
)
def test_wrong_words_end_with_2(run, words, text, tmp_path):
    code, _, err = run(*words)
    assert code == 2
    assert text in err
    assert not (tmp_path / "runs").exists()


def test_an_interruption_leaves_nothing(run, tree, tmp_path, monkeypatch):
    tree.fill()

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("segcontext.doctor.examining.probe", interrupted)
    assert run(tree.root)[0] == 130
    assert not (tmp_path / "runs").exists()


def test_an_interruption_while_the_page_is_drawn_leaves_whole_files(tree, tmp_path, monkeypatch):
    diagnosis = examine_function(tree.fill().root, progress=False)

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("segcontext.doctor.diagnosis.draw_page", interrupted)
    with pytest.raises(KeyboardInterrupt):
        diagnosis.save(tmp_path / "out")
    assert written(tmp_path / "out") == ["doctor.json", "mend/recipe.yaml"]
    json.loads((tmp_path / "out/doctor.json").read_text())
    with pytest.raises(OutputExists):
        diagnosis.save(tmp_path / "out")


class Nested(HTMLParser):
    """Checks that every element is closed where it was opened."""

    def __init__(self):
        super().__init__()
        self.open, self.text = [], []

    def handle_starttag(self, tag, attrs):
        if tag not in ("meta", "img", "rect", "circle", "polyline"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in ("rect", "circle", "polyline"):
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def test_the_page_is_whole_and_takes_names_for_text(tree, tmp_path):
    tree.classes("<b>sky</b>\nground & more\nthing")
    tree.fill()
    tree.add("train/<i>odd & name", 9)
    tree.save(picture(1), "images/train/<script>alert(1)<!--.png")
    tree.add("train/values", 3, mask=labels(3, values=(0, 1, 99)))
    examine_function(tree.root, progress=False).save(tmp_path / "out")
    page = (tmp_path / "out/doctor.html").read_text()
    parser = Nested()
    parser.feed(page)
    parser.close()
    assert parser.open == []
    text = "".join(parser.text)
    assert "<b>sky</b>" in text
    assert "images/train/<script>alert(1)<!--.png" in text
    assert "99 void" in text
    assert not re.search(r"<(script|link|iframe)|https?://", page)
    charts = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(charts) >= 4
    for chart in charts:
        ElementTree.fromstring(chart)


def test_every_finding_is_documented():
    root = Path(doctor.__file__).parent
    documented = set(re.findall(r"`([a-z0-9-]+)`", (root.parents[2] / "docs/doctor.md").read_text(encoding="utf-8")))
    codes = set()
    for path in root.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Finding":
                first = node.args[0]
                for value in (first.body, first.orelse) if isinstance(first, ast.IfExp) else (first,):
                    codes |= {value.value} if isinstance(value, ast.Constant) else set()
    assert len(codes) > 30
    assert codes <= documented
