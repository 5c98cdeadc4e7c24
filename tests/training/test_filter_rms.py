"""--max-filter-rms: after every step no filter of a convolution is larger."""

from __future__ import annotations

import numpy as np
import pytest

from minicnn import checkpoint
from minicnn.train.options import recipe


@pytest.mark.parametrize(("option", "held"), [(["--max-filter-rms", "0.05"], True), ([], False)])
def test_a_run_holds_its_filters(option, held, train, tmp_path):
    assert train("--out", tmp_path / "run", *option) == 0
    arrays, _ = checkpoint.read(tmp_path / "run" / "last.safetensors")
    rms = np.sqrt((arrays["conv1.weight"] ** 2).mean(axis=(0, 1, 2)))
    assert (rms.max() < 0.0501) == held


def test_the_recipe_of_zfnet_has_the_papers_bound():
    assert recipe("paper", "zfnet")["max_filter_rms"] == 0.1
    assert recipe("paper", "alexnet")["max_filter_rms"] == recipe("default", "zfnet")["max_filter_rms"] == 0
