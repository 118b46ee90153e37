"""A whole run: archive, three stages, packed bundle. Every step resumes.

Under torchrun rank 0 does all of it, and the others train along (``training.distributed``).

<out>/0-archive     composed, drawn, or left out where an archive is given
<out>/1- to 3-      the stages (training.stages)
<out>/4-export      graphs and drafts
<out>/<bundle>      the packed bundle
"""

from __future__ import annotations

from pathlib import Path

from training.archives import archive_of_run
from training.compute import open_machine
from training.config import Recipe
from training.packing import make_bundle
from training.stages import follow_stages, open_workshop, packed_from, run_stages

__all__ = ["run"]


def run(
    recipe: Recipe, out: Path, *, data: Path | None = None, archive: Path | None = None
) -> Path | None:
    """Do what is not done yet.

    Args:
        recipe: The recipe.
        out: Folder of the run.
        data: Folder of real frames with an index; exams are composed of them. None draws them.
        archive: A ready archive instead.

    Returns:
        The packed bundle's folder; None on a rank that trained along.

    Raises:
        StaleInput: Something in ``out`` was made from other inputs.
        ArchiveRefused: The archive, or the data, cannot be used.
        ParityError: An exported graph is beyond tolerance; nothing is packed.
        Stopped: SIGTERM or Ctrl-C came; what is done is kept.
    """
    with open_machine(recipe.compute) as machine:
        if not machine.ranks.is_first:
            follow_stages(recipe, machine)
            return None
        found = archive or archive_of_run(data, out, recipe.seed)
        shop = open_workshop(recipe, found, machine)
        last = run_stages(shop, out)
    bundle = out / f"{recipe.bundle.name}-{recipe.bundle.version}"
    packed_from(bundle, recipe)
    if not bundle.exists():
        make_bundle(shop, last / "weights.pt", out / "4-export", bundle, data)
    return bundle
