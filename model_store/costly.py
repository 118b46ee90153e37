"""Image files that would cost out of all proportion to their pixels, told by their first bytes.

Both are small files that keep a thread busy for minutes, and no frame of any endoscope is one.
"""

import struct

import numpy as np

__all__ = ["costly"]

# Each scan of a progressive JPEG costs a pass over all its pixels, and may be a dozen bytes long.
# Encoders write 10 scans, the most eager 64.
_MAX_SCANS = 100
_START_OF_SCAN = 0xDA
# Pillow reads the whole directory of a TIFF when it opens the file: 0.35 s for 60,000 entries.
# Cameras write 50, microscopes a few hundred.
_MAX_TAGS = 1000


def costly(data: bytes | bytearray, kind: str) -> str | None:
    """Say what is out of proportion.

    Args:
        data: a whole image file.
        kind: its format, as `images.sniff` names it.

    Returns:
        What was expected and what came; None for a file like any other.
    """
    if kind == "JPEG":
        # Inside of a scan 0xFF is followed by 0, so that this counts marks alone. Every frame pays
        # it twice: 0.01 ms for 80 kB, where `bytes.count` takes 0.07.
        file = np.frombuffer(data, np.uint8)
        scans = np.count_nonzero((file[:-1] == 0xFF) & (file[1:] == _START_OF_SCAN))
        return f"expected at most {_MAX_SCANS} scans; found {scans}" if scans > _MAX_SCANS else None
    tags = _tags(data) if kind == "TIFF" else 0
    return f"expected at most {_MAX_TAGS} tags; found {tags}" if tags > _MAX_TAGS else None


def _tags(data: bytes | bytearray) -> int:
    """Count the entries of a TIFF's first directory; 0 where it cannot be found."""
    order = "<" if data[:2] == b"II" else ">"
    big = data[2:4] in (b"+\0", b"\0+")
    where, start, count = (f"{order}Q", 8, f"{order}Q") if big else (f"{order}I", 4, f"{order}H")
    try:
        (at,) = struct.unpack_from(where, data, start)
        return int(struct.unpack_from(count, data, at)[0])
    except (struct.error, OverflowError):
        return 0
