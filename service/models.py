"""The bundles of a running service: the one that is served, the one before it, and a shadow.

A bundle is exchanged without a request noticing: the new one is opened (every digest compared),
started on threads of its own and has scored its canaries before anything changes; then one
assignment makes it the one that requests take, and what has begun with the old one ends with it.
Once the last such request is done the old one's memory is given back. Whatever stands against the
new one, the old one is served on, and the reason is told as a word.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

from starlette.datastructures import State

from model_store.errors import (
    BundleCorrupt,
    BundleIncompatible,
    BundleNotFound,
    EncodeFailed,
    EndoClipError,
    ProfileMismatch,
    ProviderUnavailable,
    SelfTestFailed,
)
from model_store.profile import SiteProfile
from service.bundles import Found, find, find_all, look, open_bundle
from service.engine import Engine
from service.errors import BundleRefused, ServiceError, SettingsInvalid, ShuttingDown
from service.forms import PatientIn
from service.logs import Event
from service.metrics import Change, Metrics
from service.scoring import model_info
from service.settings import Settings, read_site_profile
from service.shadow import Shadow

__all__ = ["Models", "Refusal"]

T = TypeVar("T")
_logger = logging.getLogger(__name__)


class Refusal(StrEnum):
    """Why the bundles stay as they are; a member of the problem document."""

    NO_BUNDLES = "no_bundles"
    """The setting that says where bundles are is not set."""
    BUSY = "busy"
    """Another change is under way."""
    NO_PREVIOUS = "no_previous"
    """No bundle was served before this one."""
    DIGEST_DIFFERS = "digest_differs"
    """The folder holds another bundle than the one that is meant."""
    BUNDLE_NOT_FOUND = "bundle_not_found"
    """The folder is gone, or has no manifest."""
    BUNDLE_CORRUPT = "bundle_corrupt"
    """A part of the bundle is not what its manifest or format says."""
    BUNDLE_INCOMPATIBLE = "bundle_incompatible"
    """It is of another format version."""
    PROFILE_MISMATCH = "profile_mismatch"
    """The site profile belongs to another bundle, or cannot be read."""
    PROVIDER_UNAVAILABLE = "provider_unavailable"
    """The execution provider cannot be had a second time."""
    SELF_TEST_FAILED = "self_test_failed"
    """The canaries do not score here as they were recorded, or not at all."""


_REFUSALS: Mapping[type[EndoClipError], Refusal] = {
    BundleNotFound: Refusal.BUNDLE_NOT_FOUND,
    BundleCorrupt: Refusal.BUNDLE_CORRUPT,
    BundleIncompatible: Refusal.BUNDLE_INCOMPATIBLE,
    ProfileMismatch: Refusal.PROFILE_MISMATCH,
    SettingsInvalid: Refusal.PROFILE_MISMATCH,
    ProviderUnavailable: Refusal.PROVIDER_UNAVAILABLE,
    SelfTestFailed: Refusal.SELF_TEST_FAILED,
    EncodeFailed: Refusal.SELF_TEST_FAILED,
}


@dataclass(frozen=True, slots=True)
class _Previous:
    """What was served before, with the site profile that it was served with."""

    bundle: Found
    site_profile: SiteProfile | None


class Models:
    """Exchanges bundles; all of it is called on the event loop, but for `stop`."""

    def __init__(
        self, state: State, open_engine: Callable[..., Engine], busy: Callable[[], bool]
    ) -> None:
        """Begin with the engine that is there.

        Args:
            state: of the app; its `engine` is the one that requests take.
            open_engine: opens another one, as `Engine` does; takes `bundle` and `site_profile`.
            busy: whether requests have work here now; from any thread.
        """
        self._state, self._open_engine, self._busy = state, open_engine, busy
        self._settings: Settings = state.settings
        self._metrics: Metrics = state.metrics
        self._configured = Found.of(self.active.bundle)
        self._previous: _Previous | None = None
        self._shadow: Shadow | None = None
        self._changing = self._stopping = False
        # Its own: loading must not take a thread away from requests.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="models")
        self._leaving: set[asyncio.Task[None]] = set()
        self._metrics.name_model(**model_info(self.active))

    @property
    def active(self) -> Engine:
        """The one that requests take."""
        engine: Engine = self._state.engine
        return engine

    async def load(self, folder: str, digest: str | None = None) -> None:
        """Serve another bundle; one that is served already, and ready, is left as it is.

        Args:
            folder: its name, below the setting `bundles`.
            digest: that it must have.

        Raises:
            UnknownModel: no such folder.
            BundleRefused: the old one is served on; says why.
            ShuttingDown: the service ends.
        """
        with self._change(Change.LOAD):
            await self._load(await self._run(lambda: self._find(folder, digest)))

    async def load_from(self, where: Callable[[], Path]) -> None:
        """Serve the bundle of an operator's configuration, as `load`.

        Args:
            where: finds its folder, in a thread.

        Raises:
            BundleRefused, ShuttingDown: as `load`.
        """
        with self._change(Change.LOAD):
            await self._load(await self._run(lambda: look(where())))

    async def roll_back(self) -> None:
        """Serve the bundle before this one again, with the site profile that it had then.

        Raises:
            BundleRefused, ShuttingDown: as `load`.
        """
        with self._change(Change.ROLLBACK):
            before = self._previous
            if before is None:
                raise BundleRefused("No bundle was served before.", Refusal.NO_PREVIOUS)
            await self._exchange(Change.ROLLBACK, before.bundle, before.site_profile)

    async def start_shadow(self, folder: str, digest: str | None = None) -> None:
        """Let a bundle score what is answered from now on; an earlier shadow ends.

        Raises:
            UnknownModel, BundleRefused, ShuttingDown: as `load`.
        """
        with self._change(Change.SHADOW):
            found = await self._run(lambda: self._find(folder, digest))
            active = self.active

            def make() -> Shadow:
                shadow = Shadow(
                    self._settings,
                    self._metrics.shadow,
                    bundle=found.path,
                    devices=active.devices,
                    site_profile=active.site_profile,
                    busy=self._busy,
                )
                _check_digest(found, shadow.bundle.digest)
                return shadow

            shadow = await self._run(make)
            await self._end_shadow()
            shadow.start()
            self._shadow = shadow
            self._tell(Change.SHADOW, found)

    async def end_shadow(self) -> None:
        """Let the shadow go, if there is one.

        Raises:
            BundleRefused, ShuttingDown: as `load`.
        """
        with self._change(Change.SHADOW):
            await self._end_shadow()

    async def offer(
        self, task: str, patients: tuple[PatientIn, ...], document: Mapping[str, Any]
    ) -> None:
        """Give an answer of a named task to the shadow, if there is one."""
        if self._shadow is not None:
            self._shadow.offer(task, patients, document)

    async def describe(self) -> dict[str, Any]:
        """Say what is served, what was, what is beside it, and what could be."""
        root, before, shadow = self._settings.bundles, self._previous, self._shadow
        available = await asyncio.to_thread(find_all, root) if root else []
        return {
            "active": {**_told(Found.of(self.active.bundle)), "ready": self.active.ready},
            "previous": _told(before.bundle) if before else None,
            "shadow": {**_told(Found.of(shadow.bundle)), "agreement": shadow.agreement()}
            if shadow
            else None,
            "configured": _told(self._configured),
            "available": [_told(found) for found in available],
        }

    def refuse(self) -> None:
        """Take no new requests and change nothing more; what has begun goes on."""
        self._stopping = True
        self.active.refuse()

    def stop(self) -> None:
        """Finish what was accepted, then end all threads."""
        self._stopping = True
        self.active.stop()
        if self._shadow is not None:
            self._shadow.stop()
        self._thread.shutdown(wait=True)

    @contextmanager
    def _change(self, action: Change) -> Iterator[None]:
        if self._stopping:
            raise ShuttingDown
        if self._changing:
            raise BundleRefused("Another change of the bundles is under way.", Refusal.BUSY)
        self._changing = True
        try:
            yield
        except Exception as error:
            refused = _refused(error)
            self._metrics.count_change(action, "refused")
            reason = getattr(refused, "reason", "-")
            _logger.warning(Event("models", action=action.value, state="refused", reason=reason))
            if refused is error:
                raise
            raise refused from error
        else:
            self._metrics.count_change(action, "ok")
        finally:
            self._changing = False

    def _find(self, folder: str, digest: str | None) -> Found:
        if self._settings.bundles is None:
            raise BundleRefused("ENDOCLIP_BUNDLES is not set.", Refusal.NO_BUNDLES)
        found = look(find(self._settings.bundles, folder))
        if digest is not None:
            _check_digest(found, digest)
        return found

    async def _load(self, found: Found) -> None:
        if found.digest == self.active.bundle.digest and self.active.ready:
            await self._run(lambda: open_bundle(found.path))  # the manifest alone is no proof
            return
        profile = await self._run(lambda: read_site_profile(self._settings.site_profile))
        await self._exchange(Change.LOAD, found, profile)

    async def _exchange(
        self, action: Change, found: Found, site_profile: SiteProfile | None
    ) -> None:
        old = self.active
        new = await self._run(lambda: self._start(found, site_profile))
        if self._stopping:
            await self._run(new.release)
            raise ShuttingDown
        self._state.engine = new
        self._metrics.name_model(**model_info(new))
        # A bundle that takes its own place, because it was not ready, is not the one before.
        if old.bundle.digest != new.bundle.digest:
            self._previous = _Previous(Found.of(old.bundle), old.site_profile)
        self._tell(action, found)
        if self._shadow is not None and self._shadow.bundle.digest == new.bundle.digest:
            await self._end_shadow()
        leaving = asyncio.create_task(self._let_go(old))
        self._leaving.add(leaving)
        leaving.add_done_callback(self._leaving.discard)

    def _start(self, found: Found, site_profile: SiteProfile | None) -> Engine:
        new = self._open_engine(bundle=found.path, site_profile=site_profile)
        try:
            _check_digest(found, new.bundle.digest)
            new.start()
            for detail in new.faults.values():
                raise BundleRefused(detail, Refusal.SELF_TEST_FAILED)
        except BaseException:
            new.release()
            raise
        return new

    async def _let_go(self, old: Engine) -> None:
        digest = old.bundle.digest
        await old.unused()
        await self._run(old.release)
        _logger.info(Event("models", state="released", digest=digest))

    async def _end_shadow(self) -> None:
        shadow, self._shadow = self._shadow, None
        if shadow is not None:
            await self._run(shadow.stop)

    async def _run(self, step: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, step)

    def _tell(self, action: Change, found: Found) -> None:
        told = {"model": found.name, "version": found.version, "digest": found.digest}
        _logger.info(Event("models", action=action.value, state="ok", **told))


def _check_digest(found: Found, digest: str) -> None:
    if found.digest != digest:
        detail = f"expected the bundle {digest}; found {found.digest}"
        raise BundleRefused(detail, Refusal.DIGEST_DIFFERS)


def _refused(error: Exception) -> Exception:
    """Say in the service's words what stands against a bundle; no path, no foreign text."""
    if isinstance(error, ServiceError) and not isinstance(error, SettingsInvalid):
        return error
    reason = next((_REFUSALS[kind] for kind in type(error).__mro__ if kind in _REFUSALS), None)
    if reason is None:
        return error
    if isinstance(error, BundleNotFound):
        return BundleRefused("The folder is gone, or has no manifest.json.", reason)
    if isinstance(error, BundleCorrupt):
        return BundleRefused(f"{error.path}: expected {error.expected}; found otherwise.", reason)
    if isinstance(error, SettingsInvalid):
        return BundleRefused("The site profile cannot be read.", reason)
    return BundleRefused(str(error), reason)


def _told(found: Found) -> dict[str, Any]:
    return {
        "folder": found.path.name,
        "name": found.name,
        "version": found.version,
        "digest": found.digest,
    }
