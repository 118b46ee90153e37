"""A whole run: archive, three stages, packed bundle, report. Every step resumes.

Under torchrun rank 0 does all of it, and the others train along (``training.distributed``).

<out>/0-archive     ingested, composed or drawn; left out where an archive is given
<out>/1- to 3-      the stages (training.stages)
<out>/4-export      graphs and drafts
<out>/<bundle>      the packed bundle
<out>/report.html   what a person looks at (training.report)
"""

from __future__ import annotations

from pathlib import Path

from training.archives import archive_of_run, ingested_archive
from training.compute import open_machine
from training.config import Recipe
from training.errors import ConfigError
from training.ingest.config import located
from training.model import load_spec
from training.packing import make_bundle
from training.real_exams import check_known, is_ingested
from training.report.inputs import Inputs
from training.report.page import write_report
from training.stages import follow_stages, open_workshop, packed_from, run_stages
from training.start import open_start

__all__ = ["run"]


def run(
    recipe: Recipe,
    out: Path,
    *,
    path: Path | None = None,
    data: Path | None = None,
    archive: Path | None = None,
) -> Path | None:
    """Do what is not done yet.

    Args:
        recipe: The recipe. With an ``[ingest]`` table the archive is ingested from raw data.
        out: Folder of the run.
        path: The recipe's file, where it is none that ships; the paths of ``[ingest]`` start from
            its folder, and the report reads it.
        data: Folder of real frames with an index, of which exams are composed, or of the raw data
            that is ingested. None draws exams, or takes the recipe's raw data.
        archive: A ready archive instead.

    Returns:
        The packed bundle's folder; None on a rank that trained along.

    Raises:
        ConfigError: The bundle that the recipe starts from will not do.
        StaleInput: Something in ``out`` was made from other inputs.
        ArchiveRefused: The archive, or the data, cannot be used; labels are missing.
        ParityError: An exported graph is beyond tolerance; nothing is packed.
        Stopped: SIGTERM or Ctrl-C came; what is done is kept.
    """
    bundle = out / f"{recipe.bundle.name}-{recipe.bundle.version}"
    with open_machine(recipe.compute) as machine:
        if not machine.ranks.is_first:
            follow_stages(recipe, machine)
            return None
        # Ingestion may take hours; a start that will not do is said before.
        start = open_start(recipe.model, load_spec(recipe.model.config))
        if start is None and recipe.bundle.start_share:
            raise ConfigError("bundle.start_share: expected 0 where model.weights names no bundle")
        found = archive
        if found is None and recipe.ingest is not None:
            settings = located(recipe.ingest, (path or out).resolve().parent)
            found = ingested_archive(settings, data, out / "0-archive")
            data = None  # it has no index
        elif found is None:
            found = archive_of_run(data, out, recipe.seed)
        if is_ingested(found) and not bundle.exists():
            check_known(found)
        shop = open_workshop(recipe, found, machine)
        last = run_stages(shop, out)
    packed_from(bundle, recipe)
    page = out / "report.html"
    if not bundle.exists():
        page.unlink(missing_ok=True)
        make_bundle(shop, last / "weights.pt", out / "4-export", bundle, data)
    if not page.exists():
        write_report(Inputs(out, found, data, "select", out / "experiments", path), page)
    return bundle
