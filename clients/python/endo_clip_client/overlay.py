"""What is drawn beside a live picture, never into it: the newest result and how old it is."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from endo_clip_client.errors import ClientError
from endo_clip_client.messages import Result
from endo_clip_client.streaming import Counts
from endo_clip_client.video import Quiet

__all__ = ["Overlay", "lines_of"]

_POSITIVE, _NEGATIVE, _UNDECIDED = (255, 196, 0), (120, 200, 120), (170, 170, 170)
_COLOURS = {"positive": _POSITIVE, "negative": _NEGATIVE}
_BACKGROUND = (16, 16, 16)
_STALE_S = 1.0
_USE = "research use only, not a medical device"


@dataclass(frozen=True, slots=True)
class Line:
    """A line of text and its colour."""

    text: str
    colour: tuple[int, int, int]


def lines_of(
    result: Result | None, age_s: float, counts: Counts, quiet: Quiet | None = None
) -> list[Line]:
    """Say what the newest result is, how old it is, and what was dropped.

    Args:
        result: the newest, or None.
        age_s: seconds since the frame that it is of was captured.
        counts: of the stream.
        quiet: the source's, while it gives no picture: that is said in place of a result.
    """
    lines = []
    if quiet is not None:
        what = "no picture" if quiet.reason is None else "source gone, opening it again: no picture"
        lines.append(Line(f"{what} for {quiet.for_s:.0f} s", _POSITIVE))
    elif result is None or age_s > _STALE_S:
        lines.append(Line("no result" if result is None else "no result for a second", _UNDECIDED))
    elif result.frame.status != "scored":
        why = result.frame.reason or (result.frame.error.code if result.frame.error else "")
        lines.append(Line(f"{result.frame.status}: {why}", _UNDECIDED))
    else:
        for task, frame in result.frame.results.items():
            colour = _COLOURS.get(frame.decision or "", _UNDECIDED)
            name = task.replace("_", " ")
            lines.append(Line(f"{name}: {frame.decision}  {frame.probability:.2f}", colour))
    dropped = counts.replaced + sum((counts.dropped or {}).values())
    age = "" if result is None else f"{age_s * 1000:.0f} ms old, "
    lines.append(Line(f"{age}{dropped} dropped, {_USE}", _UNDECIDED))
    return lines


class Overlay:
    """Draws a band of text below a picture, so that nothing of the picture is covered."""

    def __init__(self) -> None:
        """Load Pillow.

        Raises:
            ClientError: it is not installed.
        """
        self._image, self._draw, self._font = _pillow()
        self._fonts: dict[int, Any] = {}

    def draw(self, picture: Any, lines: Sequence[Line], band_lines: int) -> Any:
        """Give a new picture with the lines below; its sides are even, as video wants them.

        Args:
            picture: of Pillow's, RGB.
            lines: to write.
            band_lines: that there is room for: the size stays while the lines change.
        """
        size = max(12, picture.height // 28)
        font = self._fonts.setdefault(size, self._font.load_default(size))
        step = round(size * 1.4)
        height = picture.height + step * band_lines + step // 2
        whole = self._image.new("RGB", (_even(picture.width), _even(height)), _BACKGROUND)
        whole.paste(picture, (0, 0))
        pen = self._draw.Draw(whole)
        for place, line in enumerate(lines[:band_lines]):
            at = (step // 2, picture.height + step // 4 + place * step)
            pen.text(at, line.text, line.colour, font=font)
        return whole


def _even(side: int) -> int:
    return side + side % 2


def _pillow() -> tuple[Any, Any, Any]:
    try:
        from PIL import Image, ImageDraw, ImageFont
    except ImportError as error:
        raise ClientError(
            "endo-clip-watch needs Pillow\nWhat to do: pip install 'endo-clip-client[watch]'"
        ) from error
    return Image, ImageDraw, ImageFont
