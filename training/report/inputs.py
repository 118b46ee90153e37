"""What a report is made from: a run's folder, its archive, its bundle, experiments beside it.

Everything is read when it is first asked for, once. What is not there is None or empty; whether
that is worth a word on the page is the asking section's business.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from rich.progress import Progress

from model_store.bundle import Bundle
from model_store.encoder import Encoder
from training.cleansing import Fate, read_ledger
from training.config import AttributesConfig, Recipe, digest, load
from training.errors import StaleInput
from training.figures import part_figures
from training.items import Embedded, Item
from training.patients import read_views
from training.protocol import archive_items, data_items
from training.reading import Exam, read_exams
from training.records import Archive, read, read_truth
from training.report.cache import Cache
from training.report.experiments import Experiments, read_experiments
from training.runs import archive_digest, file_digest, stamp_of

__all__ = ["CONFIGS", "STAGES", "Inputs", "short"]

STAGES = ("0-archive", "1-cleansing", "2-attunement", "3-unification")
CONFIGS = Path(__file__).parents[1] / "configs"
_TABLES = {
    "1-cleansing": "cleansing",
    "2-attunement": "attunement",
    "3-unification": "unification",
}


@dataclass(eq=False)
class Inputs:
    """A run and what lies beside it.

    Attributes:
        run: Folder of the run.
        given_archive: The archive, where it is not ``<run>/0-archive``.
        data: Folder of real frames with an index, or None.
        part: Part of the split that figures are of.
        experiments_folder: Folder of experiments' JSON files.
        config: The recipe's file, where it is none of ``training/configs``.
        progress: Where encoding shows how far it is; None shows nothing.
    """

    run: Path
    given_archive: Path | None
    data: Path | None
    part: str
    experiments_folder: Path
    config: Path | None = None
    progress: Progress | None = None

    def check(self) -> None:
        """See that the run is one, and the archive its own.

        Raises:
            StaleInput: It is not.
            ConfigError: The given recipe cannot be used.
        """
        # A bundle alone does not make a run: any folder may hold one.
        if not self.stamps:
            raise StaleInput(
                f"{self.run}: expected the folder of a run, which holds finished stages "
                f"({', '.join(STAGES)}, each with its stamp.json), found none"
            )
        if self.config:
            load(self.config)
        known = {record.record_id for record in self.archive.records} if self.archive else set()
        if known and self.ledger and not known & self.ledger.keys():
            raise StaleInput(
                "the archive is not the run's: it holds none of the records in cleansing's ledger; "
                "name the right one with --archive"
            )

    @cached_property
    def archive_change(self) -> str:
        """How the archive's digest differs from the one in the stamps; "" where it does not."""
        told = [s["key"]["archive"] for s in self.stamps.values() if "archive" in s["key"]]
        found = self.archive_digest
        if not told or not found or found == told[0]:
            return ""
        return (
            f"The stages were made from an archive with the digest {short(told[0])}; the one shown "
            f"has {short(found)}. Frames, reports or labels were changed since, or an "
            "earlier version of the code made the stamps."
        )

    @cached_property
    def stamps(self) -> dict[str, dict[str, Any]]:
        """Stamps of the finished stages."""
        names = [n for n in STAGES if (self.run / n / "stamp.json").is_file()]
        try:
            return {name: stamp_of(self.run / name) for name in names}
        except ValueError as error:
            raise StaleInput(f"a stamp.json of the run cannot be read: {error}") from error

    @cached_property
    def archive_path(self) -> Path | None:
        """The archive's folder."""
        found = self.given_archive or self.run / "0-archive"
        if (found / "archive.json").is_file():
            return found.resolve()
        if self.given_archive:
            raise StaleInput(f"{found}: expected an archive, found no archive.json")
        return None

    @cached_property
    def archive_digest(self) -> str:
        """Digest of the archive; "" without one."""
        return archive_digest(self.archive_path) if self.archive_path else ""

    @cached_property
    def archive(self) -> Archive | None:
        """The archive, read; bad lines are left out as training leaves them out."""
        return read(self.archive_path) if self.archive_path else None

    @cached_property
    def truth(self) -> dict[str, dict[str, Any]]:
        """The composer's truth by record id; empty where the archive has none."""
        path = self.archive_path
        return read_truth(path) if path and (path / "truth.jsonl").is_file() else {}

    @cached_property
    def exams(self) -> list[Exam]:
        """Records as training read them."""
        if self.archive is None or self.archive_path is None:
            return []
        rules = AttributesConfig(source="rules", corrupted=0.0, dropped=0.0)
        config = self.recipe.attributes if self.recipe else rules
        return read_exams(self.archive.records, config, self.archive_path, self.archive.composed)

    @cached_property
    def views(self) -> dict[str, dict[str, Any]]:
        """Views of a composed archive by name; empty for another."""
        path = self.archive_path
        if path is None or not (path / "views" / "views.jsonl").is_file():
            return {}
        return {row["view"]: row for row in read_views(path)}

    @cached_property
    def ledger(self) -> dict[str, list[Fate]]:
        """Cleansing's ledger by record; empty where cleansing is off or not done."""
        path = self.run / "1-cleansing" / "ledger.jsonl"
        if not path.is_file():
            return {}
        try:
            return read_ledger(path)
        except (ValueError, TypeError) as error:
            raise StaleInput(f"1-cleansing/ledger.jsonl cannot be read: {error}") from error

    @cached_property
    def recipe(self) -> Recipe | None:
        """The given recipe, or the one in ``training/configs`` that every stage was made by.

        Stamps hold digests, not values: a run with ``--set`` matches no file.
        """
        if self.config:
            return load(self.config)
        found = (load(path) for path in sorted(CONFIGS.glob("*.toml")))
        return next((recipe for recipe in found if self.made_by(recipe)), None)

    def made_by(self, recipe: Recipe) -> bool:
        """Whether the digests in the stamps are those of a recipe."""
        stamps = [(_TABLES[n], s["key"]) for n, s in self.stamps.items() if n in _TABLES]
        return bool(stamps) and all(
            key["config"] == digest(getattr(recipe, table)) and key["seed"] == recipe.seed
            for table, key in stamps
        )

    @property
    def recipe_name(self) -> str:
        """The recipe for commands: the given file, or a name by digest or by the bundle's word."""
        if self.config:
            return str(self.config)
        if self.recipe:
            return self.recipe.name
        named = self.bundle.manifest.provenance.extra.get("recipe", "") if self.bundle else ""
        return str(named) or "RECIPE"

    @cached_property
    def bundle_path(self) -> Path | None:
        """The packed bundle in the run's folder."""
        found = sorted(p.parent for p in self.run.glob("*/manifest.json"))
        return found[0] if found else None

    @cached_property
    def bundle(self) -> Bundle | None:
        """The packed bundle, opened."""
        return Bundle.open(self.bundle_path) if self.bundle_path else None

    @cached_property
    def encoder(self) -> Encoder | None:
        """The packed bundle, ready to encode."""
        return Encoder(self.bundle) if self.bundle else None

    @cached_property
    def cache(self) -> Cache:
        """Embeddings kept from one report to the next."""
        return Cache(self.run / "report-cache")

    @cached_property
    def found(self) -> Embedded:
        """The part's single frames through the bundle's own path.

        Raises:
            StaleInput: There is no bundle, or no archive.
        """
        _, archive = self.needed()
        items = archive_items(archive, self.part)
        if self.data is None:
            return self.encoded(items)
        items += data_items(self.data, archive, self.part)
        return self.encoded(items, file_digest(self.data / "index.csv"))

    def encoded(self, items: Sequence[Item], *digests: str) -> Embedded:
        """Frames through the bundle's own path, or as they were kept.

        Args:
            items: Of the archive, and of what the digests stand for.
            digests: Of further data.

        Raises:
            StaleInput: There is no bundle, or no archive.
        """
        encoder, _ = self.needed()
        return self.cache.frames(encoder, items, [self.archive_digest, *digests], self.progress)

    @cached_property
    def figures(self) -> dict[str, Any]:
        """The part's figures, by the functions that packing and ``evaluate`` use."""
        encoder, archive = self.needed()
        return part_figures(encoder, archive, self.data, self.part, self.found)

    @cached_property
    def experiments(self) -> Experiments:
        """Experiments that lie in the folder."""
        return read_experiments(self.experiments_folder)

    def needed(self) -> tuple[Encoder, Path]:
        """Bundle and archive.

        Raises:
            StaleInput: One of them is not there.
        """
        if self.encoder is None:
            raise StaleInput("the run has no packed bundle yet")
        if self.archive_path is None:
            raise StaleInput("the run's archive is not in its folder; name it with --archive")
        return self.encoder, self.archive_path

    def run_command(self) -> str:
        """What makes or finishes the run."""
        command = f"python -m training run --config {self.recipe_name} --out {self.run}"
        if self.given_archive:
            return f"{command} --archive {self.given_archive}"
        return command + (f" --data {self.data}" if self.data else "")

    def report_command(self, **options: object) -> str:
        """What makes this page, with other options."""
        told: dict[str, object] = {"archive": self.given_archive, "data": self.data}
        told |= {"config": self.config, **options}
        words = " ".join(f"--{name} {value}" for name, value in told.items() if value)
        return f"python -m training report {self.run} {words}".strip()

    def source(self, *files: str, stage: str = "", items: str = "", interval: str = "") -> str:
        """What a finding was made from, as one line.

        Args:
            files: Paths within the run.
            stage: Its stamp gives commit and recipe digest; "" takes the bundle's provenance.
            items: What was counted.
            interval: What the intervals are.
        """
        parts = [", ".join(files)]
        if stage in self.stamps:
            stamp = self.stamps[stage]
            parts += [f"commit {short(stamp['commit'])}", f"by {stage}"]
            if "config" in stamp["key"]:
                parts[-1] = f"recipe {short(stamp['key']['config'])} ({_TABLES[stage]})"
        elif self.bundle:
            provenance = self.bundle.manifest.provenance
            parts += [f"bundle {short(self.bundle.digest)}", f"commit {short(provenance.commit)}"]
            parts.append(f"recipe {short(provenance.config_digest)}")
        return " · ".join(part for part in [*parts, items, interval] if part)


def short(digest_or_commit: str) -> str:
    """The first twelve digits, and ``+dirty`` where the checkout was."""
    plain = digest_or_commit.removeprefix("sha256:")
    return plain[:12] + ("+dirty" if plain.endswith("+dirty") else "")
