"""Laws x examples."""

from __future__ import annotations

import pytest

from tests.distributions.examples import EXAMPLES, Example
from tests.distributions.laws_of_form import LAWS


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda e: e.name.replace(" ", "-"))
@pytest.mark.parametrize("name", LAWS)
def test_law(name: str, example: Example) -> None:
    LAWS[name](example)
