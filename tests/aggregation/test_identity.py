import torch

from segcontext.aggregation.identity import Identity


def test_hands_the_features_on():
    x = torch.randn(2, 4, 3, 5)
    found = Identity(4)(x, evidence=True)
    assert found.features is x
    assert found.evidence is None
