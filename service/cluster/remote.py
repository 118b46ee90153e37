"""An ingress's worker: it asks the encoder replicas, through their deployment's handle.

An item is a pure function of a bundle and a value, so one that was lost with its replica is asked
again of another: a machine that dies costs its frames a second, and their callers nothing. When no
replica answers in time, that is 503 with Retry-After, never an answer of another bundle.
"""

import asyncio
import logging
from concurrent.futures import Future
from typing import Any

from ray.exceptions import RayError
from ray.serve.exceptions import BackPressureError, RayServeException
from ray.serve.handle import DeploymentHandle

from model_store.errors import EncodeFailed
from service.cluster.encoders import Encoded
from service.errors import Overloaded, ShuttingDown, TowersUnreachable
from service.logs import Event
from service.towers import Kind

__all__ = ["RemoteWorker"]

# Longer than a replica takes to start where there is room for it; shorter than `Health` waits.
_PATIENCE_S = 30.0
_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 2.0
# A replica that gives a result is rarely further away than this.
_RETRY_S = 1
_logger = logging.getLogger(__name__)


class RemoteWorker:
    """The `Worker` of a bundle whose towers are in other processes."""

    def __init__(
        self,
        encoders: DeploymentHandle[Any],
        loop: asyncio.AbstractEventLoop,
        digest: str,
        provider: str,
    ) -> None:
        """Begin.

        Args:
            encoders: handle of the encoders' deployment.
            loop: that requests are served on, and encoders asked on.
            digest: of the bundle.
            provider: that the replicas are expected to run on, until one says what it does.
        """
        self._encode = encoders.options(method_name="encode")
        self._digest = digest
        self._loop = loop
        self._stopping = False
        self.provider = self.provider_now = provider

    @property
    def alive(self) -> bool:
        """Whether it takes items."""
        return not self._stopping

    @property
    def oldest_batch(self) -> float | None:
        """None: a stuck batch is its replica's to notice, and Serve's to end."""
        return None

    def start(self) -> None:
        """Do nothing: the replicas have begun, or will."""

    def submit(self, kind: Kind, value: Any) -> "Future[Any]":
        """Hand an item over, from any thread; as `Worker.submit`.

        The future may also fail with TowersUnreachable or Overloaded.
        """
        if self._stopping:
            raise ShuttingDown
        return asyncio.run_coroutine_threadsafe(self._ask(kind, value), self._loop)

    def stop(self, timeout_s: float | None = None) -> None:  # noqa: ARG002 - what is out has a caller
        """Take nothing more; as `Worker.stop`."""
        self._stopping = True

    async def _ask(self, kind: Kind, value: Any) -> Any:
        try:
            async with asyncio.timeout(_PATIENCE_S):
                encoded = await self._until_answered(kind, value)
        except TimeoutError:
            raise TowersUnreachable from None
        self.provider = self.provider_now = encoded.provider
        if encoded.failed:
            raise EncodeFailed(encoded.failed)
        return encoded.result

    async def _until_answered(self, kind: Kind, value: Any) -> Encoded:
        pause = _PAUSE_S
        while True:
            try:
                answer = self._encode.remote(self._digest, kind.value, value)
                encoded: Encoded = await answer
            except BackPressureError:
                raise Overloaded(_RETRY_S) from None
            except (RayError, RayServeException) as error:
                said = type(error).__name__
            except asyncio.CancelledError:
                # Of the call, by a replica that ends, and not of the caller's wait for it.
                task = asyncio.current_task()
                if task is None or task.cancelling():
                    # To stop waiting tells the replica nothing: it would encode for nobody.
                    answer.cancel()
                    raise
                said = "cancelled"
            else:
                if not encoded.unavailable:
                    return encoded
                said = encoded.failed
            _logger.warning(Event("encoder", state="asked_again", reason=said))
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_S)
