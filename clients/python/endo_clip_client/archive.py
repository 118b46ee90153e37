"""A study's way from a DICOMweb archive (PACS) to the service, and the report's way back.

QIDO-RS says which images the study has, WADO-RS gives them as they are stored, the service answers
with a structured report of the same study, STOW-RS stores it. The report's UID follows from images
and model, so doing it again stores no second one. The files go to the service as they are stored.
"""

import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from endo_clip_client.errors import ArchiveFailed

__all__ = ["Archive", "Instance"]

_UID = re.compile(r"[0-9]+(\.[0-9]+)*")
_IMAGES = (
    *(f"1.2.840.10008.5.1.4.1.1.77.1.{n}" for n in ("1", "1.1", "4", "4.1")),
    *(f"1.2.840.10008.5.1.4.1.1.7{n}" for n in ("", ".1", ".2", ".3", ".4")),
)
_DICOM = 'multipart/related; type="application/dicom"'


@dataclass(frozen=True, slots=True)
class Instance:
    """An object of a study: its UIDs, and its numbers in the study."""

    series: str
    uid: str
    sop_class: str
    order: tuple[int, int]


class Archive:
    """Speaks DICOMweb. Use it as a context manager."""

    def __init__(
        self, url: str, *, auth: tuple[str, str] | None = None, timeout_s: float = 60.0
    ) -> None:
        """Prepare to ask.

        Args:
            url: of the DICOMweb services, such as http://localhost:8042/dicom-web.
            auth: user and password, where the archive wants them.
            timeout_s: for each answer.
        """
        self._http = httpx.Client(base_url=url.rstrip("/"), auth=auth, timeout=timeout_s)

    def images(self, study: str) -> list[Instance]:
        """Find the images of a study that the service reads, in order of series and number.

        Raises:
            ArchiveFailed: it cannot be asked, or there is none.
        """
        found = [one for one in self.instances(study) if one.sop_class in _IMAGES]
        if not found:
            raise ArchiveFailed(
                f"study {study}: expected endoscopic, photographic or secondary capture images; "
                "found none\nWhat to do: check the Study Instance UID"
            )
        return sorted(found, key=lambda one: one.order)

    def instances(self, study: str) -> list[Instance]:
        """List all objects of a study (QIDO-RS).

        Raises:
            ArchiveFailed: it cannot be asked.
        """
        fields = {"includefield": ["00080016", "00200011", "00200013"]}
        answer = self._ask(
            "GET",
            f"/studies/{_checked(study)}/instances",
            params=fields,
            headers={"Accept": "application/dicom+json"},
        )
        if answer.status_code == 204 or not answer.content:
            return []
        try:
            return [_instance(one) for one in answer.json()]
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise ArchiveFailed(
                "expected DICOM JSON of QIDO-RS\nWhat to do: check the URL of the archive; with "
                "Orthanc it ends in /dicom-web"
            ) from error

    def fetch(self, study: str, instance: Instance) -> bytes:
        """Give an object as it is stored (WADO-RS).

        Raises:
            ArchiveFailed: it cannot be had.
        """
        path = f"/studies/{_checked(study)}/series/{_checked(instance.series)}"
        answer = self._ask(
            "GET",
            f"{path}/instances/{_checked(instance.uid)}",
            headers={"Accept": f"{_DICOM}; transfer-syntax=*"},
        )
        return _first_part(answer)

    def store(self, study: str, files: Sequence[bytes]) -> None:
        """Store objects into a study (STOW-RS).

        Raises:
            ArchiveFailed: not all of them were taken.
        """
        boundary = secrets.token_hex(16)
        head = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
        body = b"".join(head + file + b"\r\n" for file in files) + f"--{boundary}--\r\n".encode()
        answer = self._ask(
            "POST",
            f"/studies/{_checked(study)}",
            content=body,
            headers={
                "Content-Type": f"{_DICOM}; boundary={boundary}",
                "Accept": "application/dicom+json",
            },
        )
        if answer.status_code != 200:  # 202: some were refused
            raise ArchiveFailed(f"the archive took only a part ({answer.status_code})")

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> "Archive":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        place = str(self._http.base_url)
        try:
            answer = self._http.request(method, path, **options)
        except httpx.TransportError as error:
            raise ArchiveFailed(
                f"{place} cannot be reached ({type(error).__name__})\nWhat to do: check the "
                "archive's URL, and that DICOMweb is enabled there"
            ) from error
        if answer.status_code >= 300:
            raise ArchiveFailed(
                f"{place} answers {answer.status_code} to {method} {path}\nWhat to do: "
                + _ADVICE.get(answer.status_code, "look into the archive's log")
            )
        return answer


_ADVICE = {
    401: "give user and password: ENDO_CLIP_ARCHIVE_AUTH=user:password",
    403: "let this user read and store by DICOMweb",
    404: "check the Study Instance UID, and the archive's URL (Orthanc: …/dicom-web)",
}


def _checked(uid: str) -> str:
    if len(uid) > 64 or not _UID.fullmatch(uid):
        raise ArchiveFailed("expected a UID of digits and dots, 64 at most; found another text")
    return uid


def _instance(document: dict[str, Any]) -> Instance:
    def value(tag: str, default: Any) -> Any:
        return (document.get(tag, {}).get("Value") or [default])[0]

    return Instance(
        series=document["0020000E"]["Value"][0],
        uid=document["00080018"]["Value"][0],
        sop_class=str(value("00080016", "")),
        order=(int(value("00200011", 0)), int(value("00200013", 0))),
    )


def _first_part(answer: httpx.Response) -> bytes:
    """Take the one object out of a multipart answer."""
    found = re.search(r'boundary="?([^";]+)"?', answer.headers.get("content-type", ""))
    body = answer.content
    if found:
        mark = b"--" + found.group(1).encode()
        start = body.find(b"\r\n\r\n", body.find(mark))
        end = body.find(b"\r\n" + mark, start)
        if 0 <= start < end:
            return body[start + 4 : end]
    raise ArchiveFailed("expected a multipart answer of WADO-RS; found another")
