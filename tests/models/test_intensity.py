"""Intensities of published networks: centred tissue, background 0."""

import torch

from gliomoe.models.blocks.intensity import centred


def test_tissue_is_centred_and_background_stays():
    x = torch.tensor([0.0, 0.5, 0.25, 1.0, -0.1])
    expected = torch.tensor([0.0, 0.0, -1.0, 2.0, -2.4])
    torch.testing.assert_close(centred(x), expected)
    assert centred(x)[0] == 0
