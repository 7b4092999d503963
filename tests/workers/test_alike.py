from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import example, given
from hypothesis import strategies as st

from schemas.batch import Item, Manifest, Stamp
from schemas.ids import new_batch_id
from schemas.options import CutoutOptions
from workers.alike import Measure, Setting, alike, setting_for

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
def test_photos_of_any_proportions_come_to_a_setting(folder: list[Measure]) -> None:
    setting = setting_for(folder)
    assert setting is not None
    assert min(setting.width, setting.height) >= 1
    assert 0 < setting.subject <= 0.38
