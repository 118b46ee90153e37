"""Draw colon frames with controllable lesions, for tests, a clean clone and a few exams.

A frame is a height map (folds, dome of the lesion, fine texture) and an albedo map (mucosa,
vessels, lesion colour), lit from the lens. Nothing is taken from a real image.
"""

from dataclasses import dataclass, field, replace

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from training.spoil import noise_field, spoil

__all__ = ["PhantomLesion", "PhantomSpec", "draw_frame", "random_lesion", "random_spec"]

COLOURS = ("pale", "isochromatic", "red", "dark-red")
TEXTURES = ("smooth", "granular", "nodular", "lobulated")
MARGINS = ("well-defined", "indistinct")
SHAPES = ("round", "oval", "elongated")
# Radius of the lesion as a share of the frame's shorter side, by relative size band.
RADII = {
    "<=5": (0.055, 0.08),
    "6-9": (0.08, 0.12),
    "10-19": (0.12, 0.19),
    "20-29": (0.19, 0.26),
    ">=30": (0.26, 0.33),
}
_ASPECT = {"round": (0.9, 1.0), "oval": (0.62, 0.75), "elongated": (0.38, 0.5)}
_MUCOSA = {
    "pink": (214, 142, 122),
    "orange": (216, 148, 98),
    "red": (198, 104, 86),
    "yellow": (206, 160, 92),
}


@dataclass(frozen=True)
class PhantomLesion:
    """A drawn polyp.

    Attributes:
        x: centre as a share of the width, 0-1.
        y: centre as a share of the height, 0-1.
        size_band: relative size, a key of ``RADII``.
        shape: round, oval or elongated.
        colour: pale, isochromatic, red or dark-red against the mucosa around it.
        texture: smooth, granular, nodular or lobulated.
        margin: well-defined or indistinct.
        flat: a low plateau in place of a dome.
        pedicle: draw a stalk.
        neoplastic: draw branched surface ridges (True) or pale dots (False).
        angle: direction of the long axis, radians.
    """

    x: float = 0.5
    y: float = 0.5
    size_band: str = "10-19"
    shape: str = "round"
    colour: str = "red"
    texture: str = "smooth"
    margin: str = "well-defined"
    flat: bool = False
    pedicle: bool = False
    neoplastic: bool = True
    angle: float = 0.0

    def radius(self) -> float:
        """Return the half long axis as a share of the shorter side (middle of the band)."""
        return float(np.mean(RADII[self.size_band]))

    def size(self) -> float:
        """Return the square root of its box area as a share of the shorter side, as measured."""
        return 2.0 * self.radius() * float(np.mean(_ASPECT[self.shape])) ** 0.5


@dataclass(frozen=True)
class PhantomSpec:
    """Everything that decides a drawn frame apart from its noise.

    Attributes:
        lesions: drawn polyps; none for normal mucosa.
        mucosa: pink, orange, red or yellow.
        lumen: centre of the lumen in shares of width and height, or None for a wall seen en face.
        folds: number of haustral folds, 0-6.
        vessels: strength of the vessel pattern, 0-1.
        light: brightness, about 0.75-1.2.
        spoiled: a key of ``training.spoil.SPOILS``, or None.
    """

    lesions: tuple[PhantomLesion, ...] = ()
    mucosa: str = "pink"
    lumen: tuple[float, float] | None = (0.5, 0.4)
    folds: int = 3
    vessels: float = 0.6
    light: float = 1.0
    spoiled: str | None = None


@dataclass
class _Scene:
    """Maps under construction, all (h, w) float32 in units of the shorter side."""

    x: np.ndarray
    y: np.ndarray
    height: np.ndarray
    albedo: np.ndarray
    dim: np.ndarray
    gloss: np.ndarray
    rng: np.random.Generator
    bodies: list[np.ndarray] = field(default_factory=list)


def draw_frame(
    spec: PhantomSpec, rng: np.random.Generator, size: tuple[int, int] = (256, 256)
) -> Image.Image:
    """Draw one frame.

    Args:
        spec: what to draw.
        rng: source of all noise; the same generator state gives the same pixels.
        size: width and height in pixels.

    Returns:
        RGB image of that size.
    """
    scene = _mucosa(spec, rng, size)
    if spec.lumen is not None:
        _add_lumen(scene, spec, size)
    _add_folds(scene, spec, size)
    _add_vessels(scene, spec, size)
    for lesion in spec.lesions:
        _add_lesion(scene, lesion, size)
    image = _lit(scene, spec.light)
    image = image.filter(ImageFilter.GaussianBlur(0.003 * min(size)))
    return spoil(image, spec.spoiled, rng) if spec.spoiled else image


def random_lesion(rng: np.random.Generator, *, neoplastic: bool | None = None) -> PhantomLesion:
    """Draw the attributes of a polyp that can be told from mucosa.

    Neoplastic ones tend to be redder and rougher, as the two kinds differ in life; every
    combination occurs. A lesion of mucosal colour is never flat and indistinct at once, since
    nothing would be left to see.
    """
    neo = bool(rng.random() < 0.5) if neoplastic is None else neoplastic
    colours = (0.06, 0.12, 0.45, 0.37) if neo else (0.5, 0.3, 0.15, 0.05)
    textures = (0.1, 0.3, 0.25, 0.35) if neo else (0.65, 0.2, 0.1, 0.05)
    colour = str(rng.choice(COLOURS, p=colours))
    flat = bool(rng.random() < 0.3)
    margin = str(rng.choice(MARGINS, p=(0.7, 0.3)))
    if colour == "isochromatic":
        flat, margin = False, "well-defined"
    return PhantomLesion(
        x=float(rng.uniform(0.22, 0.78)),
        y=float(rng.uniform(0.22, 0.78)),
        size_band=str(rng.choice(list(RADII), p=(0.18, 0.24, 0.28, 0.18, 0.12))),
        shape=str(rng.choice(SHAPES, p=(0.45, 0.35, 0.2))),
        colour=colour,
        texture=str(rng.choice(TEXTURES, p=textures)),
        margin=margin,
        flat=flat,
        pedicle=bool(not flat and rng.random() < 0.2),
        neoplastic=neo,
        angle=float(rng.uniform(0, np.pi)),
    )


def random_spec(
    rng: np.random.Generator, lesions: tuple[PhantomLesion, ...] = (), spoiled: str | None = None
) -> PhantomSpec:
    """Draw the surroundings for the given lesions; the surroundings do not depend on them."""
    lumen = None
    if rng.random() < 0.55:
        lumen = (float(rng.uniform(0.1, 0.9)), float(rng.uniform(0.1, 0.9)))
    return PhantomSpec(
        lesions=tuple(_clear_of(lesion, lumen) for lesion in lesions),
        mucosa=str(rng.choice(list(_MUCOSA), p=(0.45, 0.25, 0.2, 0.1))),
        lumen=lumen,
        folds=int(rng.integers(0, 5)),
        vessels=float(rng.uniform(0.1, 1.0)),
        light=float(rng.uniform(0.8, 1.15)),
        spoiled=spoiled,
    )


def _clear_of(lesion: PhantomLesion, lumen: tuple[float, float] | None) -> PhantomLesion:
    """Move a lesion out of the dark lumen, where it would not be seen."""
    if lumen is None:
        return lesion
    away = np.array([lesion.x - lumen[0], lesion.y - lumen[1]])
    distance = float(np.hypot(*away))
    wanted = 0.24 + lesion.radius()
    if distance >= wanted:
        return lesion
    direction = away / distance if distance > 0.02 else np.array([0.0, 1.0])
    for _ in range(4):
        x, y = np.array(lumen) + direction * wanted
        if 0.18 <= x <= 0.82 and 0.18 <= y <= 0.82:
            break
        direction = np.array([-direction[1], direction[0]])
    return replace(lesion, x=float(np.clip(x, 0.18, 0.82)), y=float(np.clip(y, 0.18, 0.82)))


def _mucosa(spec: PhantomSpec, rng: np.random.Generator, size: tuple[int, int]) -> _Scene:
    width, height = size
    unit = min(size)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32) / unit
    shape = (height, width)
    base = np.array(_MUCOSA[spec.mucosa], dtype=np.float32) * rng.uniform(0.94, 1.06, 3)
    blotch = 0.045 * noise_field(rng, shape, 3) + 0.02 * noise_field(rng, shape, 12)
    albedo = base * (1.0 + blotch[..., None] * np.array((0.7, 1.2, 1.3), dtype=np.float32))
    relief = 0.018 * noise_field(rng, shape, 3) + 0.0035 * noise_field(rng, shape, 10)
    relief += 0.0006 * noise_field(rng, shape, 45)
    ones = np.ones(shape, dtype=np.float32)
    return _Scene(x, y, relief, albedo.astype(np.float32), ones, ones.copy(), rng)


def _add_lumen(scene: _Scene, spec: PhantomSpec, size: tuple[int, int]) -> None:
    assert spec.lumen is not None
    distance = _from_lumen(scene, spec, size)
    radius = scene.rng.uniform(0.08, 0.17)
    depth = 1.0 / (1.0 + np.exp(-(distance - 1.5 * radius) / (0.42 * radius)))
    scene.dim *= 0.10 + 0.90 * depth


def _from_lumen(scene: _Scene, spec: PhantomSpec, size: tuple[int, int]) -> np.ndarray:
    """Return the warped distance to the lumen, or to a far point when it is out of view."""
    unit = min(size)
    far = (scene.rng.uniform(-0.9, -0.3), scene.rng.uniform(-0.9, 1.9))
    cx, cy = spec.lumen or far
    warp = 0.05 * noise_field(scene.rng, scene.x.shape, 3)
    return np.hypot(scene.x - cx * size[0] / unit, scene.y - cy * size[1] / unit) * (1.0 + warp)


def _add_folds(scene: _Scene, spec: PhantomSpec, size: tuple[int, int]) -> None:
    distance = _from_lumen(scene, spec, size)
    first = float(scene.rng.uniform(0.2, 0.3)) if spec.lumen else float(distance.min()) + 0.15
    gap = float(scene.rng.uniform(0.2, 0.34))
    for index in range(spec.folds):
        at = first + gap * index * (1.0 + 0.1 * index)
        width = 0.028 + 0.02 * index
        ridge = np.exp(-(((distance - at) / width) ** 2))
        scene.height += 0.030 * ridge
        shadow = np.exp(-(((distance - at + 1.7 * width) / (1.1 * width)) ** 2))
        scene.dim *= 1.0 - 0.32 * shadow


def _add_vessels(scene: _Scene, spec: PhantomSpec, size: tuple[int, int]) -> None:
    canvas = Image.new("L", size, 0)
    pen = ImageDraw.Draw(canvas)
    for _ in range(int(scene.rng.integers(3, 8))):
        start = scene.rng.uniform((0, 0), size)
        _branch(pen, scene.rng, start, scene.rng.uniform(0, 2 * np.pi), 0.011 * min(size), 0)
    soft = canvas.filter(ImageFilter.GaussianBlur(0.003 * min(size)))
    ink = np.asarray(soft, dtype=np.float32)[..., None] / 255.0 * spec.vessels * 0.5
    tint = np.array((0.72, 0.42, 0.42), dtype=np.float32)
    scene.albedo *= 1.0 - ink * (1.0 - tint)


def _branch(
    pen: ImageDraw.ImageDraw,
    rng: np.random.Generator,
    at: np.ndarray,
    angle: float,
    width: float,
    depth: int,
) -> None:
    step = 6.0 * width if depth == 0 else 4.0 * width + 3
    angles = angle + np.cumsum(rng.normal(0, 0.28, int(rng.integers(5, 12))))
    points = at + step * np.cumsum(np.column_stack((np.cos(angles), np.sin(angles))), axis=0)
    path = [float(v) for v in (*at, *points.ravel())]
    pen.line(path, fill=200, width=max(1, round(width)))
    if depth == 3:
        return
    for index in np.nonzero(rng.random(len(angles)) < 0.3)[0]:
        turn = float(rng.choice((-1, 1)) * rng.uniform(0.4, 1.0))
        _branch(pen, rng, points[index], float(angles[index]) + turn, 0.68 * width, depth + 1)


def _add_lesion(scene: _Scene, lesion: PhantomLesion, size: tuple[int, int]) -> None:
    unit = min(size)
    long = float(scene.rng.uniform(*RADII[lesion.size_band]))
    short = long * float(scene.rng.uniform(*_ASPECT[lesion.shape]))
    cx, cy = lesion.x * size[0] / unit, lesion.y * size[1] / unit
    if lesion.pedicle:
        _add_stalk(scene, cx, cy, 0.8 * short, lesion.angle + np.pi / 2)
    dx, dy = scene.x - cx, scene.y - cy
    cos, sin = np.cos(lesion.angle), np.sin(lesion.angle)
    a, b = (dx * cos + dy * sin) / long, (-dx * sin + dy * cos) / short
    wobble = 0.05 * noise_field(scene.rng, scene.x.shape, max(3, round(1 / long)))
    reach = np.hypot(a, b) * (1.0 + wobble)
    edge = 0.05 if lesion.margin == "well-defined" else 0.32
    mask = np.clip((1.0 - reach) / edge + 0.5 * (edge < 0.1), 0.0, 1.0)
    mask = mask * mask * (3 - 2 * mask)
    _raise(scene, lesion, (cx, cy), reach, mask, long)
    _colour(scene, lesion, mask, long)


def _raise(
    scene: _Scene,
    lesion: PhantomLesion,
    centre: tuple[float, float],
    reach: np.ndarray,
    mask: np.ndarray,
    long: float,
) -> None:
    """Lift the surface: a dome or a plateau with its texture, and the shadow beside it."""
    cx, cy = centre
    dome = np.clip(1.0 - reach**2, 0.0, 1.0) ** 0.7
    lift = 0.16 * np.clip((1 - reach) / 0.25, 0, 1) * long if lesion.flat else 0.5 * dome * long
    cells = max(6, round(1.3 / long))
    shape = scene.x.shape
    if lesion.texture == "granular":
        lift = lift + 0.0055 * mask * noise_field(scene.rng, shape, 42)
    elif lesion.texture == "nodular":
        lift = lift + 0.014 * mask * noise_field(scene.rng, shape, max(16, 3 * cells))
    elif lesion.texture == "lobulated":
        lobes = np.abs(noise_field(scene.rng, shape, max(8, round(1.6 * cells))))
        lift = lift * (1.0 - 0.10 * mask) - 0.05 * long * mask * np.exp(-((lobes / 0.4) ** 2))
        scene.dim *= 1.0 - 0.20 * mask * np.exp(-((lobes / 0.28) ** 2))
    scene.height = scene.height * (1.0 - 0.85 * mask) + lift
    if not lesion.flat:
        # The shadow lies on one side: a ring all around would look drawn with a pen.
        side = 0.5 + 0.5 * np.cos(
            np.arctan2(scene.y - cy, scene.x - cx) - scene.rng.uniform(0, 6.3)
        )
        ring = np.exp(-(((reach - 1.02) / 0.13) ** 2)) * (reach > 0.95) * (0.25 + 0.75 * side)
        scene.dim *= 1.0 - (0.38 if lesion.margin == "well-defined" else 0.15) * ring
    scene.dim += (1.0 - scene.dim) * 0.75 * mask * (lesion.texture != "lobulated")
    if lesion.texture == "smooth":
        scene.gloss = scene.gloss * (1.0 + 0.5 * mask)


def _colour(scene: _Scene, lesion: PhantomLesion, mask: np.ndarray, long: float) -> None:
    """Tint the surface; vessels of the mucosa do not run on over a lesion."""
    tints = {
        "pale": (1.13, 1.28, 1.30),
        "isochromatic": (1.0, 1.0, 1.0),
        "red": (1.0, 0.74, 0.72),
        "dark-red": (0.78, 0.50, 0.48),
    }
    plain = np.median(scene.albedo.reshape(-1, 3), axis=0)
    target = np.minimum(plain * np.array(tints[lesion.colour], dtype=np.float32), 250)
    strength = 0.92 * mask[..., None]
    scene.albedo = scene.albedo * (1.0 - strength) + target * strength
    shape = scene.x.shape
    pattern = noise_field(scene.rng, shape, max(14, round(2.2 / long)))
    if lesion.neoplastic:
        lines = np.exp(-((pattern / 0.22) ** 2)) * mask
        scene.albedo *= 1.0 - 0.30 * lines[..., None] * np.array((0.5, 1.0, 1.0))
    else:
        dots = np.clip(pattern - 1.1, 0, 1) * mask
        scene.albedo *= 1.0 + 0.22 * dots[..., None]


def _add_stalk(scene: _Scene, cx: float, cy: float, reach: float, angle: float) -> None:
    """Draw a half cylinder from the head to the wall."""
    length, width = 2.4 * reach, 0.42 * reach
    along = (scene.x - cx) * np.cos(angle) + (scene.y - cy) * np.sin(angle)
    across = -(scene.x - cx) * np.sin(angle) + (scene.y - cy) * np.cos(angle)
    wide = width * (1.0 + 0.5 * np.clip(along / length, 0, 1) ** 2)
    inside = np.clip((1 - np.abs(across) / wide) / 0.1, 0, 1) * (along > 0)
    inside *= np.clip((length - along) / (0.25 * length), 0, 1)
    round_up = np.sqrt(np.clip(1 - (across / wide) ** 2, 0, 1))
    scene.height = scene.height * (1 - 0.7 * inside) + 0.6 * width * round_up * inside
    flank = np.exp(-(((np.abs(across) - 1.15 * wide) / (0.22 * wide)) ** 2))
    scene.dim *= 1.0 - 0.2 * flank * (along > 0) * (along < length)


def _lit(scene: _Scene, light: float) -> Image.Image:
    """Light the surface from beside the lens: diffuse with fall-off, and wet highlights."""
    unit = min(scene.x.shape)
    slope_y, slope_x = np.gradient(scene.height, 1.0 / unit)
    lx, ly = (
        scene.x.max() * scene.rng.uniform(0.3, 0.7),
        scene.y.max() * scene.rng.uniform(0.2, 0.6),
    )
    to_x, to_y, to_z = lx - scene.x, ly - scene.y, np.float32(0.75)
    reach = np.sqrt(to_x**2 + to_y**2 + to_z**2)
    length = np.sqrt(slope_x**2 + slope_y**2 + 1.0)
    facing = np.clip((-slope_x * to_x - slope_y * to_y + to_z) / (reach * length), 0.0, 1.0)
    diffuse = (0.30 + 0.78 * facing) * (0.75 / reach) ** 1.3 * scene.dim * light
    wet = 0.0012 * noise_field(scene.rng, scene.x.shape, 26)
    wet_y, wet_x = np.gradient(scene.height + wet, 1.0 / unit)
    half_x, half_y, half_z = to_x / reach + 0.0, to_y / reach + 0.0, to_z / reach + 1.0
    norm = np.sqrt(half_x**2 + half_y**2 + half_z**2) * np.sqrt(wet_x**2 + wet_y**2 + 1.0)
    # exp(k (c - 1)) is c ** k near 1, where alone it matters, and much faster.
    mirror = np.exp(900.0 * ((-wet_x * half_x - wet_y * half_y + half_z) / norm - 1.0))
    patches = noise_field(scene.rng, scene.x.shape, 14) > 0.8
    shine = 235.0 * mirror * scene.gloss * scene.dim * patches
    pixels = scene.albedo * diffuse[..., None] + shine[..., None]
    pixels += 1.6 * scene.rng.standard_normal(pixels.shape, dtype=np.float32)
    return Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))
