"""Every cheat of the catalogue is refused or found with its code, or gets through as the page says."""

from __future__ import annotations

import pytest
from corpus.catalogue import CHAPTERS
from corpus.cheat import Cheat
from corpus.world import World

# Those with the vendor's tool or a whole appliance in each take seconds together.
LONG = {
    "The machine and its requests",
    "One usage report",
    "Usage reports in their order",
    "Acknowledgements",
    "The bill",
}


@pytest.mark.parametrize(
    "cheat",
    [
        pytest.param(
            cheat,
            id=cheat.name.replace(" ", "-"),
            marks=[pytest.mark.thorough] if title in LONG else [],
        )
        for title, cheats in CHAPTERS
        for cheat in cheats
    ],
)
def test_a_cheat_ends_as_the_catalogue_says(cheat: Cheat, world: World) -> None:
    assert cheat.run(world) == cheat.answer
