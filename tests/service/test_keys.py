"""Keys over HTTP: who is let in, for what, at which rate; and what becomes of a changed file."""

import http.client
import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from service.errors import RateLimited, SettingsInvalid, Unauthenticated
from service.keys import Keyring, Scope, change_keys, read_keys
from service.rates import FrameRate
from tests.service.conftest import Running, Serve, as_form, patient, problem_of
from tests.service.keys_file import add_key, bearer

PNG = {"Content-Type": "image/png"}
PATHS = (
    "/v1/models",
    "/v1/devices",
    "/v1/limits",
    "/v1/nothing",
    "/static/",
    "/metrics",
    "/v1/admin/x",
)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("keys") / "keys.json"


@pytest.fixture(scope="module")
def tokens(path: Path) -> dict[str, str]:
    ended = datetime.now(UTC) - timedelta(seconds=1)
    return {
        **{scope.value: add_key(path, scope) for scope in Scope},
        "ended": add_key(path, expires=ended),
        "slow": add_key(path, frames_per_second=0.05),
    }


@pytest.fixture(scope="module")
def guarded(serve: Serve, path: Path, tokens: dict[str, str]) -> Iterator[Running]:
    with serve(keys=path) as up:
        yield up


# ---- over HTTP -----------------------------------------------------------------------------------


@pytest.mark.parametrize("given", PATHS)
def test_without_a_key_every_path_is_closed_and_none_can_be_told_from_another(
    guarded: Running, given: str
) -> None:
    answer = guarded.client.get(given)
    problem = problem_of(answer, 401, "unauthenticated")
    assert answer.headers["www-authenticate"] == 'Bearer realm="endo-clip"'
    assert problem["detail"] == "expected Authorization: Bearer <key>"


@pytest.mark.parametrize("given", ["/healthz", "/readyz", "/docs", "/openapi.json"])
def test_probes_and_documentation_need_no_key(guarded: Running, given: str) -> None:
    assert guarded.client.get(given).status_code == 200
    assert guarded.client.head(given).status_code == 200


@pytest.mark.parametrize(
    "spelling",
    ["/healthz/", "//healthz", "/healthz/../v1/models", "/%2e/healthz", "/HEALTHZ", "/healthz%00"],
)
def test_no_spelling_of_an_open_path_opens_another(guarded: Running, spelling: str) -> None:
    # Not by httpx, which spells paths anew: of "//healthz" it makes "/".
    connection = http.client.HTTPConnection("127.0.0.1", guarded.port)
    connection.request("GET", spelling)
    answer = connection.getresponse()
    assert (answer.status, json.load(answer)["code"]) == (401, "unauthenticated")
    connection.close()


def wrong_headers(token: str) -> list[str]:
    changed = token[:-1] + ("A" if token[-1] != "A" else "B")
    other_id = token.replace(token.split("_")[1], "00000000")
    return [
        *("Bearer", f"Basic {token}", token, "Bearer x", f"Bearer {token} x"),
        *(f"Bearer {one}" for one in (changed, other_id, token.upper(), token[:-1], token + "A")),
        *(f"Bearer {token[:10]}", "Bearer " + "x" * 20_000, "Bearer \udcff\udcfe", "Bearer ü"),
    ]


def test_nothing_but_the_whole_key_is_the_key(guarded: Running, tokens: dict[str, str]) -> None:
    for value in wrong_headers(tokens["score"]):
        headers = {"Authorization": value.encode("utf-8", "surrogateescape")}
        answer = guarded.client.get("/v1/models", headers=headers)
        problem_of(answer, 401, "unauthenticated")
        assert tokens["score"] not in answer.text
    for value in (f"bearer {tokens['score']}", f"Bearer  {tokens['score']}"):
        answer = guarded.client.get("/v1/models", headers={"Authorization": value})
        assert answer.status_code == 200


def test_key_in_the_query_is_no_key(guarded: Running, tokens: dict[str, str]) -> None:
    answer = guarded.client.get("/v1/models", params={"key": tokens["score"]})
    problem_of(answer, 401, "unauthenticated")


def test_key_that_has_ended_is_told_so(guarded: Running, tokens: dict[str, str]) -> None:
    answer = guarded.client.get("/v1/models", headers=bearer(tokens["ended"]))
    assert problem_of(answer, 401, "unauthenticated")["detail"] == "The key has expired."
    assert 'error="invalid_token"' in answer.headers["www-authenticate"]


@pytest.mark.parametrize("scope", list(Scope))
def test_each_scope_opens_its_own_paths_and_no_others(
    guarded: Running, tokens: dict[str, str], scope: Scope
) -> None:
    reached = {
        Scope.SCORE: guarded.client.get("/v1/models", headers=bearer(tokens[scope])),
        Scope.METRICS: guarded.client.get("/metrics", headers=bearer(tokens[scope])),
        Scope.ADMIN: guarded.client.get("/v1/admin/nothing", headers=bearer(tokens[scope])),
    }
    for wanted, answer in reached.items():
        if wanted is not scope:
            problem = problem_of(answer, 403, "forbidden")
            assert problem["detail"] == f"This needs a key with the scope {wanted.value}."
    assert reached[scope].status_code == (404 if scope is Scope.ADMIN else 200)


def test_key_scores_in_every_form(guarded: Running, tokens: dict[str, str], red: bytes) -> None:
    headers = bearer(tokens["score"])
    for sent in (
        as_form([red], {"patient_id": "p"}),
        {"json": {"patients": [patient(red)]}},
        {"content": red, "headers": PNG},
    ):
        more = {**sent, "headers": {**headers, **sent.get("headers", {})}}
        assert guarded.client.post("/v1/malignancy", **more).status_code == 200
        refused = guarded.client.post("/v1/malignancy", **sent)
        problem_of(refused, 401, "unauthenticated")


def test_refusal_reads_no_body(guarded: Running) -> None:
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        while sent < 1 << 30:
            sent += 1 << 16
            yield bytes(1 << 16)

    try:
        answer = guarded.client.post("/v1/malignancy", content=endless(), headers=PNG)
        problem_of(answer, 401, "unauthenticated")
    except (httpx.WriteError, httpx.ReadError):
        pass  # a client that never looks up from sending may miss the answer, not the end
    # 16 MiB are read for the client's sake; the rest is what the system's buffers hold.
    assert sent < 1 << 27


def test_refusals_are_counted(guarded: Running, tokens: dict[str, str]) -> None:
    def counted() -> dict[str, float]:
        text = guarded.client.get("/metrics", headers=bearer(tokens["metrics"])).text
        found = [line.split() for line in text.splitlines() if line.startswith("endoclip_refusals")]
        return {name.split('"')[1]: float(value) for name, value in found if "_total{" in name}

    before = counted()
    guarded.client.get("/v1/models")
    guarded.client.get("/metrics", headers=bearer(tokens["score"]))
    after = counted()
    assert {code: after[code] - before[code] for code in after} == {
        "unauthenticated": 1,
        "forbidden": 1,
    }


def test_without_keys_a_browser_does_not_administer(server: Running) -> None:
    for headers in ({"Origin": "http://x"}, {"Sec-Fetch-Site": "cross-site"}):
        problem_of(server.client.post("/v1/admin/x", headers=headers), 403, "forbidden")
        assert server.client.get("/v1/models", headers=headers).status_code == 200
    problem_of(server.client.post("/v1/admin/x"), 404, "not_found")


# ---- rates ---------------------------------------------------------------------------------------


def test_key_over_its_rate_is_told_when_to_come_again(
    guarded: Running, tokens: dict[str, str], red: bytes
) -> None:
    headers = bearer(tokens["slow"])
    exam = {"patients": [patient(red, red, red)]}
    assert guarded.client.post("/v1/malignancy", json=exam, headers=headers).status_code == 200
    for sent in ({"json": exam}, as_form([red]), {"json": {"patients": 1}}):
        answer = guarded.client.post("/v1/malignancy", headers=headers, **sent)
        problem_of(answer, 429, "rate_limited")
        # Three frames of one in 20 s, the first of them free.
        assert 50 < int(answer.headers["retry-after"]) <= 60
    assert guarded.client.get("/v1/limits", headers=headers).status_code == 200
    free = bearer(tokens["score"])
    assert guarded.client.post("/v1/malignancy", json=exam, headers=free).status_code == 200


def test_bucket_lets_exactly_its_rate_through() -> None:
    now = 0.0
    rate = FrameRate(10.0, clock=lambda: now)
    sent = 0
    for _ in range(10_000):
        try:
            rate.charge(1)
            sent += 1
        except RateLimited:
            pass
        now += 0.01
    assert sent == pytest.approx(10.0 * 100.0 + 10.0, abs=1)


def test_bucket_takes_an_exam_whole_and_waits_for_it_afterwards() -> None:
    now = 0.0
    rate = FrameRate(10.0, clock=lambda: now)
    rate.charge(500)
    for at, wanted in ((0.0, 50), (49.0, 1), (49.05, 1)):
        now = at
        with pytest.raises(RateLimited) as error:
            rate.check()
        assert error.value.headers == {"Retry-After": str(wanted)}
    now = 49.2
    rate.charge(1)


def test_request_that_is_refused_otherwise_costs_no_frames(
    serve: Serve, red: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "keys.json"
    headers = bearer(add_key(path, frames_per_second=1.0))
    with serve(keys=path) as up:
        for _ in range(3):
            answer = up.client.post("/v1/malignancy", json={"patients": []}, headers=headers)
            problem_of(answer, 422, "invalid_request")
        document = {"patients": [patient(red)]}
        assert up.client.post("/v1/malignancy", json=document, headers=headers).status_code == 200


# ---- the file ------------------------------------------------------------------------------------


def test_file_holds_no_key(path: Path, tokens: dict[str, str]) -> None:
    text = path.read_text()
    for token in tokens.values():
        assert token not in text
        # A secret may hold underscores of its own, at its end as well.
        secret = token.split("_", 2)[2]
        assert len(secret) > 40
        assert secret[:10] not in text
        assert secret[-10:] not in text


def test_changed_file_is_taken_over_and_keys_that_stay_keep_their_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "keys.json"
    first = add_key(path, frames_per_second=0.01)
    ring = Keyring(path)
    ring.authenticate(f"Bearer {first}").rate.charge(1)
    second = add_key(path)
    with pytest.raises(Unauthenticated):
        ring.authenticate(f"Bearer {second}")  # not looked at again yet
    ring.look_again()
    ring.authenticate(f"Bearer {second}")
    with pytest.raises(RateLimited):
        ring.authenticate(f"Bearer {first}").rate.check()
    change_keys(path, lambda keys: [key for key in keys if key.id not in first])
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 1.1)
    with pytest.raises(Unauthenticated):
        ring.authenticate(f"Bearer {first}")


@pytest.mark.parametrize("after", ["", "{", '{"keys": [{}]}', None])
def test_file_that_cannot_be_read_changes_nothing_and_is_reported_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, after: str | None
) -> None:
    path = tmp_path / "keys.json"
    token = add_key(path)
    ring = Keyring(path)
    if after is None:
        path.unlink()
    else:
        path.write_text(after)
    for _ in range(3):
        ring.look_again()
    ring.authenticate(f"Bearer {token}")
    said = [record.getMessage() for record in caplog.records]
    reports = [line for line in said if "keys state=unreadable" in line]
    assert len(reports) == 1


def test_empty_file_of_keys_revokes_all(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    token = add_key(path)
    ring = Keyring(path)
    change_keys(path, lambda keys: [])
    ring.look_again()
    with pytest.raises(Unauthenticated):
        ring.authenticate(f"Bearer {token}")


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        ({"sha256": "secret"}, "keys/0/sha256"),
        ({"scopes": []}, "keys/0/scopes"),
        ({"scopes": ["root"]}, "keys/0/scopes/0"),
        ({"expires": "2026-01-01T00:00:00"}, "keys/0/expires"),
        ({"frames_per_second": 0}, "keys/0/frames_per_second"),
        ({"name": "Dr. Who\n"}, "keys/0/name"),
        ({"more": 1}, "keys/0/more"),
    ],
)
def test_wrong_file_is_refused_in_one_line_that_quotes_nothing(
    tmp_path: Path, edit: dict[str, object], said: str
) -> None:
    path = tmp_path / "keys.json"
    add_key(path)
    document = json.loads(path.read_text())
    document["keys"][0] |= edit
    path.write_text(json.dumps(document))
    with pytest.raises(SettingsInvalid) as error:
        read_keys(path)
    assert said in str(error.value)
    assert "\n" not in str(error.value)
    assert "secret" not in str(error.value)


def test_two_commands_at_once_do_not_lose_a_key(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    add_key(path)

    def meanwhile(keys: object) -> list[object]:
        with pytest.raises(SettingsInvalid, match="another command is writing"):
            add_key(path)
        return list(keys)  # type: ignore[call-overload, no-any-return]

    change_keys(path, meanwhile)  # type: ignore[arg-type]
    assert [file.name for file in tmp_path.iterdir()] == ["keys.json"]


def test_new_file_is_its_owners_alone_and_a_rewritten_one_stays_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    add_key(path)
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o640)
    add_key(path)
    assert path.stat().st_mode & 0o777 == 0o640
