"""The service as the Deployment starts it: what probes, Prometheus and a changed Secret meet."""

import re
import signal
import subprocess
from pathlib import Path

import httpx

from service.guard import OPEN_PATHS
from service.keys import Scope
from tests.service.conftest import command, problem_of
from tests.service.keys_file import add_key, bearer
from tests.service.manifests import CONTAINER, DEPLOYMENT, MONITOR, POD, environment_of
from tests.waiting import wait_until


def mounted(folder: Path, revision: str, scope: Scope) -> str:
    """Add a key to a revision of the Secret and mount that as the kubelet does, by one rename."""
    (folder / revision).mkdir(exist_ok=True)
    token = add_key(folder / revision / "keys.json", scope)
    (folder / "..data_tmp").symlink_to(revision)
    (folder / "..data_tmp").replace(folder / "..data")
    if not (folder / "keys.json").exists():
        (folder / "keys.json").symlink_to("..data/keys.json")
    return token


def test_service_answers_probes_and_scraping_as_the_manifests_ask(
    bundle: Path, tmp_path: Path
) -> None:
    keys = tmp_path / "keys.json"
    metrics, score = (mounted(tmp_path, "1", scope) for scope in (Scope.METRICS, Scope.SCORE))
    own = {"host": "127.0.0.1", "port": 0, "bundle": bundle, "encode_threads": 1}
    given = command(**own)
    # An account without a home on a root that cannot be written.
    settings = environment_of(DEPLOYMENT) | {"ENDOCLIP_KEYS": str(keys), "HOME": "/dev/null"}
    given["env"] = {**given["env"], **settings, "XDG_STATE_HOME": ""}  # type: ignore[dict-item]
    with subprocess.Popen(**given) as process:  # type: ignore[call-overload]
        try:
            url = re.search(r"http://127\.0\.0\.1:\d+", process.stdout.readline())[0]  # type: ignore[index]
            with httpx.Client(base_url=url, timeout=60) as client:
                for probe in ("startup", "readiness", "liveness"):
                    path = CONTAINER[f"{probe}Probe"]["httpGet"]["path"]
                    assert client.get(path).status_code == 200
                    assert path in OPEN_PATHS
                scraped = MONITOR["spec"]["podMetricsEndpoints"][0]["path"]
                assert client.get(scraped).status_code == 401
                assert client.get(scraped, headers=bearer(score)).status_code == 403
                answer = client.get(scraped, headers=bearer(metrics))
                assert "endoclip_ready 1.0" in answer.text
                exam = client.post("/v1/exams", json={}, headers=bearer(score))
                problem = problem_of(exam, 503, "not_ready")
                assert problem["reason"] == "exam_store"
                new = mounted(tmp_path, "2", Scope.SCORE)
                wait_until(lambda: client.get("/v1/models", headers=bearer(new)).status_code == 200)
                assert client.get("/v1/models", headers=bearer(score)).status_code == 401
            process.send_signal(signal.SIGTERM)
            _, log = process.communicate(timeout=POD["terminationGracePeriodSeconds"])
            assert process.returncode == 0, log
        finally:
            process.kill()
