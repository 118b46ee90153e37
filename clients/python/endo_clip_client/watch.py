"""The command `endo-clip-watch`: live video to the service, results onto the picture.

endo-clip-watch /dev/video0
endo-clip-watch rtsp://tower.example/live --exam exam-17
endo-clip-watch recording.mp4 --out overlay.mp4
"""

import argparse
import io
import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from endo_clip_client.client import Client, Exam
from endo_clip_client.command_line import ABOUT, key_of, service_options
from endo_clip_client.errors import ClientError
from endo_clip_client.messages import Opened, Result
from endo_clip_client.overlay import Overlay, lines_of
from endo_clip_client.screen import Screen
from endo_clip_client.sources import SourceLost
from endo_clip_client.stream import Stream
from endo_clip_client.video import Captured, Clock, Player, Quiet, Recorder

__all__ = ["command", "main"]

_HOW = """\
Which frames are sent: the newest. While the line or the service is busy older ones are dropped and
counted, so that results are of now. A file plays at its own pace, as a camera would.

What is shown: the newest result and its age, below the picture. After a second without a result it
says so instead of showing the last one.

When the source drops: a device or a broadcast is opened again, with growing pauses, for up to
--reopen-s seconds since its last picture. The exam stays open and its frames are counted on. A
recording ends, and is not opened again.

Examples:
  endo-clip-watch /dev/video0                              a capture card, in a window
  endo-clip-watch /dev/video0 --option video_size=1920x1080 --option input_format=mjpeg
  endo-clip-watch "video=Capture" --format dshow           the same on Windows
  endo-clip-watch rtsp://tower.example/live --exam exam-17 --device olympus_190
  endo-clip-watch recording.mp4 --out overlay.mp4 --close  no window; the exam's final result

Ctrl-C (or SIGTERM) ends it: what was sent is answered, and the exam's result so far is said. A
second one ends it at once.

Exit code: 0 frames were answered; 1 none was; 2 nothing could be watched; 3 the source was lost and
did not come back in time (the exam is open: --exam ID goes on with it); 130 interrupted before the
source was there, or twice.
"""
_QUALITY = 90
_ANSWERS_S, _CLOSE_S = 10.0, 2.0


class Watch:
    """A source, a stream, and what is seen of both."""

    def __init__(self, player: Player, stream: Stream, clock: Clock) -> None:
        self._player, self._stream, self._clock = player, stream, clock
        self._receiving = threading.Thread(target=self._receive, name="endo-clip-results")
        self._overlay = Overlay()
        self._is_stopped = False
        self._picture: Any = None
        self._at = clock.now()
        self._quiet: Quiet | None = None
        self.error: Exception | None = None
        self.newest: Result | None = None
        self.taken = 0
        self.statuses: Counter[str] = Counter()
        self.latencies_s: list[float] = []

    def run(self, tasks: int, screen: Screen | None, recorder: Recorder | None) -> None:
        """Send and show until the source ends, the window is closed or the stream fails."""
        self._player.play()
        self._receiving.start()
        try:
            for seen in self._player:
                if isinstance(seen, Captured):
                    self._take(seen)
                else:
                    self._wait(seen)
                if self._picture and (screen or recorder):
                    self._show(tasks + 1, screen, recorder)
                if self.error or (screen and not screen.is_open):
                    break
        finally:
            self._player.stop()
            self._stream.finish()
            self._receiving.join(_ANSWERS_S if self._is_stopped else None)
            # A device is given back before the process ends; one that hangs is not waited for.
            self._player.join(_CLOSE_S)
        if self.error:
            raise self.error

    def stop(self) -> None:
        """End soon; for a signal's handler. A service that is away is not waited for any more."""
        self._is_stopped = True
        self._player.stop()

    def _take(self, captured: Captured) -> None:
        if self._quiet and self._quiet.reason:
            _say(f"the source is back after {self._quiet.for_s:.0f} s")
        self._quiet = None
        self._picture = captured.frame.to_image()
        self._stream.send(_jpeg(self._picture), captured.at)
        self.taken += 1
        self._at = captured.at

    def _wait(self, quiet: Quiet) -> None:
        if quiet.reason and (self._quiet is None or self._quiet.reason != quiet.reason):
            _say(f"the source is gone ({quiet.reason}); opening it again")
        self._quiet = quiet
        self._at = self._clock.now()

    def _show(self, band_lines: int, screen: Screen | None, recorder: Recorder | None) -> None:
        newest = self.newest
        age_s = (self._clock.now() - newest.captured_at).total_seconds() if newest else 0.0
        lines = lines_of(newest, age_s, self._stream.counts, self._quiet)
        whole = self._overlay.draw(self._picture, lines, band_lines)
        if recorder:
            recorder.write(whole, self._at)
        if screen:
            screen.show(whole)

    def _receive(self) -> None:
        try:
            for message in self._stream:
                if isinstance(message, Result):
                    age = self._clock.now() - message.captured_at
                    self.latencies_s.append(age.total_seconds())
                    self.statuses[message.frame.status] += 1
                    self.newest = message
                elif isinstance(message, Opened) and message.reconnects:
                    _say("the stream is taken up again")
        except Exception as error:  # it is raised where frames are sent
            self.error = error
            self._player.stop()

    def summary(self) -> Iterator[str]:
        """Say what became of the frames, and how long results took."""
        counts, missed = self._stream.counts, self._player.skipped
        dropped = counts.dropped or {}
        yield f"frames: {self.taken + missed} captured, {counts.answered} answered"
        yield (
            f"dropped: {missed} before they were sent, {counts.replaced} for a newer one on the "
            f"line, {', '.join(f'{n} {why}' for why, n in dropped.items()) or '0'} by the service"
        )
        told = ", ".join(f"{count} {status}" for status, count in sorted(self.statuses.items()))
        yield f"answers: {told or 'none'}; {counts.kept} kept; {counts.reconnects} reconnects"
        if self._player.reopened:
            yield f"source: opened again {self._player.reopened} times"
        if self.latencies_s:
            ms = sorted(1000 * one for one in self.latencies_s)
            p50, p99 = (ms[min(len(ms) - 1, int(len(ms) * share))] for share in (0.5, 0.99))
            yield f"glass to result: p50 {p50:.0f} ms, p99 {p99:.0f} ms, longest {ms[-1]:.0f} ms"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: of the command line; the process's when None.

    Returns:
        The exit code.
    """
    args = _parser().parse_args(arguments)
    try:
        with _terminated_as_interrupted(), Client(args.url, key=key_of(args)) as client:
            return _watch(client, args)
    except SourceLost as error:
        _say(str(error))
        return 3
    except (ClientError, OSError, ValueError) as error:
        _say(str(error))
        return 2
    except KeyboardInterrupt:
        _say("stopped")
        return 130


def command() -> NoReturn:
    """Run the command as a process of its own, and end that at once.

    A thread that waits for a source in FFmpeg cannot be broken off, and an interpreter that is
    taken down under it crashed now and then (SIGSEGV).
    """
    code = main()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):  # nobody reads on
            stream.flush()
    os._exit(code)


def _watch(client: Client, args: argparse.Namespace) -> int:
    clock = Clock()
    player = Player(args.source, args.format, dict(args.option), clock, args.reopen_s)
    try:
        player.open()
        return _watch_exam(client, args, player, clock)
    finally:
        player.stop()


def _watch_exam(client: Client, args: argparse.Namespace, player: Player, clock: Clock) -> int:
    exam = client.exam(
        args.exam,
        patient_id=args.patient_id,
        tasks=args.task,
        device=args.device,
        operating_point=args.operating_point,
    )
    opened = exam.open()
    print(f"exam {exam.exam_id}. {opened.intended_use}", file=sys.stderr)
    with ExitStack() as stack:
        recorder = stack.enter_context(Recorder(args.out, player.fps)) if args.out else None
        screen = None if args.no_window or args.out else Screen(f"Endo-CLIP: {exam.exam_id}")
        if screen:
            stack.callback(screen.close)
        stream = stack.enter_context(
            exam.stream(keep_every_ms=args.keep_every_ms, reconnect_s=args.reconnect_s)
        )
        watch = Watch(player, stream, clock)
        with _stopped_by_interrupt(watch):
            try:
                watch.run(len(opened.tasks), screen, recorder)
            except SourceLost:
                _say(f"the exam stays open; --exam {exam.exam_id} goes on with it")
                raise
            finally:
                print("\n".join(watch.summary()))
    _say_result(exam, args.close)
    return int(not watch.latencies_s)


def _say(text: str) -> None:
    print(f"endo-clip-watch: {text}", file=sys.stderr, flush=True)


def _say_result(exam: Exam, close: bool) -> None:
    result = exam.close() if close else exam.result()
    word = "final" if result.final else "so far"
    for task in result.tasks:
        patient = task.patient
        told = patient.status
        if patient.probability is not None:
            told = f"{patient.decision}, probability {patient.probability:.3f}"
        frames = f"{patient.frames_scored} of {len(patient.frames)} frames"
        print(f"exam {exam.exam_id}, {word}: {task.task} {told}, from {frames}")


def _jpeg(picture: Any) -> bytes:
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=_QUALITY)
    return out.getvalue()


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """Make of SIGTERM what Ctrl-C is, so that either is cleaned up after."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _stopped_by_interrupt(watch: Watch) -> Iterator[None]:
    """Let the first Ctrl-C end the source: what was sent is answered, and the summary said."""

    def stop(number: int, _: FrameType | None) -> None:
        watch.stop()
        signal.signal(number, signal.default_int_handler)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {one: signal.signal(one, stop) for one in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


def _option(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not name or not separator:
        raise argparse.ArgumentTypeError(f"expected NAME=VALUE; found {text}")
    return name, value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "endo-clip-watch",
        parents=[service_options()],
        description="Send live video to an Endo-CLIP service and show its results.",
        epilog=_HOW + "\n" + ABOUT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("source", metavar="SOURCE", help="video file, capture device or RTSP URL")
    parser.add_argument("--format", metavar="NAME", help="FFmpeg's name of the kind of source")
    parser.add_argument(
        "--option",
        action="append",
        default=[],
        type=_option,
        metavar="NAME=VALUE",
        help="FFmpeg's, of the source: video_size=1920x1080, framerate=50, input_format=mjpeg",
    )
    parser.add_argument("--exam", metavar="ID", help="exam to open or go on with (default: new)")
    parser.add_argument("--patient-id", help="a pseudonym")
    parser.add_argument(
        "--task",
        action="append",
        choices=("polyp_detection", "malignancy"),
        help="ask this alone (default: both)",
    )
    parser.add_argument("--device", help="profile that crops the frames: see `endo-clip info`")
    parser.add_argument(
        "--operating-point", choices=("sensitivity_first", "balanced", "specificity_first")
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="write picture and overlay there")
    parser.add_argument("--no-window", action="store_true", help="show nothing")
    parser.add_argument("--close", action="store_true", help="make the exam's result final")
    parser.add_argument("--keep-every-ms", type=int, default=1000, metavar="MS")
    parser.add_argument(
        "--reconnect-s",
        type=float,
        default=120.0,
        metavar="S",
        help="service away for so long: end",
    )
    parser.add_argument(
        "--reopen-s",
        type=float,
        default=120.0,
        metavar="S",
        help="source away for so long: end; 0: at once (default: 120)",
    )
    return parser


if __name__ == "__main__":
    command()
