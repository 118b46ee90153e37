"""Does zero-shot survive another wording? Paraphrases of a task's labels, and free questions.

    python -m training prompts --bundle B --archive A --data D

``wordings`` holds what a user would write, ``spread`` measures it, ``questions`` asks what the data
can answer, ``page`` writes it down.
"""
