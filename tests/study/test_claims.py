"""The claims are all there, and every one is declared so that it can be carried out."""

from __future__ import annotations

import json
import re

import pytest

from minicnn import init, models
from minicnn.study import claims
from minicnn.study.__main__ import main
from minicnn.study.claim import SCALES
from minicnn.study.training import Training

EXPERIMENTS = [claim for claim in claims.CLAIMS if claim.scales]
SIZES = {"bundled": (10, 1, 28), "cifar10": (10, 3, 32), "imagenet": (1000, 3, 224)}  # classes, channels, pixels


def test_every_claim_of_the_project_is_listed(shared, capsys):
    rows = re.findall(r"^\| (\d+) \|", (shared / "CLAIMS.md").read_text("utf-8"), flags=re.M)
    assert main(["--list"]) == 0
    listed = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert len(rows) == 19 and set(rows) <= {number for number, *_ in listed}
    assert all(re.fullmatch(r"[a-z0-9-]+", slug) for _, slug, *_ in listed)


def test_numbers_and_names_are_unique():
    assert [claim.number for claim in claims.CLAIMS] == list(range(1, len(claims.CLAIMS) + 1))
    assert len({claim.slug for claim in claims.CLAIMS}) == len(claims.CLAIMS)


@pytest.mark.parametrize("text", ["10", "depth-degradation", "10-depth-degradation"])
def test_a_claim_is_found_by_number_and_by_name(text):
    assert [claim.number for claim in claims.find(text)] == [10]


def test_all_begins_with_depth_and_ends_with_what_takes_longest():
    found = claims.find("all", "small")
    assert found[0].slug == "depth-degradation" and len(found) == len(claims.CLAIMS)
    hours = [claim.at("small").hours for claim in found[1:]]
    assert hours == sorted(hours)


@pytest.mark.parametrize("claim", EXPERIMENTS, ids=lambda claim: claim.name)
def test_what_is_compared_is_there(claim):
    assert set(claim.scales) == set(SCALES)
    for scale in SCALES:
        arms = {arm.name: arm for arm in claim.arms_at(scale)}
        assert len(arms) == len(claim.arms_at(scale))
        parts = claim.parts_at(scale)
        assert any(part.decides for part in parts), "no claim without a computed verdict"
        assert all(set(part.of) <= set(arms) for part in parts)
        assert claim.scales[scale].seeds >= (1 if all(part.exact for part in parts) else 2)


def networks(scale):
    """Each network of a scale once, as (sizes, name, variant)."""
    for claim in EXPERIMENTS:
        data = claim.scales[scale].data
        classes, channels, side = SIZES.get(data.name if data else "", SIZES["bundled"])
        for arm in claim.arms_at(scale):
            if isinstance(arm.work, Training):
                sizes = (classes, channels, data.image_size if scale != "paper" and data.image_size else side)
                yield sizes, arm.work.model, json.dumps(dict(arm.work.variant))


@pytest.mark.parametrize("scale", SCALES)
def test_every_network_can_be_built(scale):
    with init.skipped():
        for sizes, model, variant in dict.fromkeys(networks(scale)):
            assert models.build(model, *sizes, **json.loads(variant))
