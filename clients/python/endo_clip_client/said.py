"""One copy of each word: a conversation becomes a method of the blocking and of the async client.

    class Words:
        devices = Said(Conversations.devices)

A class of `Words` and `Blocking` has `devices() -> Mapping`; one of `Words` and `Awaiting` has the
same method, to be awaited. What a word means stands in the conversation alone; how to wait, here.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine
from functools import wraps
from types import MethodType
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, overload

import httpx

from endo_clip_client.conversations import Talk, Work
from endo_clip_client.retrying import Pause
from endo_clip_client.transport import send_options

__all__ = ["Awaiting", "Blocking", "Said"]

P = ParamSpec("P")
T = TypeVar("T")


class Blocking:
    """Holds conversations, blocking; `_talks` are those that its words are of."""

    _http: httpx.Client
    _talks: Any

    def _hold(self, talk: Talk[T]) -> T:
        result: Any = None
        while True:
            try:
                step = talk.send(result)
            except StopIteration as end:
                value: T = end.value
                return value
            try:
                if isinstance(step, Pause):
                    time.sleep(step.seconds)
                    result = None
                elif isinstance(step, Work):
                    result = step.run()
                else:
                    result = self._http.request(**send_options(step))
            except httpx.TransportError as error:
                result = error

    def _say(self, talk: Callable[..., Talk[T]]) -> Callable[..., T]:
        @wraps(talk)
        def said(*args: Any, **kwargs: Any) -> T:
            return self._hold(talk(*args, **kwargs))

        return said


class Awaiting:
    """Holds conversations, waiting on the event loop."""

    _http: httpx.AsyncClient
    _talks: Any

    async def _hold(self, talk: Talk[T]) -> T:
        result: Any = None
        while True:
            try:
                step = talk.send(result)
            except StopIteration as end:
                value: T = end.value
                return value
            try:
                if isinstance(step, Pause):
                    await asyncio.sleep(step.seconds)
                    result = None
                elif isinstance(step, Work):
                    result = await asyncio.to_thread(step.run)
                else:
                    result = await self._http.request(**send_options(step))
            except httpx.TransportError as error:
                result = error

    def _say(self, talk: Callable[..., Talk[T]]) -> Callable[..., Coroutine[Any, Any, T]]:
        @wraps(talk)
        async def said(*args: Any, **kwargs: Any) -> T:
            return await self._hold(talk(*args, **kwargs))

        return said


class Said(Generic[P, T]):
    """A method of a client, from the conversation that it holds."""

    def __init__(self, talk: Callable[Concatenate[Any, P], Talk[T]]) -> None:
        """Take the conversation, as the function that stands in its class."""
        self._talk = talk

    @overload
    def __get__(self, held: None, owner: type) -> Callable[Concatenate[Any, P], Talk[T]]: ...

    @overload
    def __get__(self, held: Blocking, owner: type) -> Callable[P, T]: ...

    @overload
    def __get__(self, held: Awaiting, owner: type) -> Callable[P, Coroutine[Any, Any, T]]: ...

    def __get__(self, held: Blocking | Awaiting | None, owner: type) -> Any:
        """Give the method; of the class, so that `help` shows it, the conversation's function."""
        return self._talk if held is None else held._say(MethodType(self._talk, held._talks))
