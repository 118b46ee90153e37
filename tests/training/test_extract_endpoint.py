"""Asking a model over real HTTP: what comes back, what is done about what should not."""

import asyncio
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.training.chat_server import (
    PROBE,
    ChatServer,
    answer,
    chat_server,
    completion,
    drip,
    drop,
    lesion,
)
from training.errors import EndpointError
from training.extract.endpoint import Endpoint
from training.extract.extraction import Asking, extract_reports, read_one, summary
from training.extract.ledger import Entry

REPORT = "Findings: a 7 mm sessile polyp in the rectum, red."
ASKED = "1. a 7 mm sessile polyp in the rectum, red."
GOOD = answer(lesion(1, size_band=("6-9", "7 mm"), paris=("Is", "sessile"), colour=("red", "red")))


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    # The client's own back-off, only quicker.
    import openai._base_client as client

    monkeypatch.setattr(client, "INITIAL_RETRY_DELAY", 0.01)
    monkeypatch.setattr(client, "MAX_RETRY_DELAY", 0.02)


def read(chat: ChatServer, report: str = REPORT, **options: Any) -> Entry | None:
    given = {name: options.pop(name) for name in ("timeout", "max_tokens") if name in options}

    async def ask() -> Entry | None:
        endpoint = Endpoint(chat.url, "m", **{"timeout": 5.0} | given)
        try:
            await endpoint.open()
            return await read_one(report, Asking(endpoint, **options))
        finally:
            await endpoint.close()

    return asyncio.run(ask())


def told(entry: Entry | None) -> dict[str, str]:
    assert entry is not None
    (only,) = entry.lesions
    return {name: value.value for name, value in only.attributes.items()}


def once(first: Any, then: Any = GOOD) -> Callable[[str], Any]:
    """Answer the first question about the report in one way, all others in another."""
    left = [first]
    return lambda text: then if text == PROBE or not left else left.pop()


def test_a_good_answer_becomes_values_with_offsets() -> None:
    with chat_server(lambda text: GOOD) as chat:
        entry = read(chat)
    assert entry is not None
    assert (entry.by, entry.reason, entry.tokens) == ("llm", "", (10, 3))
    assert told(entry) == {"size_band": "6-9", "paris": "Is", "colour": "red"}
    spans = {n: REPORT[slice(*v.span)] for n, v in entry.lesions[0].attributes.items()}
    assert spans == {"size_band": "7 mm", "paris": "sessile", "colour": "red"}
    assert chat.asked[-1]["response_format"]["type"] == "json_schema"
    assert chat.asked[-1]["temperature"] == 0


@pytest.mark.parametrize(
    "trouble",
    [
        (500, {"error": {"message": "x"}}),
        (429, {"error": {"message": "slow down"}}, {"Retry-After": "0.05"}),
        drop,
    ],
    ids=["500", "429", "dropped"],
)
def test_trouble_that_passes_is_asked_again(trouble: Any) -> None:
    with chat_server(once(trouble)) as chat:
        entry = read(chat)
    assert told(entry)["size_band"] == "6-9"
    assert entry is not None
    assert entry.by == "llm"
    assert chat.reports == [ASKED, ASKED]


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [
        ((400, {"error": {"message": "context too long"}}), "HTTP 400"),
        ((500, {"error": {"message": "x"}}), "HTTP 500"),
        (drop, "no connection (RemoteProtocolError)"),
        ((200, b"<html>"), "an answer that is not JSON"),
        ((200, {"choices": []}), "an answer without choices"),
        ((200, completion("{", "length")), "answer cut off at the token limit"),
        ((200, completion(" " * (11 << 20))), "an answer of more than 1 MiB"),
        ((200, b"x", {"Content-Encoding": "gzip"}), "a compressed answer"),
        ("no JSON at all", "not JSON"),
        ('{"lesions": [' + "[" * 100_000, "not JSON"),
        ('{"lesions": 3}', "not of the schema: lesions: list_type"),
        ('{"lesions": [], "patient Smith": 1}', "not of the schema: answer: extra_forbidden"),
        ((200, completion(None)), "not JSON"),  # type: ignore[arg-type]
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 60 else "",
)
def test_a_report_without_a_good_answer_is_read_by_the_rules_and_says_why(
    trouble: Any, reason: str
) -> None:
    with chat_server(lambda text: GOOD if text == PROBE else trouble) as chat:
        entry = read(chat)
        left = read(chat, fallback="leave")
    assert entry is not None
    assert (entry.by, entry.reason) == ("rules", reason)
    assert entry.lesions[0].by == "rules"
    assert told(entry) == {"size_band": "6-9", "paris": "Is", "colour": "red"}
    assert left is None


def test_slow_answers_are_given_up() -> None:
    with chat_server(lambda text: GOOD if text == PROBE else drip) as chat:
        entry = read(chat, timeout=1.0)
    assert entry is not None
    assert entry.reason == "timed out"


@pytest.mark.parametrize("status", [400, 422, 500])
def test_a_server_that_refuses_the_schema_is_asked_as_it_likes(
    status: int, caplog: pytest.LogCaptureFixture
) -> None:
    with chat_server(lambda text: f"Here you are:\n```json\n{GOOD}\n```") as chat:
        chat.refuses_with = status
        chat.formats = {"json_object", "text"}
        assert told(read(chat))["size_band"] == "6-9"
        assert chat.asked[-1]["response_format"]["schema"]["required"] == ["lesions"]
        chat.formats = {"text"}
        assert told(read(chat))["size_band"] == "6-9"
    assert "refuses response_format json_schema; asking with json_object" in caplog.text
    assert "asking with text" in caplog.text


def test_a_server_that_names_its_options_is_asked_with_them() -> None:
    def strict(text: str) -> Any:
        body = chat.asked[-1]
        for name in ("max_tokens", "temperature"):
            if name in body:
                wanted = {"max_tokens": "use max_completion_tokens instead of max_tokens"}
                message = wanted.get(name, f"unsupported: {name}")
                return (400, {"error": {"message": message}})
        return GOOD

    with chat_server(strict) as chat:
        assert told(read(chat))["paris"] == "Is"
        assert "max_completion_tokens" in chat.asked[-1]


def test_an_answer_that_is_cut_off_is_paid_for_and_counted() -> None:
    with chat_server(lambda text: (200, completion("{", "length"))) as chat:
        entry = read(chat, max_tokens=7)
        assert entry is not None
        assert entry.by == "rules"
        assert entry.tokens == (10, 3)
        assert chat.asked[-1]["max_tokens"] == 7


@pytest.mark.parametrize("status", [401, 404, 429, 500])
def test_an_endpoint_that_cannot_be_used_stops_with_what_it_said(status: int) -> None:
    refusal = (status, {"error": {"message": "no such model"}})
    with (
        chat_server(lambda text: refusal) as chat,
        pytest.raises(EndpointError, match=f"HTTP {status}.*no such model") as error,
    ):
        read(chat)
    assert "'m'" in str(error.value)


def test_addresses_that_are_none_or_hold_a_password_are_refused() -> None:
    for url in ("127.0.0.1:80", "ftp://x/v1", "http://"):
        with pytest.raises(EndpointError, match="expected an address as"):
            Endpoint(url, "m")
    with pytest.raises(EndpointError, match="without a password") as error:
        Endpoint("http://me:secret@127.0.0.1/v1", "m")
    assert "secret" not in str(error.value)


def test_an_endpoint_that_dies_stops_the_run_and_keeps_what_is_done(tmp_path: Path) -> None:
    dead = False

    def dying(text: str) -> Any:
        nonlocal dead
        dead = dead or "polyp 4" in text
        return drop if dead else answer(lesion(1, size_band=("6-9", "7 mm")))

    reports = {f"r{n}": f"A 7 mm polyp {n}." for n in range(1, 8)}
    ledger = tmp_path / "ledger.jsonl"
    with chat_server(dying) as chat:
        with pytest.raises(EndpointError, match="what was read so far is kept"):
            extract_reports(reports, ledger, Asking(Endpoint(chat.url, "m"), concurrency=1))
        assert len(ledger.read_text().splitlines()) == 1 + 3
        chat.asked.clear()
        chat.reply = lambda text: answer(lesion(1, size_band=("6-9", "7 mm")))
        entries = extract_reports(reports, ledger, Asking(Endpoint(chat.url, "m"), concurrency=1))
    assert list(entries) == list(reports)
    assert {entry.by for entry in entries.values()} == {"llm"}
    assert sorted(chat.reports) == [f"1. A 7 mm polyp {n}." for n in range(4, 8)]


def test_the_same_report_is_asked_once_and_what_is_known_not_at_all(tmp_path: Path) -> None:
    reports = {"a": REPORT, "b": REPORT, "c": "  \n ", "d": "A polyp. " + "x" * 30_000}
    with chat_server(lambda text: GOOD) as chat:
        asking = Asking(Endpoint(chat.url, "m"))
        entries = extract_reports(reports, tmp_path / "l.jsonl", asking)
        assert chat.reports == [ASKED]
        more = extract_reports(reports | {"e": REPORT}, tmp_path / "l.jsonl", asking)
    assert chat.reports == [ASKED]
    assert [entries[k].tokens for k in "ab"] == [(10, 3), (0, 0)]
    assert more["e"].lesions == entries["a"].lesions
    assert (entries["c"].reason, entries["d"].reason) == (
        "names no polyp",
        "longer than 24000 characters",
    )
    said = summary(more, (1.0, 2.0))
    assert "tokens: 10 asked, 3 answered" in said
    assert "cost: 0.0000" in said
    assert "1 reports: names no polyp" in said


def test_a_report_without_a_polyp_is_not_asked(tmp_path: Path) -> None:
    reports = {"a": "Findings: normal mucosa to the caecum. No polyps.", "b": REPORT}
    with chat_server(lambda text: GOOD) as chat:
        asking = Asking(Endpoint(chat.url, "m"), concurrency=1)
        entries = extract_reports(reports, tmp_path / "l.jsonl", asking)
        assert chat.reports == [ASKED]
    assert (entries["a"].lesions, entries["a"].by) == ((), "rules")
    assert entries["a"].reason == "names no polyp"
    assert len(entries["b"].lesions) == 1


def test_questions_under_way_are_bounded(tmp_path: Path) -> None:
    import time

    def slow(text: str) -> str:
        time.sleep(0.03)
        return answer(lesion(1, size_band=("6-9", "7 mm")))

    with chat_server(slow) as chat:
        asking = Asking(Endpoint(chat.url, "m"), concurrency=3)
        reports = {f"r{n}": f"A 7 mm polyp {n}." for n in range(1, 15)}
        extract_reports(reports, tmp_path / "l.jsonl", asking)
    assert 2 <= chat.most_at_once <= 3


def test_neither_key_nor_report_is_logged_or_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", "sk-verysecret")
    logging.getLogger("openai").setLevel(logging.DEBUG)
    with caplog.at_level(logging.DEBUG), chat_server(lambda text: GOOD) as chat:
        asking = Asking(Endpoint(chat.url, "m", "MY_KEY"))
        extract_reports({"a": REPORT, "b": "Mr Quux: no polyp."}, tmp_path / "l.jsonl", asking)
    assert set(chat.keys) == {"Bearer sk-verysecret"}
    kept = (tmp_path / "l.jsonl").read_text() + caplog.text
    for secret in ("sk-verysecret", "sessile polyp", "Quux"):
        assert secret not in kept


def test_what_is_sent_holds_neither_pathology_nor_opinions_nor_strange_characters() -> None:
    report = (
        "Findings: 7 mm sessile\x00 polyp\u202e, likely adenoma,\ud800 red.\n"
        "Impression: neoplastic.\nPathology: tubular adenoma."
    )
    with chat_server(lambda text: GOOD) as chat:
        read(chat, report)
        (sent,) = chat.reports
    assert sent == "1. 7 mm sessile polyp , , red."
    assert "adenom" not in sent
    assert "neoplas" not in sent
    json.dumps(sent).encode("ascii")
