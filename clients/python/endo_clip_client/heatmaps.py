"""A heat map laid over its frame, as PNG: what the score rests on, which is not where a lesion is.

Needs Pillow: `pip install 'endo-clip-client[shrink]'`.
"""

from dataclasses import dataclass
from io import BytesIO

from endo_clip_client.errors import FrameUnreadable
from endo_clip_client.results import Heatmap
from endo_clip_client.shrinking import pillow

__all__ = ["MEANING", "Painter"]

MEANING = (
    "What the score rests on, coarsely. It does not show where a lesion is: its hottest cell lies "
    "in a lesion's box no more often than a cell drawn at random. Research use only."
)
_HEAT = (40, 90, 255)
# Where the label has its whole share; the picture must be seen below it.
_STRONGEST = 0.75


@dataclass(frozen=True, slots=True)
class Painter:
    """Lays heat maps over frames by what the service looks at of them.

    Attributes:
        resize: of the bundle's input contract: `squash` (all of the box) or `shortest` (the square
            in its middle).
        box: the device profile's crop box, fractions of the upright frame.
    """

    resize: str = "squash"
    box: tuple[float, ...] = (0.0, 0.0, 1.0, 1.0)

    def paint(self, data: bytes, heatmap: Heatmap) -> bytes:
        """Give the upright frame with the map over it, as PNG of the frame's size.

        The map's values are drawn as they are: a faint map stays faint.

        Raises:
            FrameUnreadable: Pillow cannot read the frame (DICOM, damaged files).
            ClientError: Pillow is not installed.
        """
        image_module, ops = pillow()
        try:
            with image_module.open(BytesIO(data)) as image:
                upright = ops.exif_transpose(image).convert("RGB")
        except Exception as error:  # hostile files raise anything
            raise FrameUnreadable("expected a picture that Pillow can read") from error
        values = bytes(round(255 * _STRONGEST * one) for one in heatmap.values)
        grid = image_module.frombytes("L", (heatmap.cols, heatmap.rows), values)
        left, top, right, bottom = self.seen(upright.size)
        side = (max(1, right - left), max(1, bottom - top))
        mask = image_module.new("L", upright.size, 0)
        mask.paste(grid.resize(side, image_module.Resampling.BICUBIC), (left, top))
        upright.paste(image_module.new("RGB", upright.size, _HEAT), (0, 0), mask)
        out = BytesIO()
        from PIL.PngImagePlugin import PngInfo

        note = PngInfo()
        note.add_text("Description", f"{heatmap.label}: {MEANING}")
        upright.save(out, "PNG", pnginfo=note)
        return out.getvalue()

    def seen(self, size: tuple[int, int]) -> tuple[int, int, int, int]:
        """Give the part of an upright frame that the map covers: left, top, right, bottom."""
        x0, y0, x1, y1 = self.box
        left, top, right, bottom = x0 * size[0], y0 * size[1], x1 * size[0], y1 * size[1]
        if self.resize == "shortest":
            side = min(right - left, bottom - top)
            left, top = (left + right - side) / 2, (top + bottom - side) / 2
            right, bottom = left + side, top + side
        return round(left), round(top), round(right), round(bottom)
