"""One OpenAI-compatible chat endpoint, through the official client.

Retries with back-off are the client's (429, 5xx, dropped connections; ``Retry-After`` is obeyed).
What it adds: the strictest answer format that the server takes, a limit on what an answer may cost
in bytes and seconds, and one distinction: a report that gets no answer while the endpoint answers
something else (``NoAnswer``), and an endpoint that answers nothing (``EndpointError``).
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx2
import openai

from training.errors import EndpointError
from training.extract.prompt import SCHEMA, messages

__all__ = ["Endpoint", "NoAnswer", "Reply"]

log = logging.getLogger(__name__)

MAX_REPLY_BYTES = 1 << 20
"""Ten times what twenty lesions take."""
MAX_TOKENS = 2048
"""Of one answer; a lesion takes about 200. Small, since servers count it against the context."""
RETRIES = 4
CONNECT_SECONDS = 10.0

# From strict to none. llama-cpp-python's server knows only the second, with the schema inside.
_FORMATS: dict[str, dict[str, Any]] = {
    "json_schema": {
        "type": "json_schema",
        "json_schema": {"name": "lesions", "schema": SCHEMA, "strict": True},
    },
    "json_object": {"type": "json_object", "schema": SCHEMA},
    "text": {"type": "text"},
}


class NoAnswer(Exception):
    """The endpoint works but gives no answer to this report; the message says what came.

    Attributes:
        tokens: Of question and answer, as for ``Reply``: what is cut off is paid for as well.
    """

    def __init__(self, told: str, tokens: tuple[int, int] = (0, 0)) -> None:
        super().__init__(told)
        self.tokens = tokens


@dataclass(frozen=True)
class Reply:
    """What a model wrote, and the tokens of question and answer.

    Attributes:
        content: The answer, "" for none.
        tokens: Of question and answer, as the server counts them; 0 where it does not.
    """

    content: str
    tokens: tuple[int, int]


class Endpoint:
    """A model at an endpoint.

    Args:
        url: Base address, as ``http://127.0.0.1:8080/v1``.
        model: Its name there.
        key_variable: Environment variable with the API key; local servers need none.
        timeout: Seconds that one attempt may take.
        max_tokens: Of one answer; longer ones are cut off, and the rules read their reports.

    Attributes:
        answer_format: ``json_schema``, ``json_object`` or ``text``, once open.

    Raises:
        EndpointError: The address is not one, or holds a password.
    """

    def __init__(
        self,
        url: str,
        model: str,
        key_variable: str = "OPENAI_API_KEY",
        timeout: float = 120.0,
        max_tokens: int = MAX_TOKENS,
    ) -> None:
        self.model, self.host = model, _host(url)
        self.answer_format = ""
        self._options: dict[str, Any] = {"max_tokens": max_tokens, "temperature": 0.0}
        # The client's debug messages hold the questions, and reports are in them.
        for name in ("openai", "httpx2", "httpcore2", "httpx", "httpcore"):
            logging.getLogger(name).setLevel(logging.WARNING)
        self._client = openai.AsyncOpenAI(
            base_url=url,
            api_key=os.environ.get(key_variable) or "none",
            max_retries=RETRIES,
            timeout=httpx2.Timeout(timeout, connect=CONNECT_SECONDS),
            default_headers={"Accept-Encoding": "identity"},
            http_client=httpx2.AsyncClient(transport=_Bounded(timeout), timeout=timeout),
        )

    async def open(self) -> None:
        """Find the strictest answer format that the server takes, and that it answers at all.

        Raises:
            EndpointError: It does not.
        """
        formats = iter(_FORMATS)
        self.answer_format = next(formats)
        while True:
            try:
                await self._probe()
                break
            except openai.APIStatusError as error:
                if not self._give_way(error, formats):
                    raise self._dead(error) from error
            except openai.OpenAIError as error:
                raise self._dead(error) from error
        if self.answer_format != "json_schema":
            log.warning(
                "%s refuses response_format json_schema; asking with %s",
                self.host,
                self.answer_format,
            )

    async def ask(self, text: str) -> Reply:
        """Ask for the lesions of one report.

        Args:
            text: What may be read of it, cleaned.

        Raises:
            NoAnswer: There is none for this report.
            EndpointError: The endpoint answers nothing any more.
        """
        try:
            answer = await self._create(messages(text))
        except openai.OpenAIError as error:
            if not _about_this_report(error):
                try:
                    await self._probe()
                except openai.OpenAIError as probe:
                    raise self._dead(probe) from probe
            raise NoAnswer(_told(error)) from error
        return _reply(answer)

    async def close(self) -> None:
        """Close its connections."""
        await self._client.close()

    async def _probe(self) -> None:
        """Ask the real question of a report that is nobody's: what fails, fails for all."""
        await self._create(messages("A 4 mm polyp."))

    async def _create(self, asked: list[dict[str, str]]) -> Any:
        try:
            return await self._client.chat.completions.create(
                model=self.model,
                messages=asked,
                response_format=_FORMATS[self.answer_format],
                **self._options,
            )
        except ValueError as error:
            raise _UnusableReply("an answer that is not JSON") from error

    def _give_way(self, error: openai.APIStatusError, formats: Iterator[str]) -> bool:
        """Ask in the way the server says it wants; false where there is no other way."""
        said = str(error.body)
        if "max_completion_tokens" in said and "max_tokens" in self._options:
            self._options["max_completion_tokens"] = self._options.pop("max_tokens")
            return True
        if "temperature" in said and "temperature" in self._options:
            del self._options["temperature"]
            return True
        # llama-cpp-python answers 500 where others answer 400 or 422, and names the field.
        if error.status_code in (400, 415, 422) or "response_format" in said:
            self.answer_format = next(formats, "")
        else:
            return False
        return bool(self.answer_format)

    def _dead(self, error: openai.OpenAIError) -> EndpointError:
        # Only the probe's error comes here: what the server says of it holds no report.
        said = error.message if isinstance(error, openai.APIStatusError) else ""
        return EndpointError(
            f"{self.host} gives no answer for model {self.model!r}: {_told(error)}"
            + (f": {said[:300]}" if said else "")
            + "; what was read so far is kept, the same command goes on from there"
        )


def _reply(answer: Any) -> Reply:
    """Take the content out of an answer; servers differ in what they leave out."""
    usage = getattr(answer, "usage", None)
    asked, answered = (
        count if isinstance(count := getattr(usage, name, 0), int) else 0
        for name in ("prompt_tokens", "completion_tokens")
    )
    choices = getattr(answer, "choices", None)
    if not isinstance(choices, list) or not choices:
        raise NoAnswer("an answer without choices")
    if getattr(choices[0], "finish_reason", "") == "length":
        raise NoAnswer("answer cut off at the token limit", (asked, answered))
    content = getattr(getattr(choices[0], "message", None), "content", None)
    return Reply(content if isinstance(content, str) else "", (asked, answered))


def _host(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise EndpointError(f"expected an address as http://127.0.0.1:8080/v1, found {url!r}")
    if parts.username or parts.password:
        raise EndpointError("expected an address without a password; keys come by environment")
    return parts.netloc


def _about_this_report(error: openai.OpenAIError) -> bool:
    return isinstance(error, _UnusableReply) or getattr(error, "status_code", 0) in (400, 413, 422)


def _told(error: openai.OpenAIError) -> str:
    """What went wrong, in words that hold nothing of what was sent or answered."""
    if isinstance(error, openai.APIStatusError):
        return f"HTTP {error.status_code}"
    if isinstance(error, openai.APITimeoutError):
        return "timed out"
    if isinstance(error, openai.APIConnectionError):
        return f"no connection ({type(error.__cause__).__name__})"
    return str(error) if isinstance(error, _UnusableReply) else type(error).__name__


class _UnusableReply(openai.OpenAIError):
    """Of the client's family, so that it is not asked for again."""


class _Bounded(httpx2.AsyncHTTPTransport):
    """Stops reading an answer that is too large or comes too slowly."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self._seconds = seconds

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        response = await super().handle_async_request(request)
        response.stream = _BoundedStream(response, self._seconds)
        return response


class _BoundedStream(httpx2.AsyncByteStream):
    def __init__(self, response: httpx2.Response, seconds: float) -> None:
        self._stream: Any = response.stream
        self._seconds = seconds
        # It was asked not to compress: a kilobyte can unpack to a gigabyte.
        self._packed = response.headers.get("content-encoding", "identity") != "identity"

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size, until = 0, time.monotonic() + self._seconds
        async for piece in self._stream:
            size += len(piece)
            if self._packed or size > MAX_REPLY_BYTES:
                raise _UnusableReply(
                    "a compressed answer" if self._packed else "an answer of more than 1 MiB"
                )
            if time.monotonic() > until:
                raise httpx2.ReadTimeout(f"no whole answer in {self._seconds:g} s")
            yield piece

    async def aclose(self) -> None:
        await self._stream.aclose()
