"""Drawn frames show what was asked for, and phantom archives are sound."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from model_store.images import InputContract, decode
from training.attributes import extract, polyp_mentioned
from training.errors import ArchiveRefused
from training.measure import lab
from training.phantom import compose_phantom, draw_frame, random_lesion, random_spec
from training.phantom_render import COLOURS, RADII, TEXTURES, PhantomLesion, PhantomSpec
from training.records import PARTS, read, read_truth
from training.spoil import SPOILS, spoil

PLAIN = PhantomSpec(lumen=None, folds=0, vessels=0.2)


def _pixels(lesion: PhantomLesion | None, seed: int = 3, spec: PhantomSpec = PLAIN) -> np.ndarray:
    lesions = () if lesion is None else (lesion,)
    image = draw_frame(replace(spec, lesions=lesions), np.random.default_rng(seed))
    return np.asarray(image)


def _difference(lesion: PhantomLesion) -> np.ndarray:
    """Mean CIELAB of the lesion's centre minus that of the rest, averaged over scenes."""
    found = []
    for seed in range(4):
        image = lab(_pixels(lesion, seed))
        y, x = np.mgrid[0:256, 0:256] / 256
        reach = np.hypot(x - lesion.x, y - lesion.y)
        inner, ring = reach < 0.45 * lesion.radius(), (reach > 0.36) & (reach < 0.46)
        found.append(image[inner].mean(0) - image[ring].mean(0))
    return np.mean(found, axis=0)


def test_the_same_seed_draws_the_same_pixels_and_another_seed_does_not() -> None:
    lesion = PhantomLesion()
    assert np.array_equal(_pixels(lesion, 1), _pixels(lesion, 1))
    assert not np.array_equal(_pixels(lesion, 1), _pixels(lesion, 2))


@pytest.mark.parametrize("size", [(640, 512), (256, 256), (200, 320)])
def test_a_frame_has_the_size_asked_for(size: tuple[int, int]) -> None:
    image = draw_frame(random_spec(np.random.default_rng(0)), np.random.default_rng(0), size)
    assert image.size == size
    assert image.mode == "RGB"


def test_colours_are_what_their_names_say() -> None:
    shown = {c: _difference(PhantomLesion(colour=c, neoplastic=False)) for c in COLOURS}
    assert shown["pale"][0] > shown["isochromatic"][0] > shown["dark-red"][0]
    assert shown["red"][1] > shown["isochromatic"][1] + 3
    assert shown["dark-red"][1] > shown["isochromatic"][1] + 3
    assert shown["pale"][1] < shown["isochromatic"][1]


def test_rough_textures_have_more_local_variance_than_smooth_ones() -> None:
    def variance(texture: str) -> float:
        found = []
        for seed in range(4):
            grey = _pixels(
                PhantomLesion(texture=texture, size_band=">=30", neoplastic=False), seed
            ).mean(axis=2)
            centre = grey[96:160, 96:160]
            found.append(np.diff(centre, axis=0).std() + np.diff(centre, axis=1).std())
        return float(np.mean(found))

    smooth = variance("smooth")
    assert all(variance(texture) > 1.1 * smooth for texture in TEXTURES if texture != "smooth")


def test_larger_bands_change_more_pixels() -> None:
    changed = []
    for band in RADII:
        pixels = _pixels(PhantomLesion(size_band=band, colour="dark-red"), 5).astype(float)
        # The share of green tells the tint whatever the light.
        green = pixels[..., 1] / (pixels[..., 0] + 1.0)
        changed.append(float((green < 0.8 * green[:40, :40].mean()).mean()))
    assert changed == sorted(changed)
    assert changed[-1] > 5 * changed[0] > 0


@pytest.mark.parametrize("band", ["<=5", "6-9"])
@pytest.mark.parametrize("flat", [True, False])
def test_small_and_flat_lesions_can_be_told_from_mucosa(band: str, flat: bool) -> None:
    rng = np.random.default_rng(11)
    for seed in range(6):
        lesion = replace(random_lesion(rng), size_band=band, flat=flat, x=0.5, y=0.5, pedicle=False)
        if lesion.colour == "isochromatic":
            lesion = replace(lesion, colour="red")
        lesion = replace(lesion, margin="well-defined")
        image = lab(_pixels(lesion, seed))
        y, x = np.mgrid[0:256, 0:256] / 256
        reach = np.hypot(x - 0.5, y - 0.5)
        inner = image[reach < 0.3 * RADII[band][0]].mean(0)
        ring = image[(reach > 0.2) & (reach < 0.3)]
        assert np.linalg.norm(inner - ring.mean(0)) > 4.0


def test_random_lesions_never_hide_altogether() -> None:
    rng = np.random.default_rng(2)
    for _ in range(300):
        lesion = random_lesion(rng)
        assert not (
            lesion.colour == "isochromatic" and (lesion.flat or lesion.margin == "indistinct")
        )


def test_neoplastic_lesions_tend_to_be_redder_but_every_colour_occurs_in_both() -> None:
    rng = np.random.default_rng(4)
    red = {}
    for kind in (True, False):
        colours = [random_lesion(rng, neoplastic=kind).colour for _ in range(400)]
        assert set(colours) == set(COLOURS)
        red[kind] = np.mean([c in ("red", "dark-red") for c in colours])
    assert red[True] > red[False] + 0.3


@pytest.mark.parametrize("kind", sorted(SPOILS))
def test_spoiled_frames_keep_their_size_and_lose_their_picture(kind: str) -> None:
    rng = np.random.default_rng(6)
    image = draw_frame(random_spec(rng, (random_lesion(rng),)), rng)
    bad = spoil(image, kind, rng)
    assert bad.size == image.size
    before, after = np.asarray(image, dtype=float), np.asarray(bad, dtype=float)
    assert np.abs(before - after).mean() > 4.0


def test_a_phantom_archive_reads_back_whole_with_reports_that_fit_its_truth(
    tmp_path: Path,
) -> None:
    digest = compose_phantom(tmp_path / "a", 16, 1)
    archive = read(tmp_path / "a", strict=True)
    truth = read_truth(tmp_path / "a")
    assert archive.kind == "phantom"
    assert archive.digest == digest
    assert {record.part for record in archive.records} == set(PARTS)
    for record in archive.records:
        known = truth[record.record_id]
        assert len(record.frames) == len(known["frames"])
        assert polyp_mentioned(record.report) is bool(known["lesions"])
        findings = extract(record.report, size_words=True)
        assert len(findings) == len(known["lesions"])
        for finding, lesion in zip(findings, known["lesions"], strict=True):
            told = {k: v.value for k, v in (finding.attributes | finding.context).items()}
            assert told == lesion["told"]
        assert all(decode(f.read_bytes(), _contract()).shape[2] == 3 for f in record.frames[:1])
    views = [
        json.loads(line)
        for line in (tmp_path / "a" / "views" / "views.jsonl").read_text().splitlines()
    ]
    assert {view["kind"] for view in views} == {"lesion", "background"}
    assert all((tmp_path / "a" / view["file"]).is_file() for view in views)


def test_the_same_seed_composes_the_same_archive(tmp_path: Path) -> None:
    for name in "ab":
        compose_phantom(tmp_path / name, 3, 9)
    files = sorted(p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*.*"))
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_an_archive_is_never_written_over_another(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "mine.txt").write_text("keep")
    with pytest.raises(ArchiveRefused, match="empty folder"):
        compose_phantom(tmp_path / "a", 2, 0)


def test_frames_are_stored_as_squares(tmp_path: Path) -> None:
    compose_phantom(tmp_path / "a", 1, 0)
    frame = next((tmp_path / "a" / "frames").rglob("*.jpg"))
    with Image.open(frame) as image:
        assert image.size == (256, 256)


def _contract() -> InputContract:
    return InputContract(
        size=224,
        resize="squash",
        interpolation="bicubic",
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        jpeg="full",
    )
