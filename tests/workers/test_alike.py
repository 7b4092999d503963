from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from schemas.batch import Item, Manifest, Stamp
from schemas.ids import new_batch_id
from schemas.options import CutoutOptions
from workers.alike import Measure, Setting, alike, fits, measured, setting_for
from workers.scores import CUT_BY_FRAME

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


@given(st.lists(st.integers(0, 4), max_size=40))
def test_every_item_finds_the_setting_of_its_folder_again(folder_of):
    """Items 1, 2, … lie in these folders; folder 0 is not to be consistent, folder 1 came to no setting."""
    settings = {folder: Setting(width=folder, height=folder, subject=0.3) for folder in (2, 3, 4)}
    numbers = {folder: [n for n, at in enumerate(folder_of, start=1) if at == folder] for folder in (1, 2, 3, 4)}
    kept = alike((numbers[folder], settings.get(folder)) for folder in (1, 2, 3, 4))
    again = type(kept).model_validate_json(kept.model_dump_json())
    assert [again.of(n) for n in range(1, len(folder_of) + 1)] == [settings.get(folder) for folder in folder_of]
    assert again.of(0) is again.of(len(folder_of) + 1) is None


def test_a_catalog_of_a_million_photos_in_folders_is_kept_in_a_few_numbers_each_folder():
    setting = Setting(width=1, height=1, subject=0.3)
    kept = alike((range(first, first + 1000), setting) for first in range(1, 1_000_001, 1000))
    assert len(kept.starts) == 1001


def test_a_manifest_tells_whether_any_photo_is_to_be_consistent_without_reading_them_one_by_one():
    stamp = Stamp(
        batch_id=new_batch_id(NOW, bytes),
        received_at=NOW,
        purge_at=NOW + timedelta(hours=23),
        industry=None,
        grant_id=None,
        options=CutoutOptions(),
    )
    named_so = Item(number=1, path='"consistent":true,/1.jpg', size=1)
    as_said = Item(number=2, path="2.jpg", size=1, options=CutoutOptions(consistent=True))

    def wants(*items: Item, **options: bool) -> list[bool]:
        made = Manifest(stamp=stamp.model_copy(update={"options": CutoutOptions(**options)}), items=items)
        return [made.wants_consistency, Manifest.from_json(made.model_dump_json().encode()).wants_consistency]

    assert wants(named_so) == [False, False]
    assert wants(named_so, as_said) == [True, True]
    assert wants(named_so, consistent=True) == [True, True]


@st.composite
def measures(draw: st.DrawFn) -> Measure:
    """A photo of up to 50 megapixels, however long and narrow, and the box of a subject in it."""
    width = draw(st.integers(1, 50_000_000))
    height = draw(st.integers(1, 50_000_000 // width))
    across, down = draw(st.integers(1, width)), draw(st.integers(1, height))
    left, top = draw(st.integers(0, width - across)), draw(st.integers(0, height - down))
    return Measure(width=width, height=height, left=left, top=top, across=across, down=down, on_frame=0.0)


@given(st.lists(measures(), min_size=1, max_size=5))
@example([Measure(width=10_000, height=4, left=1, top=1, across=1, down=1, on_frame=0.0)])
@example([Measure(width=3, height=10_000, left=1, top=1, across=1, down=1, on_frame=0.0)])
@example([Measure(width=w, height=9, left=1, top=1, across=4, down=4, on_frame=0.0) for w in (12, 9)])
def test_photos_of_any_proportions_come_to_a_setting_in_whatever_order(folder: list[Measure]) -> None:
    setting = setting_for(folder)
    assert setting_for(folder[::-1]) == setting
    assert setting is not None
    assert min(setting.width, setting.height) >= 1
    assert 0 < setting.subject <= 0.38


def photo(down: int, across: int = 10, width: int = 1200, height: int = 800, on_frame: float = 0.0) -> Measure:
    return Measure(width=width, height=height, left=0, top=0, across=across, down=down, on_frame=on_frame)


def test_whole_subjects_that_are_not_tiny_and_the_shape_of_most_photos_decide_on_a_folder() -> None:
    usual, cut_by_the_frame = [photo(400)] * 3, photo(50, on_frame=CUT_BY_FRAME + 0.01)
    setting = setting_for(usual)
    assert setting == Setting(width=round(1.5 * 400 / 0.38), height=round(400 / 0.38), subject=0.38)
    no_matter = [*[photo(0, across=0)] * 4, cut_by_the_frame, photo(99), photo(400, width=800)]
    assert setting_for([*usual, *no_matter]) == setting
    assert setting_for([photo(400, on_frame=CUT_BY_FRAME)]) == setting
    small = setting_for([*usual, photo(100)])
    assert small is not None
    assert small.height == round(100 / 0.38), "a quarter as high as the others is not tiny yet"


def test_of_proportions_that_are_equally_frequent_those_decide_in_which_the_subjects_are_largest() -> None:
    tall, wide = {"width": 900, "height": 1200}, {"width": 1200, "height": 900}
    cars = setting_for([photo(200, across=800, **tall), photo(300, across=1000, **wide)])
    bottles = setting_for([photo(500, across=100, **tall), photo(500, across=100, **wide)])
    assert cars is not None
    assert bottles is not None
    assert cars.width > cars.height
    assert (bottles.width < bottles.height, bottles.subject) == (True, 0.38)


def test_a_photo_can_be_set_as_its_folder_unless_it_had_to_be_scaled_up_or_is_cut_off_or_too_wide() -> None:
    setting = Setting(width=1000, height=1000, subject=0.4)
    fit = [photo(389), photo(900), photo(400, across=969), photo(800, across=1939), photo(400, on_frame=CUT_BY_FRAME)]
    unfit = [photo(387), photo(0, across=0), photo(400, on_frame=CUT_BY_FRAME + 0.01), photo(400, across=971)]
    assert [fits(each, setting) for each in fit] == [True] * len(fit)
    assert [fits(each, setting) for each in unfit] == [False] * len(unfit)


def test_what_is_hardly_seen_is_not_measured_as_part_of_the_subject() -> None:
    alpha = np.full((100, 200), 11, np.uint8)
    alpha[20:50, 40:160] = 12
    found = measured(alpha)
    assert (found.left, found.top, found.across, found.down) == (40, 20, 120, 30)
