"""An encoder replica that takes a fixed time for a frame, one after another, and no processor.

It answers what the real one answered for the same pixels, so that an ingress is ready and scores
as ever; only the first time is it computed.
"""

import asyncio
import hashlib
from typing import Any

from ray import serve

from bench.cluster import FIXED_S
from service.cluster.application import Encoder, Ingress
from service.cluster.encoders import Encoded
from service.towers import Kind

__all__ = ["FixedEncoder", "application"]


class FixedEncoder(Encoder):
    """As the real one, in its own time."""

    def __init__(self) -> None:
        super().__init__()
        self._known: dict[bytes, Encoded] = {}
        self._one = asyncio.Lock()

    async def encode(self, digest: str, kind: str, value: Any) -> Encoded:
        """Encode one item; a frame takes `FIXED_S`."""
        if kind != Kind.FRAMES:
            return await super().encode(digest, kind, value)
        async with self._one:
            await asyncio.sleep(FIXED_S)
        name = digest.encode() + hashlib.sha256(value.tobytes()).digest()
        if name not in self._known:
            self._known[name] = await super().encode(digest, kind, value)
        return self._known[name]


_encoders = serve.deployment(name="encoder", user_config={})(FixedEncoder)
_ingress = serve.deployment(name="ingress", user_config={})(Ingress)
application = _ingress.bind(_encoders.bind())
