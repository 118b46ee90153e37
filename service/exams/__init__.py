"""Exams: frames that arrive over minutes, scored as one patient, kept until the exam is closed.

`database` speaks SQLite or PostgreSQL, `store` keeps exams and their frames' embeddings in it,
`results` makes answers of them, `routes` is their HTTP.
"""
