"""What is said of a damaged licence file: that it is damaged, in our words, and to copy it again."""

from __future__ import annotations

from pathlib import Path

import pytest

from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.licence.document import open_licence
from lotabotsd.licence.keyring import load_anchors

FOREIGN = ("line 1 column", "Expecting", "Invalid", "codec", "padding", "delimiter", "char ", "Exceeds")


@pytest.mark.parametrize("form", ["pro.dsse.json", "pro.armour.txt", "pro.line.txt"])
@pytest.mark.parametrize("damage", ["line break", "cut", "byte", "digits"])
def test_no_words_of_a_library_reach_the_reader(golden: Path, form: str, damage: str) -> None:
    whole = (golden / form).read_bytes()
    middle = len(whole) // 2
    damaged = {
        "line break": whole[:middle] + b"\x01\n" + whole[middle:],
        "cut": whole[:middle],
        "byte": whole[:middle] + b"\xff" + whole[middle + 1 :],
        "digits": whole.replace(b"[", b"[" + b"9" * 5_000 + b",", 1).replace(b"A", b"AAA", 1),
    }[damage]
    with pytest.raises(LotaBotsError) as caught:
        open_licence(damaged, load_anchors().keyring)
    assert caught.value.code is Code.ENVELOPE_MALFORMED
    assert "copy the file again" in caught.value.hint
    assert not [word for word in FOREIGN if word in str(caught.value)], str(caught.value)
