"""A site profile for the tiny bundle."""

from dataclasses import replace
from typing import Any

import numpy as np

from model_store.adapters import Adapter, CacheAdapter, LinearAdapter
from model_store.bundle import Bundle
from model_store.profile import BundleRef, Labels, SitePoint, SiteProfile, SiteTask
from model_store.scoring import FrameMap, unit_rows

POINTS = ("balanced", "sensitivity_first", "specificity_first")
LINEAR = LinearAdapter((2.0, -1.0, 0.5, 0.0), 0.25)
CACHE = CacheAdapter(
    tuple(tuple(row) for row in unit_rows(np.random.default_rng(3).normal(size=(5, 4))).tolist()),
    (True, False, True, False, False),
    alpha=3.0,
    beta=4.0,
)


def tiny_profile(bundle_of: Bundle, adapter: Adapter | None = None, **changes: Any) -> SiteProfile:
    """Polyp detection alone, at threshold 0.3; `changes` are of the profile's fields."""
    points = {
        name: SitePoint(0.3, (0.25, 0.35) if name == "balanced" else None, {}) for name in POINTS
    }
    task = SiteTask(
        Labels(40, 50, 30, 2),
        FrameMap(0.6, -1.5),
        points,
        adapter if isinstance(adapter, LinearAdapter) else None,
        adapter if isinstance(adapter, CacheAdapter) else None,
        {"folds": 5},
    )
    made = SiteProfile(
        "site-1",
        "2025-01-01T00:00:00Z",
        BundleRef("tiny", "1.0.0", bundle_of.digest),
        "sha256:0",
        {"commit": "unknown"},
        {"polyp_detection": task},
    )
    return replace(made, **changes)
