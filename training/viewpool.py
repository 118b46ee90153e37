"""Make the pool of views that exams are composed from, and the weights that match its classes.

Each function that a worker process runs is a plain function of one image, so that two
processes share the work and the result does not depend on how many there are.
"""

import io
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from PIL import Image
from scipy import ndimage
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from training.measure import Measures, measure
from training.overlays import OVERLAYS
from training.scope import cloned, plan_patches, scope_view
from training.sources import SourceImage, crop_boxes, crop_window
from training.spoil import spoil
from training.views import (
    Window,
    background_windows,
    encode,
    field_of_view,
    lesion_windows,
    place,
    render,
)

__all__ = [
    "COVARIATES",
    "SCOPE_SET",
    "PoolView",
    "background_views",
    "covariates",
    "lesion_views",
    "match_weights",
    "scope_views",
    "spoiled_view",
]

COVARIATES = ("log_side", "aspect", "border_share", "brightness", "sharpness", "log_bytes")
BACKGROUNDS = 5
"""Background views tried per frame."""
SETS = {"bkai": 2, "kvasir": 1, "cvc": 1}
"""Sets of views per lesion and file: the histology data is small and shown most often."""
VIEWS_PER_SET = 3
SCOPE_SETS = {"bkai": 2, "kvasir": 1, "cvc": 1}
"""Sets of whole-frame views per lesion, where a frame allows them: most endoscopy software sends
whole frames, and windows alone left them to chance (whole-frame malignancy 0.695 in 0.1.0)."""
SCOPE_SET = 50
"""Number of the first set of whole-frame views."""
WIDE_SHARE = {"bkai": 0.15, "kvasir": 0.0, "cvc": 0.3}
"""Share of the sets that show a lesion from further off, as whole frames do. Kvasir-SEG's large
lesions need wide windows anyway, more than its backgrounds can match."""
WIDE_QUANTILE = 0.85
"""Wide windows take the sizes of the widest background windows: beyond them there is nothing to
match, and the size would tell lesion from background."""


@dataclass(frozen=True)
class PoolView:
    """One encoded view.

    Attributes:
        view: unique id of file and window.
        jpeg: encoded pixels.
        image: name of the file it was cut from.
        source: bkai, kvasir or cvc.
        group: source group.
        dims: stratum of the parent frame.
        histology: neoplastic, non-neoplastic, or "" when unknown or mixed.
        window: box in pixels of the file.
        scores: covariates in the order of ``COVARIATES``.
        lesion: "<frame>#<box>" of the lesion it shows, or None.
        view_set: number of the set; views of one set have a similar scale.
        cover: share of the lesion box inside.
        measures: of the lesion in this view, or None.
        area_share: lesion box over view area.
        frame_share: lesion box over area of the file; decides "small".
        weight: chance with which a background view is drawn, relative to others.
        scope: shows a whole frame, not a window.
    """

    view: str
    jpeg: bytes = field(repr=False)
    image: str
    source: str
    group: str
    dims: str
    histology: str
    window: tuple[int, int, int, int]
    scores: tuple[float, ...]
    lesion: str | None = None
    view_set: int = 0
    cover: float = 1.0
    measures: Measures | None = None
    area_share: float = 0.0
    frame_share: float = 0.0
    weight: float = 1.0
    scope: bool = False

    @property
    def lesion_key(self) -> str:
        """Name of the lesion by group and frame; a crop shows the lesion of its parent frame."""
        return f"{self.group}|{(self.lesion or '').replace('_p#', '#')}"

    @property
    def set_key(self) -> int:
        """Number of the set; crops of a lesion are a set of their own, with finer pixels."""
        return 100 if self.image.endswith("_p") else self.view_set

    @property
    def file(self) -> str:
        """Path inside an archive; folders keep to some hundred files each."""
        return f"frames/{zlib.crc32(self.view.encode()) % 64:02x}/{self.view}.jpg"


def background_views(task: tuple[SourceImage, SourceImage | None, int]) -> list[PoolView]:
    """Cut the background views of one file.

    Args:
        task: the file, the parent frame when it is a crop, and the seed of the archive.
    """
    image, parent, seed = task
    rng = _generator(image, seed, "background")
    if parent is not None:
        image = crop_boxes(image, parent) if image.label == "polyp" else image
    pixels = Image.open(image.path).convert("RGB")
    mask = _field(image, parent, np.asarray(pixels))
    count = BACKGROUNDS if image.kind == "frame" else 1
    windows = background_windows(image, mask, rng, count)
    if image.kind == "crop" and image.label == "normal":
        # The window is most of the crop, or nothing when device text or border reaches into it.
        windows = [w for w in windows if w.side > 0.8 * image.size[0]]
    scale = _zoom(image, parent)
    return [_view(image, pixels, window, 0, scale) for window in windows]


def lesion_views(
    task: tuple[SourceImage, SourceImage | None, int, Sequence[float]],
) -> list[PoolView]:
    """Cut the lesion views of one file, with their measures.

    Args:
        task: the file, the parent frame when it is a crop, the seed, and the sides of the
            background windows of the same source, which lesion windows follow.
    """
    image, parent, seed, sides = task
    rng = _generator(image, seed, "lesion")
    if parent is not None:
        image = crop_boxes(image, parent)
    pixels = Image.open(image.path).convert("RGB")
    mask = _field(image, parent, np.asarray(pixels))
    scale = _zoom(image, parent)
    found: list[PoolView] = []
    seen: set[tuple[tuple[int, ...], int]] = set()
    for lesion in _shown(image):
        for number in range(SETS[image.source] if image.kind == "frame" else 1):
            side = float(rng.choice(sides)) / scale
            if image.kind == "frame" and rng.random() < WIDE_SHARE[image.source]:
                wide = np.asarray(sides)
                side = float(rng.choice(wide[wide >= np.quantile(wide, WIDE_QUANTILE)]))
            wanted = [float(v) for v in side * np.exp(rng.uniform(-0.12, 0.12, VIEWS_PER_SET))]
            for window in lesion_windows(image, mask, lesion, rng, wanted):
                if (window.box, lesion) not in seen:
                    found.append(_view(image, pixels, window, number, scale))
                seen.add((window.box, lesion))
    return found


def scope_views(task: tuple[SourceImage, int]) -> list[PoolView]:
    """Make the whole-frame views of one frame: as many without its lesions as sets with each.

    Args:
        task: a whole frame and the seed of the archive.

    Returns:
        Lesion and lesion-free views; none where the frame has no room for the patches.
    """
    image, seed = task
    rng = _generator(image, seed, "scope")
    pixels = np.asarray(Image.open(image.path).convert("RGB"))
    mask = field_of_view(image, pixels)
    patches = plan_patches(image, mask, pixels, rng) if mask.any() else None
    if patches is None:
        return []
    found = []
    for lesion in (None, *_shown(image)):
        shown = cloned(pixels, patches.covers if lesion is None else patches.decoys)
        sets = SCOPE_SETS[image.source]
        for number in range(sets if lesion is None else sets * VIEWS_PER_SET):
            drawn = scope_view(mask, rng, None if lesion is None else (lesion, image.boxes[lesion]))
            if drawn is None:
                continue
            window, seen = drawn
            masked = Image.fromarray(np.where(seen[..., None], shown, 0).astype(np.uint8))
            view = _view(image, masked, window, SCOPE_SET + number // VIEWS_PER_SET, 1.0)
            found.append(replace(view, view=f"{view.view}_s{number}", scope=True))
    return found


def spoiled_view(task: tuple[bytes, str, int, bool]) -> bytes:
    """Make a non-informative variant, or one that is disturbed in part.

    Args:
        task: encoded view, kind, seed, and whether it is spoiled as a whole (a kind of
            ``training.spoil.SPOILS``) or in part (of ``training.overlays.OVERLAYS``).
    """
    jpeg, kind, seed, whole = task
    view = Image.open(io.BytesIO(jpeg)).convert("RGB")
    rng = np.random.default_rng(seed)
    return encode(spoil(view, kind, rng) if whole else OVERLAYS[kind](view, rng))


def covariates(jpeg: bytes, side: float, aspect: float) -> tuple[float, ...]:
    """Describe a view without looking at what it shows (order of ``COVARIATES``).

    Args:
        jpeg: encoded view.
        side: geometric mean side of its window, in pixels of a 384 px wide frame.
        aspect: width over height of its window.
    """
    grey = np.asarray(Image.open(io.BytesIO(jpeg)).convert("L"), dtype=np.float32)
    return (
        float(np.log(side)),
        float(aspect),
        float((grey < 20).mean()),
        float(grey.mean()),
        float(np.log(ndimage.laplace(grey).var() + 1.0)),
        float(np.log(len(jpeg))),
    )


def match_weights(lesions: list[PoolView], backgrounds: list[PoolView]) -> list[PoolView]:
    """Weigh the background views of one source so that they look like its lesion views.

    Windows and whole-frame views are matched apart; the whole-frame views then get the share of
    all draws that they have among the sets of a lesion, since an exam takes one set of each.

    Returns:
        The background views with their weights, mean 1.
    """
    share = _scope_share(lesions)
    found: list[PoolView] = []
    for scope, part in ((False, 1.0 - share), (True, share)):
        mine = [view for view in backgrounds if view.scope is scope]
        odds = _odds([view for view in lesions if view.scope is scope], mine)
        total = part * len(backgrounds)
        found += [replace(v, weight=float(w * total)) for v, w in zip(mine, odds, strict=True)]
    return found


def _scope_share(lesions: list[PoolView]) -> float:
    """Mean share of whole-frame sets among the sets of a lesion."""
    sets: dict[str, set[tuple[int, bool]]] = {}
    for view in lesions:
        sets.setdefault(view.lesion_key, set()).add((view.set_key, view.scope))
    shares = [sum(scope for _, scope in found) / len(found) for found in sets.values()]
    return float(np.mean(shares)) if shares else 0.0


def _odds(lesions: list[PoolView], backgrounds: list[PoolView]) -> np.ndarray:
    """Odds of "lesion" for each background view, summing to 1.

    A logistic model on the covariates and their products (weights of the "treated" population):
    drawn by these odds, backgrounds have the covariates of the lesions. Odds are cut at their
    98.5th percentile, so that no single view fills the archive.
    """
    if len(lesions) < 20 or len(backgrounds) < 20:  # too few to fit 27 coefficients
        return np.full(len(backgrounds), 1.0 / max(len(backgrounds), 1))
    rows = np.array([view.scores for view in [*lesions, *backgrounds]])
    rows = StandardScaler().fit_transform(rows)
    pairs = [rows[:, i] * rows[:, j] for i in range(rows.shape[1]) for j in range(i + 1)]
    rows = np.column_stack([rows, *pairs])
    truth = np.r_[np.ones(len(lesions)), np.zeros(len(backgrounds))]
    model = LogisticRegression(C=0.3, max_iter=2000, class_weight="balanced").fit(rows, truth)
    odds = np.exp(np.clip(model.decision_function(rows[len(lesions) :]), -6, 6))
    odds = np.minimum(odds, np.quantile(odds, 0.985))
    return np.asarray(odds / odds.sum())


def _shown(image: SourceImage) -> list[int]:
    """Choose the lesion boxes worth a view: the three largest, above 0.2 % of the file."""
    whole = image.size[0] * image.size[1]
    area = [(x1 - x0) * (y1 - y0) / whole for x0, y0, x1, y1 in image.boxes]
    order = sorted(range(len(area)), key=lambda i: -area[i])
    return [i for i in order if area[i] > 0.002][: 3 if image.kind == "frame" else 1]


def _view(
    image: SourceImage, pixels: Image.Image, window: Window, number: int, scale: float
) -> PoolView:
    shown = render(pixels, window)
    jpeg = encode(shown)
    name = f"{image.name}_{'_'.join(str(v) for v in window.box)}"
    lesion, measures, share, frame_share = None, None, 0.0, 0.0
    if window.lesion is not None:
        box = place(image.boxes[window.lesion], window)
        measures = measure(np.asarray(shown), box)
        lesion = f"{image.name}#{window.lesion}"
        share = measures.size**2
        x0, y0, x1, y1 = image.boxes[window.lesion]
        frame_share = (x1 - x0) * (y1 - y0) * scale**2 / (384 * 300)
    histology = image.histology if image.histology != "mixed" else ""
    return PoolView(
        f"{name}_{'b' if window.lesion is None else f'l{window.lesion}'}",
        jpeg,
        image.name,
        image.source,
        image.group,
        image.dims,
        histology,
        window.box,
        covariates(jpeg, window.side * scale, window.aspect),
        lesion,
        number,
        window.cover,
        measures,
        round(share, 4),
        round(frame_share, 4),
    )


def _zoom(image: SourceImage, parent: SourceImage | None) -> float:
    """Return pixels of a 384 px wide frame per pixel of the file."""
    if parent is None:
        return 1.0
    return crop_window(image, parent)[2] / image.size[0]


def _field(image: SourceImage, parent: SourceImage | None, pixels: np.ndarray) -> np.ndarray:
    """Return the field of view; that of a crop is cut from its parent frame's."""
    if parent is None:
        return field_of_view(image, pixels)
    frame = field_of_view(parent, np.asarray(Image.open(parent.path).convert("RGB")))
    x0, y0, side = crop_window(image, parent)
    return np.asarray(
        Image.fromarray(frame).resize(
            image.size,
            Image.Resampling.NEAREST,
            box=(x0, y0, min(x0 + side, parent.size[0]), min(y0 + side, parent.size[1])),
        )
    )


def _generator(image: SourceImage, seed: int, purpose: str) -> np.random.Generator:
    return np.random.default_rng((seed, zlib.crc32(f"{image.name}/{purpose}".encode())))
