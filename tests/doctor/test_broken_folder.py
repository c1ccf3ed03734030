"""The folder broken in ten ways that docs/doctor.md shows: all ten are found, and the lines mend it."""

import importlib.util
from pathlib import Path

ROOT = Path(__file__).parents[2]


def script():
    spec = importlib.util.spec_from_file_location("broken_folder", ROOT / "benchmarks" / "broken_folder.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_all_ten_are_found_and_mended_as_the_page_says(tmp_path):
    broken_folder = script()
    first, second, third = broken_folder.run(tmp_path / "ten")
    assert len(broken_folder.BREAKS) == 10
    named = {mistake.code: mistake for mistake in broken_folder.BREAKS}
    found = {finding.code: finding for finding in first.findings if finding.severity != "note"}
    assert set(found) == set(named)
    for code, mistake in named.items():
        assert any(mistake.file in str(example) for example in found[code].examples), code
    # Files that no line can mend were made anew; the two that are left are mended by lines.
    left = {finding.code for finding in second.findings if finding.severity != "note"}
    assert left == {code for code, mistake in named.items() if mistake.by_lines}
    assert third.healthy
    assert third.count("warning") == 0
    page = (ROOT / "docs" / "doctor.md").read_text(encoding="utf-8")
    assert "\n".join(broken_folder.table(first, second)) in page, "run: python benchmarks/broken_folder.py FOLDER"
