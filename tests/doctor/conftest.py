import json

import pytest
from tests.doctor.trees import Tree

from segcontext.doctor import examine


@pytest.fixture
def tree(tmp_path):
    (tmp_path / "data").mkdir()
    return Tree(tmp_path / "data")


@pytest.fixture
def look():
    """Examines a folder in this process and gives the diagnosis with its findings by code."""

    def call(tree, **options):
        diagnosis = examine(tree.root, progress=False, workers=0, **options)
        found = {}
        for finding in diagnosis.findings:
            assert finding.title
            assert finding.cure, finding.code
            assert finding.code not in found or finding.code in ("class-not-in-split", "image-mode"), finding.code
            found[finding.code] = finding
        json.dumps(diagnosis.values())
        return diagnosis, found

    return call
