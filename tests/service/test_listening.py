"""Where the service listens and over what: loopback without keys, TLS, client certificates."""

import json
import re
import signal
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.__main__ import main
from service.errors import SettingsInvalid
from service.keys import Scope, read_keys
from service.listening import listen, tls_context
from service.settings import Settings
from tests.service.conftest import Serve, command, image, refused
from tests.service.keys_file import add_key, bearer

PNG = {"Content-Type": "image/png"}


def openssl(*words: str, cwd: Path) -> None:
    subprocess.run(["openssl", *words], cwd=cwd, check=True, capture_output=True, timeout=60)


def issue(folder: Path, name: str, *, by: str | None = None) -> None:
    """Make `NAME.key` and `NAME.pem`, signed by an authority or by itself."""
    request = ["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    request += ["-keyout", f"{name}.key", "-subj", f"/CN={name}"]
    if by is None:
        openssl(*request, "-x509", "-days", "2", "-out", f"{name}.pem", cwd=folder)
        return
    openssl(*request, "-out", f"{name}.csr", cwd=folder)
    (folder / "ext").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
    sign = ["x509", "-req", "-in", f"{name}.csr", "-CA", f"{by}.pem", "-CAkey", f"{by}.key"]
    sign += ["-CAcreateserial", "-days", "2", "-extfile", "ext", "-out", f"{name}.pem"]
    openssl(*sign, cwd=folder)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certificates")
    for name, by in (("ca", None), ("server", "ca"), ("client", "ca"), ("stranger", None)):
        issue(folder, name, by=by)
    return folder


def trusting(certificates: Path, client: str | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(certificates / "ca.pem"))
    if client:
        context.load_cert_chain(certificates / f"{client}.pem", certificates / f"{client}.key")
    return context


# ---- loopback ------------------------------------------------------------------------------------


def test_beyond_loopback_without_keys_is_refused_with_what_to_do() -> None:
    with pytest.raises(SettingsInvalid) as error:
        listen(Settings(port=0, host="0.0.0.0"))
    assert "expected a keys file to listen on 0.0.0.0" in str(error.value)
    assert "ENDOCLIP_ALLOW_NO_KEYS=true" in str(error.value)


def test_beyond_loopback_with_keys_or_by_name(tmp_path: Path) -> None:
    for more in ({"keys": tmp_path / "keys.json"}, {"allow_no_keys": True}):
        with listen(Settings(port=0, host="0.0.0.0", **more)) as listener:
            assert listener.getsockname()[0] == "0.0.0.0"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "localhost"])
def test_loopback_needs_no_keys(host: str) -> None:
    with listen(Settings(port=0, host=host)) as listener:
        assert listener.getsockname()[0].startswith("127.")


def test_a_start_that_is_refused_is_one_line_and_exit_code_2(bundle: Path) -> None:
    assert "expected a keys file" in refused(bundle=bundle, port=0, host="0.0.0.0")


def test_sighup_takes_over_keys_and_certificate_at_once(
    bundle: Path, certificates: Path, tmp_path: Path
) -> None:
    def put(name: str) -> None:
        for kind in ("pem", "key"):
            (tmp_path / f"own.{kind}").write_bytes((certificates / f"{name}.{kind}").read_bytes())

    told: list[dict[str, Any]] = []

    def tells() -> str:
        told.append(json.loads(process.stderr.readline()))  # type: ignore[union-attr]
        return str(told[-1]["event"])

    def again() -> str:
        process.send_signal(signal.SIGHUP)
        while tells() != "certificate":  # the last thing that it reads again
            pass
        return ssl.get_server_certificate(address)

    put("server")
    keys = tmp_path / "keys.json"
    add_key(keys, Scope.METRICS)
    files = {"tls_cert": tmp_path / "own.pem", "tls_key": tmp_path / "own.key", "keys": keys}
    with subprocess.Popen(**command(bundle=bundle, port=0, **files)) as process:  # type: ignore[call-overload]
        line = process.stdout.readline()
        assert "keys=on" in line
        address = ("127.0.0.1", int(re.search(r"https://127\.0\.0\.1:(\d+)", line)[1]))  # type: ignore[index]
        url = f"https://127.0.0.1:{address[1]}"
        with httpx.Client(base_url=url, verify=trusting(certificates), timeout=60) as client:
            assert client.get("/readyz").status_code == 200
            before, token = ssl.get_server_certificate(address), add_key(keys)
            put("client")
            renewed = again()
            assert client.get("/v1/models", headers=bearer(token)).status_code == 200
        (tmp_path / "own.key").write_text("")
        assert again() == renewed != before
        process.terminate()
        process.wait(60)
        told += [json.loads(line) for line in process.stderr]  # type: ignore[union-attr]
    assert process.returncode == 0
    assert {"keys", "certificate"} <= {one["event"] for one in told}
    states = [one["state"] for one in told if one["event"] == "certificate"]
    assert states == ["read", "unusable"]
    assert next(one["in_force"] for one in told if one["event"] == "keys") == 2
    assert token not in json.dumps(told)


# ---- TLS -----------------------------------------------------------------------------------------


def test_tls_is_spoken_and_nothing_else(serve: Serve, certificates: Path, red: bytes) -> None:
    files = {"tls_cert": certificates / "server.pem", "tls_key": certificates / "server.key"}
    with serve(**files) as up:
        url = f"https://127.0.0.1:{up.port}"
        with httpx.Client(base_url=url, verify=trusting(certificates), timeout=30) as client:
            assert client.get("/readyz").json() == {"status": "ready"}
            answer = client.post("/v1/malignancy", content=red, headers=PNG)
            assert answer.json()["patients"][0]["decision"] == "positive"
        with pytest.raises(httpx.HTTPError):
            up.client.get("/healthz")  # plain HTTP
    context = tls_context(Settings(**files))
    assert context is not None
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2


@pytest.fixture(scope="module")
def mutual(serve: Serve, certificates: Path) -> Iterator[str]:
    files = {"tls_cert": certificates / "server.pem", "tls_key": certificates / "server.key"}
    with serve(**files, tls_client_ca=certificates / "ca.pem") as up:
        yield f"https://127.0.0.1:{up.port}"


def test_client_certificate_of_the_authority_is_let_in(mutual: str, certificates: Path) -> None:
    with httpx.Client(base_url=mutual, verify=trusting(certificates, "client")) as client:
        assert client.get("/readyz").status_code == 200


@pytest.mark.parametrize("who", [None, "stranger"])
def test_client_without_a_certificate_of_the_authority_is_not(
    mutual: str, certificates: Path, who: str | None
) -> None:
    with (
        httpx.Client(base_url=mutual, verify=trusting(certificates, who)) as client,
        pytest.raises(httpx.HTTPError),
    ):
        client.get("/healthz")


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"tls_cert": "server.pem"}, "need one another"),
        ({"tls_key": "server.key"}, "need one another"),
        ({"tls_client_ca": "ca.pem"}, "needs ENDOCLIP_TLS_CERT"),
        ({"tls_cert": "none.pem", "tls_key": "server.key"}, "No such file"),
        ({"tls_cert": "server.pem", "tls_key": "client.key"}, "mismatch"),
        ({"tls_cert": "server.key", "tls_key": "server.key"}, "ENDOCLIP_TLS_CERT"),
        ({"tls_cert": "server.pem", "tls_key": "sealed.key"}, "ENDOCLIP_TLS_KEY"),
    ],
)
def test_wrong_tls_settings_are_refused_in_one_line(
    certificates: Path, files: dict[str, str], said: str
) -> None:
    seal = ["ec", "-aes256", "-passout", "pass:x", "-in", "server.key", "-out", "sealed.key"]
    openssl(*seal, cwd=certificates)
    with pytest.raises(SettingsInvalid) as error:
        tls_context(Settings(**{name: certificates / file for name, file in files.items()}))
    assert said in str(error.value)
    assert "\n" not in str(error.value)


# ---- the command ---------------------------------------------------------------------------------


def test_command_makes_lists_and_revokes_a_key(
    serve: Serve, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "keys.json"
    asked = ["--name", "pacs-1", "--scope", "score", "--scope", "metrics"]
    asked += ["--expires-days", "30", "--frames-per-second", "25"]
    assert main(["keys", "add", "--file", str(path), *asked]) == 0
    token = capsys.readouterr().out.strip()
    (key,) = read_keys(path)
    assert (key.name, key.frames_per_second) == ("pacs-1", 25.0)
    assert set(key.scopes) == {Scope.SCORE, Scope.METRICS}
    with serve(keys=path) as up:
        for where in ("/v1/models", "/metrics"):
            assert up.client.get(where, headers=bearer(token)).status_code == 200
        headers = {**bearer(token), **PNG}
        assert up.client.post("/v1/malignancy", content=image(), headers=headers).is_success
    assert main(["keys", "list", "--file", str(path)]) == 0
    listed = capsys.readouterr().out
    assert listed.splitlines()[1].split()[:4] == [key.id, "pacs-1", "metrics,score", "25"]
    assert token not in listed
    assert main(["keys", "revoke", "--file", str(path), key.id]) == 0
    assert read_keys(path) == ()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["add", "--name", "a", "--scope", "score"], "expected --file or ENDOCLIP_KEYS"),
        (["add", "--file", "{}", "--name", "a b", "--scope", "score"], "name: "),
        (["add", "--file", "{}", "--name", "a", "--scope", "score", "--expires-days=-1"], "days"),
        (["revoke", "--file", "{}", "00000000"], "expected the id of a key"),
        (["list", "--file", "{}"], "No such file"),
    ],
)
def test_command_says_what_is_wrong_in_one_line(
    tmp_path: Path,
    words: list[str],
    said: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("ENDOCLIP_KEYS", raising=False)
    path = tmp_path / "keys.json"
    assert main(["keys", *(word.replace("{}", str(path)) for word in words)]) == 2
    output = capsys.readouterr()
    assert said in output.err
    assert (output.out, output.err.count("\n")) == ("", 1)
    assert not list(tmp_path.iterdir())
