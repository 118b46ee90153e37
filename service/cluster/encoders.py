"""An encoder replica: the towers of one or two bundles, for every ingress of the cluster.

Bundles are asked for by digest. A replica looks for it on its own node, opens it verified and runs
its self-test before it answers for it, whatever a configuration says; so an ingress can never be
given embeddings of another bundle than its own. While a bundle is exchanged a replica holds both.

Frames of all ingresses are batched by the service's own worker, not by `@serve.batch`: it waits for
no company, fails a batch's own callers alone, and is what the single process was measured with.
"""

import asyncio
import logging
import math
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from model_store.encoder import CPU, Encoder
from model_store.errors import BundleNotFound, EncodeFailed, EndoClipError
from model_store.selftest import self_test
from service.bundles import find_digest, open_bundle
from service.errors import NotReady
from service.logs import Event
from service.metrics import Metrics
from service.settings import Settings, newest_bundle
from service.towers import Kind, Towers

__all__ = ["Encoded", "Encoders"]

# The one that is served and the one before it: an ingress that is still to change asks for that.
_HELD = 2
# As in `service.engine`.
_STUCK_S = 60.0
_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Encoded:
    """What a replica answers; errors are told as words, so that none has to be unpickled.

    Attributes:
        provider: execution provider of its image tower.
        result: as `Kind` says; None where it failed.
        failed: what went wrong, for the log alone.
        unavailable: whether it is the replica that cannot, and another one may.
    """

    provider: str
    result: Any = None
    failed: str = ""
    unavailable: bool = False


@dataclass(frozen=True, slots=True)
class _Held:
    encoder: Encoder
    towers: Towers


class Encoders:
    """The bundles of one replica; all of it is called on its event loop."""

    def __init__(self, settings: Settings, cores: int) -> None:
        """Begin with no bundle.

        Args:
            settings: of the replica: where bundles are, provider, threads, batch.
            cores: of the machine that are the replica's.
        """
        self._settings = settings
        self._cores = cores
        self._held: OrderedDict[str, _Held] = OrderedDict()
        self._opening: dict[str, asyncio.Task[_Held]] = {}
        self._pending = 0
        self._metrics = Metrics([])

    @property
    def ready(self) -> bool:
        """Whether it has a bundle."""
        return bool(self._held)

    async def open(self, digest: str) -> None:
        """Open a bundle that will be asked for.

        Raises:
            EndoClipError: it is not there, is not what it should be, or fails its self-test.
        """
        await self._of(digest)

    async def encode(self, digest: str, kind: Kind, value: Any) -> Encoded:
        """Encode one item; cancelled before its batch has begun, it costs nothing."""
        provider: str = self._settings.provider
        self._pending += 1
        try:
            held = await self._of(digest)
            provider = held.encoder.provider_now
            future = held.towers.submit(kind, value)
            return Encoded(provider, await asyncio.wrap_future(future))
        except EncodeFailed as error:
            return Encoded(provider, failed=str(error))
        except (EndoClipError, OSError) as error:
            return Encoded(provider, failed=str(error), unavailable=True)
        finally:
            self._pending -= 1

    def check(self) -> None:
        """Look for what only another process can help with.

        Raises:
            NotReady: a worker is dead or stuck, or the runtime has left its GPU.
        """
        for held in self._held.values():
            if not held.towers.alive:
                raise NotReady("An encode worker is not alive.", "worker_dead")
            since = held.towers.oldest_batch
            if since is not None and time.monotonic() - since > _STUCK_S:
                raise NotReady("An encode worker gives no answer.", "worker_stuck")
            if held.encoder.provider_now != held.encoder.provider:
                raise NotReady("The runtime has left its provider.", "provider_fell_back")

    def exposition(self) -> bytes:
        """Write the figures of the replica."""
        return self._metrics.render(
            ready=self.ready,
            faults=(),
            canaries=(math.nan, math.nan),
            pending={"frames": self._pending},
            wait_s=0.0,
        )

    async def stop(self) -> None:
        """Finish what was accepted, and end."""
        for held in self._held.values():
            await asyncio.to_thread(held.towers.stop, 5.0)

    async def _of(self, digest: str) -> _Held:
        held = self._held.get(digest)
        if held is not None:
            self._held.move_to_end(digest)
            return held
        task = self._opening.get(digest)
        if task is None:
            task = asyncio.create_task(self._open(digest))
            self._opening[digest] = task
            task.add_done_callback(lambda _: self._opening.pop(digest, None))
        return await asyncio.shield(task)  # whoever leaves must not stop it for the others

    async def _open(self, digest: str) -> _Held:
        held = await asyncio.to_thread(self._opened, digest)
        held.towers.start()
        self._held[digest] = held
        _logger.info(Event("encoder", state="opened", digest=digest))
        while len(self._held) > _HELD:
            old, gone = self._held.popitem(last=False)
            await asyncio.to_thread(gone.towers.stop, 5.0)
            gone.encoder.close()
            _logger.info(Event("encoder", state="released", digest=old))
        return held

    def _opened(self, digest: str) -> _Held:
        settings = self._settings
        configured = settings.bundle or newest_bundle()
        bundle = open_bundle(find_digest(configured, settings.bundles, digest))
        if bundle.digest != digest:  # it has changed since its manifest was looked at
            raise BundleNotFound(digest)
        encoder = Encoder(
            bundle,
            provider=settings.provider,
            allow_fallback=settings.allow_cpu_fallback,
            threads=settings.encode_threads,
        )
        self_test(encoder)
        workers = max(1, self._cores // settings.encode_threads) if encoder.provider == CPU else 1
        self._metrics.count_workers(workers)
        return _Held(encoder, Towers(encoder, self._metrics, settings.max_batch, workers))
