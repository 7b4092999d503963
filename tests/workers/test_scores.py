from __future__ import annotations

import cv2
import numpy as np
import pytest

from schemas.results import Scores
from workers.scores import CUT_BY_FRAME, cut_off, flags, in_gray
from workers.scores import score as score_of

RNG = np.random.default_rng(3)
TEXTURE = RNG.integers(0, 255, (320, 320, 3), dtype=np.uint8)
PLAIN = np.full((320, 320, 3), 128, np.uint8)


def score(mask: np.ndarray, photo: np.ndarray) -> Scores:
    return score_of(mask, in_gray(photo))


def flags_of(mask: np.ndarray, photo: np.ndarray) -> tuple[str, ...]:
    return flags(score(mask, photo), cut_off(mask))


def mask_of(*boxes: tuple[int, int, int, int]) -> np.ndarray:
    mask = np.zeros((320, 320), np.uint8)
    for top, bottom, left, right in boxes:
        mask[top:bottom, left:right] = 255
    return mask


WHOLE = mask_of((80, 240, 80, 240))


def test_a_plain_subject_in_the_middle_has_no_flag():
    assert flags_of(WHOLE, TEXTURE) == ()


def test_scores_are_measured_and_stay_between_0_and_1():
    scores = score(WHOLE, TEXTURE)
    assert scores.coverage == pytest.approx(0.25)
    assert scores.edge_uncertainty == 0
    assert scores.pieces == 1
    assert scores.cut_by_frame == 0
    assert scores.exposure == pytest.approx(0.5, abs=0.02)
    assert 0.5 < scores.sharpness < 1


@pytest.mark.parametrize(
    ("mask", "photo", "flag"),
    [
        (mask_of(), TEXTURE, "empty_mask"),
        (np.full((320, 320), 255, np.uint8), TEXTURE, "full_mask"),
        (mask_of((100, 320, 100, 220)), TEXTURE, "cut_by_frame"),
        (mask_of(*((20, 60, left, left + 30) for left in range(10, 300, 60))), TEXTURE, "many_pieces"),
        (cv2.GaussianBlur(mask_of((155, 165, 20, 300)), (0, 0), 8) * 2, TEXTURE, "uncertain_edge"),
        (WHOLE, cv2.GaussianBlur(TEXTURE, (0, 0), 12), "blurred"),
        (WHOLE, TEXTURE // 12, "dark"),
        (WHOLE, 255 - TEXTURE // 32, "overexposed"),
    ],
)
def test_what_a_person_should_look_at_has_its_flag(mask, photo, flag):
    assert flag in flags_of(mask, photo)


@pytest.mark.parametrize(
    ("score", "flagged", "fine", "flag"),
    [
        ("coverage", 0.0019, 0.002, "empty_mask"),
        ("coverage", 0.971, 0.97, "full_mask"),
        ("pieces", 5, 4, "many_pieces"),
        ("edge_uncertainty", 0.26, 0.25, "uncertain_edge"),
        ("sharpness", 0.049, 0.05, "blurred"),
        ("exposure", 0.059, 0.06, "dark"),
        ("exposure", 0.961, 0.96, "overexposed"),
    ],
)
def test_a_flag_begins_where_it_always_did(score, flagged, fine, flag):
    usual = Scores(coverage=0.25, edge_uncertainty=0.1, pieces=1, cut_by_frame=0, sharpness=0.6, exposure=0.5)
    assert flags(usual.model_copy(update={score: flagged}), cut_off=0) == (flag,)
    assert flags(usual.model_copy(update={score: fine}), cut_off=0.2) == ()


CAR = cv2.ellipse(mask_of(), (160, 160), (130, 50), 0, 0, 360, 255, -1)
BOTTLE = mask_of((60, 300, 150, 170))


@pytest.mark.parametrize(("mask", "length"), [(CAR, 260), (BOTTLE.T, 240)], ids=["a car", "a bottle"])
@pytest.mark.parametrize("turns", range(4))
def test_a_subject_of_which_a_twentieth_is_beyond_the_photo_is_cut_on_whatever_side(mask, length, turns):
    left, *_ = cv2.boundingRect(mask)
    without = np.rot90(mask[:, left + length // 20 :], turns)
    assert flags_of(without, TEXTURE) == ("cut_by_frame",)


@pytest.mark.parametrize("turns", range(4))
def test_a_round_subject_that_just_reaches_the_side_of_the_photo_is_whole(turns):
    left, *_ = cv2.boundingRect(CAR)
    reaching = np.rot90(CAR[:, left:], turns)
    assert 0 < cut_off(reaching) < CUT_BY_FRAME
    assert cut_off(CAR) == cut_off(mask_of()) == 0


def test_specks_are_no_pieces():
    specks = [(10, 12, left, left + 2) for left in range(10, 300, 20)]
    assert score(mask_of((80, 240, 80, 240), *specks), TEXTURE).pieces == 1


def test_a_sharp_background_does_not_make_a_blurred_subject_sharp():
    photo = TEXTURE.copy()
    photo[70:250, 70:250] = PLAIN[70:250, 70:250]
    assert "blurred" in flags_of(WHOLE, photo)


@pytest.mark.parametrize("size", [(320, 320), (200, 1000), (1280, 100), (960, 1280), (40, 40)])
def test_the_step_to_the_background_does_not_make_a_plain_subject_sharp(size):
    photo = np.where(cv2.resize(WHOLE, size[::-1], interpolation=cv2.INTER_NEAREST) > 0, 20, 230).astype(np.uint8)
    assert score_of(WHOLE, photo).sharpness < 0.01


def test_an_empty_mask_is_called_nothing_else():
    assert flags_of(mask_of(), np.zeros_like(TEXTURE)) == ("empty_mask",)


def test_mask_and_photo_may_have_different_sizes():
    assert score(WHOLE, cv2.resize(TEXTURE, (500, 700))).coverage == pytest.approx(0.25)
