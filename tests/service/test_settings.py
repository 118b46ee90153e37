"""Settings: what is wrong is said in one line that names the variable and the rule."""

import json
from pathlib import Path
from typing import Any

import pytest

from model_store.errors import BundleNotFound
from service.errors import SettingsInvalid
from service.settings import FULL_FRAME, Settings, newest_bundle, read_devices, read_settings


def test_defaults_are_those_of_the_contract() -> None:
    settings = read_settings({})
    assert (settings.host, settings.port) == ("127.0.0.1", 8000)
    assert settings.max_body_bytes == 256 * 1024 * 1024
    assert (settings.max_frames, settings.max_patients) == (512, 64)


def test_environment_sets_them_and_an_empty_variable_counts_as_unset(tmp_path: Path) -> None:
    settings = read_settings(
        {
            "ENDOCLIP_PORT": "9001",
            "ENDOCLIP_HOST": "",
            "ENDOCLIP_BUNDLE": str(tmp_path),
            "ENDOCLIP_ENCODE_THREADS": "3",
            "PORT": "1",
        }
    )
    assert settings == Settings(port=9001, bundle=tmp_path, encode_threads=3)


def test_only_the_given_variables_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENDOCLIP_HOST", "")
    monkeypatch.setenv("ENDOCLIP_PORT", "1")
    assert read_settings({"ENDOCLIP_HOST": ""}) == read_settings({}) == Settings()
    assert (Settings().host, Settings().port) == ("127.0.0.1", 8000)


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"ENDOCLIP_PROT": "1"}, ["ENDOCLIP_PROT is not a setting"]),
        ({"endoclip_port": "1"}, ["endoclip_port is not a setting"]),
        ({"ENDOCLIP_PORT": "abc"}, ["ENDOCLIP_PORT", "'abc'"]),
        ({"ENDOCLIP_PORT": "70000"}, ["ENDOCLIP_PORT", "65535"]),
        ({"ENDOCLIP_PROVIDER": "TPU"}, ["ENDOCLIP_PROVIDER", "CUDAExecutionProvider"]),
        ({"ENDOCLIP_MAX_FRAME_PIXELS": "178956971"}, ["MAX_FRAME_PIXELS", "178956970"]),
        ({"ENDOCLIP_MAX_FRAMES": "0", "ENDOCLIP_X": "1"}, ["ENDOCLIP_MAX_FRAMES", "ENDOCLIP_X"]),
    ],
)
def test_wrong_variables_are_named_in_one_line(variables: dict[str, str], said: list[str]) -> None:
    with pytest.raises(SettingsInvalid) as refused:
        read_settings(variables)
    assert all(word in str(refused.value) for word in said)
    assert "\n" not in str(refused.value)


def test_every_setting_says_what_it_does() -> None:
    assert all(field.description for field in Settings.model_fields.values())


def test_newest_bundle_is_the_one_created_last(tmp_path: Path) -> None:
    for name, created in (("a", "2025-03-01T00:00:00Z"), ("b", "2025-01-01T00:00:00Z")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "manifest.json").write_text(json.dumps({"created": created}))
    (tmp_path / "c").mkdir()
    assert newest_bundle(tmp_path).name == "a"
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "manifest.json").write_text("not JSON")
    assert newest_bundle(tmp_path).name == "a"


def test_no_bundle_at_all_is_said(tmp_path: Path) -> None:
    with pytest.raises(BundleNotFound):
        newest_bundle(tmp_path)


def test_devices_are_read_after_the_built_in_one(tmp_path: Path) -> None:
    path = tmp_path / "devices.json"
    path.write_text('{"scope.1": [0, 0.1, 0.9, 1]}')
    assert read_devices(None) == {"full_frame": FULL_FRAME}
    assert list(read_devices(path).items()) == [
        ("full_frame", FULL_FRAME),
        ("scope.1", (0.0, 0.1, 0.9, 1.0)),
    ]


@pytest.mark.parametrize(
    "table",
    [
        [],
        {"a": [0, 0, 1]},
        {"a": [0.5, 0, 0.5, 1]},
        {"a": [0, 0, 1.1, 1]},
        {"a": [True, 0, 1, 1]},
        {"a": ["0", 0, 1, 1]},
        {"a": None},
        {"a b": [0, 0, 1, 1]},
        {"": [0, 0, 1, 1]},
        {"full_frame": [0, 0, 1, 1]},
        {"a": [float("nan"), 0, 1, 1]},
    ],
)
def test_wrong_devices_are_refused(tmp_path: Path, table: Any) -> None:
    path = tmp_path / "devices.json"
    path.write_text(json.dumps(table))
    with pytest.raises(SettingsInvalid, match="ENDOCLIP_DEVICES"):
        read_devices(path)


@pytest.mark.parametrize("text", [None, "", "{", "[" * 100_000])
def test_unreadable_devices_are_refused(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "devices.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(SettingsInvalid, match="ENDOCLIP_DEVICES"):
        read_devices(path)
