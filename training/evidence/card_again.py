"""Measure a packed bundle's card anew and compare: its tables from the bundle and the data alone.

    python -m training card --bundle B --data D

The archive is composed again with the bundle's seed unless one is given. Its digest is held
against the one that the bundle names, and every figure against the one in the manifest.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model_store.bundle import Bundle
from model_store.encoder import Encoder
from training.archives import archive_of_run
from training.card import model_card
from training.example_check import check_examples
from training.figures import part_figures
from training.runs import archive_digest

__all__ = ["CardAgain", "card_again", "differences"]

TOLERANCE = 1e-3
"""Figures are printed to three digits; runtimes of other machines differ by less."""
NOT_FIGURES = frozenset({"measured", "part"})


@dataclass(frozen=True)
class CardAgain:
    """A card that was measured anew.

    Attributes:
        text: The card, with the new figures.
        figures: The new figures.
        same_archive: The archive is byte for byte the one that the bundle was made from.
        changed: Figures that differ from the manifest's, by place: (was, is); None where one of
            the two has none. Of another part than the manifest's nothing is compared.
    """

    text: str
    figures: dict[str, Any]
    same_archive: bool
    changed: dict[str, tuple[float | None, float | None]]


def card_again(
    bundle: Path, data: Path, archive: Path | None, part: str | None, work: Path
) -> CardAgain:
    """Measure a bundle's figures again and write its card.

    Args:
        bundle: Bundle folder.
        data: Folder of real frames with an index.
        archive: The bundle's archive; None composes it in ``work``.
        part: Of the split; None is the part that the bundle's card is of.
        work: Folder for the archive.

    Raises:
        ArchiveRefused: ``data`` holds no index.csv.
    """
    opened = Bundle.open(bundle)
    manifest = opened.manifest
    extra = manifest.provenance.extra
    if archive is None:
        archive = archive_of_run(data, work, int(float(extra.get("seed", 1))))
    was = dict(manifest.metrics)
    part = part or str(was.get("part", "select"))
    encoder = Encoder(opened)
    figures = part_figures(encoder, archive, data, part)
    if extra.get("archive") == "composed":
        figures["examples"] = check_examples(encoder)
    sets = list(opened.label_sets.values())
    text = model_card(
        dataclasses.replace(manifest, metrics=figures), sets, dict(opened.calibrations)
    )
    return CardAgain(
        text,
        figures,
        archive_digest(archive) == extra.get("archive_digest"),
        differences(was, figures) if was.get("part") == part else {},
    )


def differences(
    was: Mapping[str, Any], now: Mapping[str, Any], tolerance: float = TOLERANCE
) -> dict[str, tuple[float | None, float | None]]:
    """Numbers that differ by more than a tolerance, or stand on one side only, by place."""
    before, after = dict(_numbers(was)), dict(_numbers(now))
    changed = {}
    for place in [*before, *(p for p in after if p not in before)]:
        pair = before.get(place), after.get(place)
        if pair[0] is None or pair[1] is None:
            if pair[0] is not pair[1]:
                changed[place] = pair
        elif abs(pair[0] - pair[1]) > tolerance:
            changed[place] = pair
    return changed


def _numbers(value: Any, place: str = "") -> Iterator[tuple[str, float]]:
    if isinstance(value, Mapping):
        for key, one in value.items():
            if key not in NOT_FIGURES:
                yield from _numbers(one, f"{place}/{key}")
    elif isinstance(value, list | tuple):
        for i, one in enumerate(value):
            yield from _numbers(one, f"{place}/{i}")
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield place, float(value)
