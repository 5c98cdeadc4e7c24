"""Every claim, a file each or one for a group that trains the same networks."""

from __future__ import annotations

import difflib

from minicnn.study import networks as networks  # so that `models.build` knows them
from minicnn.study.claim import Claim
from minicnn.study.claims import (
    costs,
    depth,
    first_layer,
    gradients,
    inception,
    normalisation,
    shortcuts,
    sources,
    vgg,
)

_GROUPS = (vgg, costs, depth, shortcuts, normalisation, gradients, inception, first_layer, sources)
CLAIMS: tuple[Claim, ...] = tuple(
    sorted((c for group in _GROUPS for c in group.CLAIMS), key=lambda claim: claim.number)
)
FIRST = "depth-degradation"


def find(text: str, scale: str = "tiny") -> list[Claim]:
    """The claim of a number or a slug; with "all" every one, in the order in which they are carried out: what
    the project is about, then those that take the least at this scale.

    ValueError for what is no claim, with the nearest names.
    """
    if text == "all":
        return sorted(CLAIMS, key=lambda claim: (claim.slug != FIRST, claim.at(scale).hours))
    for claim in CLAIMS:
        if text in (str(claim.number), f"{claim.number:02}", claim.slug, claim.name):
            return [claim]
    known = {word: claim.slug for claim in CLAIMS for word in (*claim.slug.split("-"), claim.slug) if len(word) > 2}
    near = dict.fromkeys(known[word] for word in difflib.get_close_matches(text.lower(), known, n=3, cutoff=0.6))
    numbers = f"1 to {CLAIMS[-1].number}"
    hint = f"did you mean {' or '.join(near)}?" if near else f"choose a number from {numbers}, or a name of --list"
    raise ValueError(f"unknown claim {text!r}: {hint}")
