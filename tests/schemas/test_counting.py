"""One of a thing is one thing."""

from __future__ import annotations

import pytest

from schemas.counting import so_many


@pytest.mark.parametrize(
    ("count", "words", "told"),
    [
        (0, ("photo",), "0 photos"),
        (1, ("photo",), "1 photo"),
        (1_234_567, ("photo",), "1,234,567 photos"),
        (1, ("batch",), "1 batch"),
        (2, ("batch",), "2 batches"),
        (2, ("try", "tries"), "2 tries"),
        (1.0, ("hour",), "1 hour"),
        (1.5, ("hour",), "1.5 hours"),
    ],
)
def test_a_number_of_things_is_told_as_people_say_it(count: float, words: tuple[str, ...], told: str) -> None:
    assert so_many(count, *words) == told
