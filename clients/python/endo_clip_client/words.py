"""What can be said to a service and to an exam of it, for both clients."""

from endo_clip_client.conversations import Conversations
from endo_clip_client.exam_talks import ExamTalks
from endo_clip_client.said import Said

__all__ = ["ExamWords", "Words"]


class Words:
    """What both clients say; arguments and meaning stand in `Conversations`."""

    polyp_detection = Said(Conversations.polyp_detection)
    malignancy = Said(Conversations.malignancy)
    zero_shot = Said(Conversations.zero_shot)
    embeddings = Said(Conversations.embeddings)
    report = Said(Conversations.report)
    overlay = Said(Conversations.overlay)
    model = Said(Conversations.model)
    devices = Said(Conversations.devices)
    limits = Said(Conversations.limits)
    wait_until_ready = Said(Conversations.wait_until_ready)


class ExamWords:
    """What both exams say; arguments and meaning stand in `ExamTalks`."""

    open = Said(ExamTalks.open)
    send = Said(ExamTalks.send)
    result = Said(ExamTalks.result)
    close = Said(ExamTalks.close)
    delete = Said(ExamTalks.delete)
    report = Said(ExamTalks.report)
