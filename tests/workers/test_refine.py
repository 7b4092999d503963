from __future__ import annotations

import tracemalloc

import cv2
import numpy as np
import pytest

from workers.refine import refined

HEIGHT, WIDTH = 480, 640


def scene(thin: bool) -> tuple[np.ndarray, np.ndarray]:
    """A red subject before a blue wall, and its true alpha."""
    large = np.zeros((HEIGHT * 4, WIDTH * 4), np.uint8)
    cv2.rectangle(large, (600, 900), (2000, 1700), 255, -1)
    if thin:
        for x in range(700, 2000, 200):
            cv2.line(large, (x, 900), (x + 60, 300), 255, 10)
    alpha = cv2.resize(large, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
    share = alpha[:, :, None] / 255
    photo = np.array((190, 40, 30)) * share + np.array((40, 80, 190)) * (1 - share)
    noise = np.random.default_rng(1).normal(0, 3, (HEIGHT, WIDTH, 3))
    return np.clip(photo + noise, 0, 255).astype(np.uint8), alpha


def coarse(alpha: np.ndarray) -> np.ndarray:
    small = cv2.GaussianBlur(cv2.resize(alpha, (160, 120), interpolation=cv2.INTER_AREA), (0, 0), 0.8)
    return cv2.resize(small, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)


def error(alpha: np.ndarray, truth: np.ndarray) -> float:
    return float(np.abs(alpha.astype(float) - truth).mean())


@pytest.mark.parametrize("thin", [False, True])
def test_the_edge_moves_to_where_it_is_in_the_photo(thin):
    photo, truth = scene(thin)
    guess = coarse(truth)
    assert error(refined(photo, guess), truth) < 0.5 * error(guess, truth)


def test_what_is_decided_stays():
    photo, truth = scene(thin=True)
    guess = coarse(truth)
    decided = (guess < 2) | (guess > 253)
    assert np.array_equal(refined(photo, guess)[decided], guess[decided])


def test_glass_stays_glass():
    photo, truth = scene(thin=False)
    glass = cv2.GaussianBlur((truth // 255 * 90).astype(np.uint8), (0, 0), 2)
    inner = cv2.erode((glass == 90).astype(np.uint8), np.ones((25, 25))).astype(bool)
    assert inner.any()
    assert np.abs(refined(photo, glass)[inner].astype(int) - 90).max() <= 6


def test_where_subject_and_wall_look_alike_the_mask_stays_as_it_is():
    _, truth = scene(thin=False)
    guess = coarse(truth)
    plain = np.full((HEIGHT, WIDTH, 3), 120, np.uint8)
    assert np.abs(refined(plain, guess).astype(int) - guess).max() <= 12


@pytest.mark.parametrize("around", [0, 255])
def test_a_mask_that_shows_no_sure_subject_or_no_sure_background_stays_as_it_is(around):
    photo, truth = scene(thin=False)
    soft = cv2.GaussianBlur(np.where(truth > 0, np.uint8(128), np.uint8(around)), (0, 0), 2)
    assert np.array_equal(refined(photo, soft), soft)


@pytest.mark.parametrize("value", [0, 255])
def test_a_mask_without_an_edge_comes_back(value):
    photo, _ = scene(thin=False)
    flat = np.full((HEIGHT, WIDTH), value, np.uint8)
    assert np.array_equal(refined(photo, flat), flat)


@pytest.mark.parametrize("shape", [(1, 1), (3, 400), (1200, 2)])
def test_any_size_is_taken(shape):
    mask = np.full(shape, 120, np.uint8)
    assert refined(np.zeros((*shape, 3), np.uint8), mask).shape == shape


@pytest.mark.parametrize("shape", [(1, 200_000), (200_000, 1)])
def test_a_line_of_pixels_takes_no_more_memory_than_another_photo_of_as_many(shape):
    along = np.arange(200_000) - 100_000
    photo = np.where(along[:, None] < 0, np.uint8((190, 40, 30)), np.uint8((40, 80, 190))).reshape(*shape, 3)
    mask = np.clip(along // 4 + 128, 0, 255).astype(np.uint8).reshape(shape)
    tracemalloc.start()
    try:
        made = refined(photo, mask)
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()
    assert made.shape == shape
    assert not np.array_equal(made, mask)
