"""Read the reports of an archive into a ledger, by the rules or by a language model.

Each report is read once, however many records share it; what the ledger holds of a report is not
asked again, and a model is not asked about a report that names no polyp: training takes no lesion
from it, whoever read it. A model's answer that fails is replaced by the rules and marked
(``fallback``), so that one bad answer costs one report; an endpoint that stops answering stops the
run, so that it cannot turn a ledger of a model's into one of the rules'.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from training.attributes import polyp_mentioned, strip_pathology
from training.errors import EndpointError
from training.extract.answer import AnswerRefused, checked, rules_lesions
from training.extract.endpoint import Endpoint, NoAnswer
from training.extract.ledger import BY_LLM, BY_RULES, Entry, Extractor, Ledger, report_digest
from training.extract.prompt import clean, prompt_name
from training.opinions import readable

__all__ = ["FALLBACKS", "Asking", "extract_reports", "read_one", "summary"]

FALLBACKS = ("rules", "leave")
MAX_CHARS = 24_000
"""Longest text that is sent: about 6,000 tokens. Reports have 200 to 3,000 characters."""
_RULES_BATCH = 256  # entries a sync: the rules read faster than a disk confirms


@dataclass(frozen=True)
class Asking:
    """How a model is asked.

    Attributes:
        endpoint: The model.
        concurrency: Questions under way at once.
        fallback: ``rules`` replaces an answer that fails, ``leave`` leaves its record out of the
            ledger, to be asked again by the next run.
    """

    endpoint: Endpoint
    concurrency: int = 4
    fallback: str = "rules"


def extract_reports(
    reports: Mapping[str, str], path: Path, asking: Asking | None = None
) -> dict[str, Entry]:
    """Read reports into a ledger; a ledger that was begun goes on.

    Args:
        reports: Report by record id.
        path: The ledger.
        asking: The model; None reads by the rules.

    Returns:
        Entry by record id; with the fallback ``leave``, without records whose answer failed.

    Raises:
        EndpointError: The endpoint cannot be used or stopped answering; what was read is kept.
        StaleInput: The ledger was begun by another extractor, or is being written.
        RecordError: The ledger is damaged.
    """
    extractor = Extractor()
    if asking is not None:
        extractor = Extractor(asking.endpoint.model, prompt_name())
    with Ledger(path, extractor) as ledger, _bar() as progress:
        bar = progress.add_task("reports", total=len(reports))

        def write(entries: list[Entry]) -> None:
            ledger.append(entries)
            progress.update(bar, advance=len(entries))

        pending = _pending(reports, ledger, write)
        progress.update(bar, completed=len(reports) - sum(map(len, pending.values())))
        if asking is not None and pending:
            asyncio.run(_ask_all(pending, reports, asking, write))
        elif pending:
            _read_all(pending, reports, write)
        return {name: ledger.entries[name] for name in reports if name in ledger.entries}


async def read_one(report: str, asking: Asking) -> Entry | None:
    """Ask for one report and check the answer.

    Returns:
        An entry without a record's id; None where the answer failed and the fallback is to leave.

    Raises:
        EndpointError: The endpoint stopped answering.
    """
    text, digest = clean(readable(report)), report_digest(report)
    if not re.search(r"\w", text):
        return Entry("", digest, (), BY_RULES, "nothing to read")
    if len(text) > MAX_CHARS:
        reason = f"longer than {MAX_CHARS} characters"
        return Entry("", digest, rules_lesions(report, reason), BY_RULES, reason)
    tokens = (0, 0)
    try:
        reply = await asking.endpoint.ask(text)
        tokens = reply.tokens
        return Entry("", digest, checked(reply.content, report, text), BY_LLM, "", tokens)
    except (AnswerRefused, NoAnswer) as error:
        tokens = error.tokens if isinstance(error, NoAnswer) else tokens
        if asking.fallback == "leave":
            return None
        reason = str(error)
        return Entry("", digest, rules_lesions(report, reason), BY_RULES, reason, tokens)


def summary(entries: Mapping[str, Entry], prices: tuple[float, float] | None = None) -> str:
    """Say what a ledger holds: reports, lesions, why the rules read, tokens and their cost.

    Args:
        entries: By record id.
        prices: Of a million tokens of question and of answer, in any currency.
    """
    lesions = [lesion for entry in entries.values() for lesion in entry.lesions]
    asked, answered = (sum(e.tokens[k] for e in entries.values()) for k in (0, 1))
    lines = [f"{len(entries)} reports, {len(lesions)} lesions"]
    if any(entry.by == BY_LLM or entry.reason for entry in entries.values()):
        by_model = sum(lesion.by == BY_LLM for lesion in lesions)
        lines.append(f"read by the model: {by_model} lesions; by the rules instead:")
        whole = Counter(e.reason for e in entries.values() if e.reason)
        single = Counter(
            lesion.reason for e in entries.values() if not e.reason for lesion in e.lesions
        )
        single.pop("", None)
        lines += [f"  {n:6d} reports: {reason}" for reason, n in whole.most_common()]
        lines += [f"  {n:6d} lesions: {reason}" for reason, n in single.most_common()]
    if asked or answered:
        lines.append(f"tokens: {asked:,} asked, {answered:,} answered")
    if prices is not None:
        cost = (asked * prices[0] + answered * prices[1]) / 1e6
        lines.append(f"cost: {cost:.4f}")
    return "\n".join(lines)


def _pending(
    reports: Mapping[str, str], ledger: Ledger, write: Callable[[list[Entry]], None]
) -> dict[str, list[str]]:
    """Record ids by digest of a report that nobody has read yet; known reports are written."""
    known = {entry.report: entry for entry in ledger.entries.values()}
    copies, pending = [], defaultdict(list)
    for name, report in reports.items():
        digest = report_digest(report)
        done = ledger.entries.get(name)
        if done is not None and done.report == digest:
            continue
        if digest in known:
            copies.append(replace(known[digest], record_id=name, tokens=(0, 0)))
        else:
            pending[digest].append(name)
    if copies:
        write(copies)
    return pending


def _read_all(
    pending: Mapping[str, list[str]],
    reports: Mapping[str, str],
    write: Callable[[list[Entry]], None],
) -> None:
    todo = iter(pending.items())
    while batch := list(islice(todo, _RULES_BATCH)):
        entries: list[Entry] = []
        for digest, names in batch:
            lesions = rules_lesions(reports[names[0]])
            entries += [Entry(name, digest, lesions) for name in names]
        write(entries)


async def _ask_all(
    pending: Mapping[str, list[str]],
    reports: Mapping[str, str],
    asking: Asking,
    write: Callable[[list[Entry]], None],
) -> None:
    todo = iter(pending.values())

    async def work() -> None:
        entry: Entry | None
        for names in todo:
            report = reports[names[0]]
            if polyp_mentioned(strip_pathology(report)):
                entry = await read_one(report, asking)
            else:
                entry = Entry("", report_digest(report), (), BY_RULES, "names no polyp")
            if entry is not None:
                rest = replace(entry, tokens=(0, 0))
                entries = [entry, *[rest] * (len(names) - 1)]
                write([replace(e, record_id=n) for e, n in zip(entries, names, strict=True)])

    stopped: list[BaseException] = []
    try:
        await asking.endpoint.open()
        async with asyncio.TaskGroup() as group:
            for _ in range(asking.concurrency):
                group.create_task(work())
    except* EndpointError as errors:
        stopped.extend(errors.exceptions)
    finally:
        await asking.endpoint.close()
    if stopped:
        raise stopped[0]


def _bar() -> Progress:
    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    )
