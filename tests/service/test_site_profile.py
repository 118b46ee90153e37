"""A service with a site profile: local answers that name it, and no start with a wrong one."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from model_store.adapters import LinearAdapter
from model_store.bundle import Bundle
from model_store.profile import SiteProfile, read_profile, write_profile
from service.answers import ModelDetail, NamedTaskAnswer
from tests.service.conftest import Running, Serve, as_form, refused
from tests.tiny_profile import tiny_profile


@pytest.fixture(scope="module")
def written(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("site") / "site-profile.json"
    adapter = LinearAdapter((0.0, 0.0, 0.0, 0.0), 4.0)
    path.write_bytes(write_profile(tiny_profile(Bundle.open(bundle), adapter)))
    return path


@pytest.fixture(scope="module")
def local(serve: Serve, written: Path) -> Iterator[Running]:
    with serve(site_profile=written) as up:
        yield up


@pytest.fixture(scope="module")
def profile(written: Path) -> SiteProfile:
    return read_profile(written.read_bytes())


def test_an_answer_that_used_it_names_it_and_is_local(
    local: Running, server: Running, profile: SiteProfile, pink: bytes, red: bytes
) -> None:
    sent = as_form([pink, red], {"operating_point": "balanced"})
    plain = server.client.post("/v1/polyp-detection", **sent).json()
    answer = local.client.post("/v1/polyp-detection", **sent).json()
    NamedTaskAnswer.model_validate(answer)
    assert answer["site_profile"] == {
        "site": "site-1",
        "digest": profile.digest,
        "adapter": "linear",
    }
    assert answer["operating_point"]["frame_threshold"] == 0.3
    assert answer["operating_point"]["frame_abstain"] == [0.25, 0.35]
    first, was = answer["patients"][0], plain["patients"][0]
    assert first["probability"] != was["probability"]
    assert [f["cosine"] for f in first["frames"]] == [f["cosine"] for f in was["frames"]]
    assert "site_profile" not in plain


def test_one_frame_is_decided_alike_alone_and_as_a_patient(local: Running, pink: bytes) -> None:
    patient = local.client.post("/v1/polyp-detection", **as_form([pink])).json()["patients"][0]
    assert patient["probability"] == patient["frames"][0]["probability"]
    assert patient["decision"] == patient["frames"][0]["decision"]


def test_answers_that_did_not_use_it_do_not_name_it(
    local: Running, server: Running, red: bytes
) -> None:
    asked = {
        "/v1/malignancy": {},
        "/v1/zero-shot": {"labels": "polyp_detection"},
        "/v1/embeddings": {},
    }
    for path, options in asked.items():
        answers = [up.client.post(path, **as_form([red], options)).json() for up in (local, server)]
        assert "site_profile" not in answers[0]
        assert answers[0]["patients"] == answers[1]["patients"]


def test_the_model_says_what_is_in_force(local: Running, profile: SiteProfile) -> None:
    detail = local.client.get("/v1/models/tiny").json()
    ModelDetail.model_validate(detail)
    told = detail["site_profile"]
    assert (told["site"], told["digest"]) == ("site-1", profile.digest)
    assert told["tasks"]["polyp_detection"]["labels"]["patients"] == 30
    points = detail["operating_points"]
    assert points["polyp_detection"]["balanced"]["frame_threshold"] == 0.3
    assert points["malignancy"]["balanced"]["frame_threshold"] == 0.5


def test_the_self_test_is_the_bundles_own(local: Running) -> None:
    assert local.client.get("/readyz").status_code == 200


def test_openapi_documents_the_member(local: Running) -> None:
    schemas = local.client.get("/openapi.json").json()["components"]["schemas"]
    assert "site_profile" in schemas["NamedTaskAnswer"]["properties"]
    assert "site_profile" not in schemas["NamedTaskAnswer"]["required"]
    assert set(schemas["SiteProfileUsed"]["required"]) == {"site", "digest", "adapter"}


def test_a_profile_of_another_bundle_stops_the_start(
    bundle: Path, profile: SiteProfile, tmp_path: Path
) -> None:
    other = tmp_path / "site-profile.json"
    ref = replace(profile.bundle, digest="sha256:other")
    other.write_bytes(write_profile(replace(profile, bundle=ref)))
    line = refused(bundle=bundle, port=0, site_profile=other)
    assert "site profile site-1" in line
    assert "sha256:other" in line


@pytest.mark.parametrize(("content", "said"), [(None, "ENDOCLIP_SITE_PROFILE"), (b"{", "JSON")])
def test_a_profile_that_cannot_be_read_stops_the_start(
    bundle: Path, tmp_path: Path, content: bytes | None, said: str
) -> None:
    path = tmp_path / "site-profile.json"
    if content is not None:
        path.write_bytes(content)
    assert said in refused(bundle=bundle, port=0, site_profile=path)
