"""What patients are scored with once their frames are encoded.

An engine is one, and so is a bundle without its towers (`service.exams.bundles`).
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

from model_store.bundle import Bundle
from model_store.encoder import Floats, Unifier
from model_store.label_sets import LabelSet
from model_store.patient import PatientScore
from model_store.profile import SiteProfile
from model_store.scoring import Calibration

__all__ = ["Scorer"]


class Scorer(Protocol):
    """One bundle, and how it scores."""

    @property
    def bundle(self) -> Bundle:
        """Whose embeddings they are."""

    @property
    def calibrations(self) -> Mapping[str, Calibration]:
        """By task; the site's, where it has a profile."""

    @property
    def encoder(self) -> Unifier:
        """Gives the class embeddings of the bundle's own label sets."""

    @property
    def site_profile(self) -> SiteProfile | None:
        """In force, if any is."""

    @property
    def provider(self) -> str:
        """Execution provider."""

    def score(
        self,
        label_set: LabelSet,
        classes: Floats,
        embeddings: Sequence[Floats],
        *,
        calibrated: bool,
    ) -> PatientScore:
        """Score one patient."""
