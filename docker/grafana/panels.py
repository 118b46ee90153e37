"""What the dashboards show: panels and their queries, in the order in which they stand."""

from collections.abc import Sequence
from dataclasses import dataclass

from queries import (
    AT_POINT,
    FRAMES,
    HERE,
    PATIENTS,
    agreed,
    beyond,
    count,
    decided,
    differ,
    drift,
    fates,
    mean,
    of,
    probability,
    quantile,
    rate,
    up_to,
)

__all__ = ["CLINICAL", "MODEL", "SERVICE", "Panel"]


@dataclass(frozen=True)
class Panel:
    """Lines over time, from 0 up; a table of the labels where the unit is `none`.

    Attributes:
        title: what is shown.
        unit: as Grafana names it; the axis of a share ends at 1.
        about: how to read it.
        queries: legend → PromQL.
        fires_at: where an alert fires on values that span orders of magnitude: a line is drawn
            there, and the axis is logarithmic, from 1 up.
    """

    title: str
    unit: str
    about: str
    queries: dict[str, str]
    fires_at: float | None = None


# A string begins a row.
SERVICE: Sequence[str | Panel] = (
    "Requests",
    Panel(
        "Requests",
        "reqps",
        "Requests a second by task, whatever their outcome.",
        {"{{task}}": rate("requests_total", "task")},
    ),
    Panel(
        "Requests that did not end well",
        "reqps",
        "By outcome. `internal` is a fault of the service; `overloaded` and `deadline_exceeded` "
        "say that it is too small or too slow; most others are the callers'.",
        {"{{outcome}}": rate("requests_total", "outcome", 'outcome!="ok"')},
    ),
    Panel(
        "Time to an answer",
        "s",
        "Median and 95th percentile by task; a patient of many frames takes longer than a frame.",
        {
            "{{task}} p50": quantile(0.5, "request_seconds", "task"),
            "{{task}} p95": quantile(0.95, "request_seconds", "task"),
        },
    ),
    Panel(
        "Exams' results asked for",
        "reqps",
        "By outcome, in any dialect: programs that poll an open exam, and reports. `not_found` is "
        "an exam that is over its time or was deleted; `conflict` one that began with another "
        "bundle, or a structured report of one that is not closed.",
        {"{{outcome}}": rate("requests_total", "outcome", 'task="exam_report"')},
    ),
    "Phases",
    Panel(
        "Mean time by phase",
        "s",
        "Where the time goes. `turn` and `queue` are waiting, for a decode thread and for an "
        "encode worker; the rest is work.",
        {"{{phase}}": mean("phase_seconds", "phase")},
    ),
    Panel(
        "95th percentile by phase",
        "s",
        "The slow tail of each phase.",
        {"{{phase}}": quantile(0.95, "phase_seconds", "phase")},
    ),
    Panel(
        "Beyond the limits of real time",
        "percentunit",
        "Share of decodings and of graph runs that took more than 77 ms (13 a second) and more "
        "than 120 ms (8 a second). A graph run holds up to `ENDOCLIP_MAX_BATCH` frames.",
        {f"{{{{phase}}}} over {limit} s": beyond(limit) for limit in ("0.077", "0.12")},
    ),
    "Saturation",
    Panel(
        "Encode workers busy",
        "percentunit",
        "Share of time in which the workers run a graph. At 100 % frames wait: a GPU, a "
        "smaller load or another replica helps.",
        {
            "{{instance}}": rate("phase_seconds_sum", "instance", 'phase=~"encode|text"')
            + f" / on (instance) {of('endoclip_encode_workers')}"
        },
    ),
    Panel(
        "Processor",
        "percentunit",
        "Processor time over the cores that the process may use. At 100 % decoding and encoding "
        "compete.",
        {
            "{{instance}}": f"rate({of('process_cpu_seconds_total')}[$__rate_interval]) / "
            f"{of('endoclip_usable_cores')}"
        },
    ),
    Panel(
        "Memory",
        "bytes",
        "In RAM, of the process; and the bodies of requests that it holds.",
        {
            "{{instance}} process": of("process_resident_memory_bytes"),
            "{{instance}} bodies": of("endoclip_pending_bytes"),
        },
    ),
    Panel(
        "Frames waiting",
        "short",
        "Admitted and not yet done; texts and prompts count as frames.",
        {"{{instance}}": of("endoclip_pending_frames")},
    ),
    Panel(
        "Length of the queue",
        "s",
        "Time that what is waiting will take at the measured rate.",
        {"{{instance}}": of("endoclip_queue_seconds")},
    ),
    Panel(
        "Frames of a graph run",
        "short",
        "Mean batch. Near `ENDOCLIP_MAX_BATCH` the worker has a backlog; near 1 it has none.",
        {"{{instance}}": mean("batch_frames", "instance")},
    ),
    Panel(
        "Frames by fate",
        "cps",
        "Frames a second: scored, set aside by the quality gate, rejected as unreadable.",
        {"{{status}}": rate("frames_total", "status")},
    ),
    Panel(
        "Frames left undone",
        "cps",
        "Admitted and then dropped, by the outcome of their request: nobody reads the answer.",
        {"{{outcome}}": rate("frames_dropped_total", "outcome")},
    ),
    Panel(
        "GPU",
        "percentunit",
        "Share of time in which a kernel ran, and of memory in use. Empty on a CPU.",
        {
            "{{instance}} {{gpu}} busy": of("endoclip_gpu_utilisation_ratio"),
            "{{instance}} {{gpu}} memory": f"{of('endoclip_gpu_memory_used_bytes')} / "
            f"{of('endoclip_gpu_memory_bytes')}",
        },
    ),
)

CLINICAL: Sequence[str | Panel] = (
    "Decisions",
    Panel(
        "Patients positive",
        "percentunit",
        "Share of scored patients, by task and operating point. A change is one of the patients, "
        "of the endoscopes or of the model: compare it by device.",
        {"{{task}} {{operating_point}}": decided(PATIENTS, "positive", "task, operating_point")},
    ),
    Panel(
        "Patients positive by device",
        "percentunit",
        "The same by device profile. One device apart from the others is a sign of its images, "
        "not of its patients.",
        {"{{task}} {{device}}": decided(PATIENTS, "positive", "task, device")},
    ),
    Panel(
        "Frames positive",
        "percentunit",
        "Share of scored frames, by task and operating point.",
        {"{{task}} {{operating_point}}": decided(FRAMES, "positive", "task, operating_point")},
    ),
    Panel(
        "Low confidence",
        "percentunit",
        "Share of scored patients and frames left undecided: too close to the threshold.",
        {
            f"{level} {{{{task}}}} {{{{operating_point}}}}": decided(
                metric, "abstained", "task, operating_point"
            )
            for level, metric in (("patients", PATIENTS), ("frames", FRAMES))
        },
    ),
    Panel(
        "Patients",
        "short",
        "Patients answered, by decision; `unscored` had no frame to score.",
        {"{{task}} {{decision}}": count(PATIENTS, "task, decision", AT_POINT)},
    ),
    Panel(
        "Patients by device",
        "short",
        "Patients answered, by device profile.",
        {"{{device}}": count(PATIENTS, "device", AT_POINT)},
    ),
    "Scores",
    *(
        Panel(
            f"Probabilities of {level}s",
            "percentunit",
            "Quartiles of the calibrated probability by device; the same at every operating point.",
            {
                f"{{{{task}}}} {{{{device}}}} p{percent}": probability(level, percent / 100)
                for percent in (25, 50, 75)
            },
        )
        for level in ("patient", "frame")
    ),
    Panel(
        "Distribution of frames' probabilities",
        "percentunit",
        "Share of scored frames up to each tenth: lines far apart in the middle are undecided "
        "frames.",
        {"up to {{le}}": up_to()},
    ),
    "Drift",
    *(
        Panel(
            title,
            "short",
            f"{about} One in so many series of exams would be as far apart by chance; from 1,000 "
            "on the alert fires. `earlier` are the device's own exams before, `reference` those in "
            "the bundle. Missing until there are enough exams: docs/drift.md.",
            {"{{device}} {{against}}": f"1 / min by (device, against) ({drift('p_value', shift)})"},
            fires_at=1000,
        )
        for shift, title, about in (
            ("image", "Other images", "Whether frames of like decision look different."),
            ("prevalence", "Other prevalence", "Whether other shares of frames are positive."),
            ("optics", "Other optics", "Whether frames are less or more red, bright or sharp."),
        )
    ),
    Panel(
        "Distance",
        "short",
        "How far recent exams are from others, in deviations of frames (image) or of exams "
        "(prevalence, optics). Small and rare is a small shift seen well; few exams are far apart "
        "by chance.",
        {
            "{{device}} {{shift}} {{against}}": "max by (device, shift, against) "
            f"({drift('distance')})"
        },
    ),
    Panel(
        "Exams compared",
        "short",
        "Recent ones, and the device's own before them; both begin anew when the service does.",
        {
            "{{device}} {{side}}": "max by (device, side) "
            f'(endoclip_drift_exams{{{HERE}, device=~"$device"}})'
        },
    ),
    "Frames",
    Panel(
        "Set aside by the quality gate",
        "percentunit",
        "Share of all frames, by reason. A lamp, a lens or a capture card at its end shows here.",
        {"{{reason}}": fates("abstained")},
    ),
    Panel(
        "Rejected as unreadable",
        "percentunit",
        "Share of all frames, by code: a fault of what sends them.",
        {"{{reason}}": fates("rejected")},
    ),
)

MODEL: Sequence[str | Panel] = (
    "Served",
    Panel(
        "Ready",
        "bool",
        "Whether `/readyz` answers 200: bundle verified, canaries as recorded, worker alive.",
        {"{{instance}}": of("endoclip_ready")},
    ),
    Panel(
        "Not ready, by reason",
        "short",
        "How many services answer `/readyz` with 503, by reason; what to do about each: "
        "docs/service.md, Readiness.",
        {"{{reason}}": f"sum by (reason) ({of('endoclip_not_ready')})"},
    ),
    Panel(
        "Canaries",
        "short",
        "Largest difference of the self-test from the bundle's record, and the largest that "
        "passes. It depends on processor, provider and runtime: a jump is worth a look.",
        {
            "{{instance}} deviation": of("endoclip_canary_deviation"),
            "{{instance}} tolerance": of("endoclip_canary_tolerance"),
        },
    ),
    Panel(
        "Running for",
        "s",
        "Since the process started; a fall to 0 is a restart.",
        {"{{instance}}": f"time() - {of('process_start_time_seconds')}"},
    ),
    Panel(
        "Services by model",
        "short",
        "How many services answer with each model. Two models for longer than a roll-out takes "
        "mean that one exam may be decided in two ways.",
        {
            "{{name}} {{version}} {{execution_provider}}": "count by (name, version, "
            f"execution_provider) ({of('endoclip_model_info')})"
        },
    ),
    Panel(
        "Models",
        "none",
        "Name, version, digest and provider of each service's model.",
        {"": of("endoclip_model_info")},
    ),
    Panel("Services", "none", "Version of each service.", {"": of("endoclip_build_info")}),
    Panel(
        "Exchanges",
        "short",
        "Bundles loaded, rolled back to and shadowed in the last day, by outcome. `refused` means "
        "that the bundle before goes on.",
        {
            "{{action}} {{outcome}}": "sum by (action, outcome) "
            f"(increase(endoclip_model_changes_total{{{HERE}}}[1d]))"
        },
    ),
    "Shadow",
    Panel(
        "Decided alike",
        "percentunit",
        "Share of decisions that are the same in the served bundle and its shadow, since the "
        "shadow began. They disagree: which is right, only the exams tell. Empty without a shadow.",
        {f"{{{{task}}}} {of}s": agreed(of) for of in ("patient", "frame")},
    ),
    Panel(
        "Probabilities far apart",
        "percentunit",
        "Share of patients and frames whose two probabilities differ by more than 0.1.",
        {"{{task}} {{of}}s": differ("0.1")},
    ),
    Panel(
        "Answers offered to the shadow",
        "cps",
        "Answers a second: compared, dropped (the service was too busy for the shadow), failed. "
        "More dropped than compared: what is compared comes from quiet hours.",
        {"{{task}} {{outcome}}": rate("shadow_answers_total", "task, outcome")},
    ),
    Panel(
        "Frames waiting for the shadow",
        "short",
        "They hold memory and nobody's answer; 1,024 at most.",
        {"{{instance}}": of("endoclip_shadow_pending_frames")},
    ),
    Panel(
        "Shadows",
        "none",
        "Name, version and digest of the shadow of each service; without a name where none runs.",
        {"": of("endoclip_shadow_info")},
    ),
)
