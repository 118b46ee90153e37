"""A study's round trip through a real Orthanc: stored, fetched, scored, reported, found again."""

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import httpx
import pydicom
import pytest
from endo_clip_client import Archive, ArchiveFailed, Client

from tests.clients.test_command import run
from tests.dicom_files import VIDEO_ENDOSCOPIC, jpegs, native
from tests.service.conftest import BLACK, PINK, RED, Running, Serve

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
STUDY = "1.2.840.99999.7"
SERIES = {"StudyInstanceUID": STUDY, "SeriesInstanceUID": f"{STUDY}.1"}
COMPREHENSIVE_SR = "1.2.840.10008.5.1.4.1.1.88.33"


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An empty archive; gives the URL of its DICOMweb services."""
    program = shutil.which("Orthanc")
    if program is None or not PLUGIN.exists():
        pytest.skip("Orthanc is not installed (Debian packages orthanc and orthanc-dicomweb)")
    folder = tmp_path_factory.mktemp("orthanc")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    settings = {
        "Name": "tests",
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "HttpPort": port,
        "DicomServerEnabled": False,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "Plugins": [str(PLUGIN)],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }
    (folder / "orthanc.json").write_text(json.dumps(settings))
    log = (folder / "log").open("wb")
    with log, subprocess.Popen([program, folder / "orthanc.json"], stdout=log, stderr=log) as up:
        try:
            _wait_for(f"http://127.0.0.1:{port}/system", up)
            yield f"http://127.0.0.1:{port}/dicom-web"
        finally:
            up.terminate()


def _wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 120
    while time.monotonic() < until:
        assert process.poll() is None, "Orthanc has ended"
        try:
            if httpx.get(url).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.1)
    raise AssertionError("Orthanc does not answer")


@pytest.fixture(scope="module")
def up(serve: Serve) -> Iterator[Running]:
    with serve() as running:
        yield running


def test_study_is_scored_and_its_report_found_in_it(orthanc: str, up: Running) -> None:
    film = jpegs(RED, PINK, InstanceNumber=4, SOPClassUID=VIDEO_ENDOSCOPIC, **SERIES)
    stills = [native(RED, InstanceNumber=3, **SERIES), native(PINK, InstanceNumber=2, **SERIES)]
    dark = native(BLACK, InstanceNumber=10, **SERIES)
    with Archive(orthanc) as archive:
        archive.store(STUDY, [dark, film, *stills])
        images = archive.images(STUDY)
        assert [one.order[1] for one in images] == [2, 3, 4, 10]

        url = f"http://127.0.0.1:{up.port}"
        for _ in range(2):  # the second report is the first one again
            done = run("study", STUDY, "--archive", orthanc, "--url", url)
            assert done.returncode == 0, done.stderr
            assert "4 images scored" in done.stdout
        reports = [one for one in archive.instances(STUDY) if one.sop_class == COMPREHENSIVE_SR]
        assert len(reports) == 1
        assert len(archive.images(STUDY)) == 4
        stored = pydicom.dcmread(BytesIO(archive.fetch(STUDY, reports[0])))
    source = pydicom.dcmread(BytesIO(film), stop_before_pixels=True)
    assert stored.StudyInstanceUID == STUDY
    assert (stored.PatientID, stored.PatientName) == (source.PatientID, source.PatientName)
    series = stored.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
    named = {one.ReferencedSOPInstanceUID for s in series for one in s.ReferencedSOPSequence}
    assert named == {one.uid for one in images}


def test_report_is_that_of_the_stored_files(orthanc: str, up: Running, tmp_path: Path) -> None:
    study = f"{STUDY}9"
    told = {"StudyInstanceUID": study, "SeriesInstanceUID": f"{study}.1"}
    files = [native(RED, **told), native(PINK, **told)]
    with Archive(orthanc) as archive:
        archive.store(study, files)
        fetched = [archive.fetch(study, one) for one in archive.images(study)]
    with Client(f"http://127.0.0.1:{up.port}") as client:
        direct = client.polyp_detection(fetched).patient
        bundle = json.loads(client.report("polyp-detection", fetched, "fhir"))
        assert bundle["resourceType"] == "Bundle"
        assert direct.decision == "positive"
        with pytest.raises(ValueError, match="expected one of json, dicom, fhir"):
            client.report("malignancy", fetched, "hl7")
    out = tmp_path / "report.dcm"
    url = f"http://127.0.0.1:{up.port}"
    done = run("study", study, "--archive", orthanc, "--url", url, "--out", out)
    assert done.returncode == 0, done.stderr
    assert pydicom.dcmread(out).StudyInstanceUID == study
    with Archive(orthanc) as archive:
        assert len(archive.instances(study)) == 2


def test_what_an_archive_cannot_do_is_said(orthanc: str, up: Running) -> None:
    with Archive(orthanc) as archive:
        with pytest.raises(ArchiveFailed, match="found none"):
            archive.images("1.2.3.99")
        with pytest.raises(ArchiveFailed, match="digits and dots"):
            archive.images("1.2/../../system")
        with pytest.raises(ArchiveFailed):
            archive.store("1.2.3.98", [b"no DICOM"])
    elsewhere = Archive(orthanc.replace("dicom-web", "elsewhere"))
    with elsewhere, pytest.raises(ArchiveFailed, match=r"404.*\n.*dicom-web"):
        elsewhere.images(STUDY)
    done = run("study", "1.2.3", "--archive", "http://127.0.0.1:1/dicom-web")
    assert done.returncode == 2
    assert "cannot be reached" in done.stderr
