"""Scores of a whole archive, offline: decoded once, in parallel, into Parquet, resumable.

The way in is ``scores.score_archive`` with the description of a model (``models``);
``scores.read_scores`` reads the result. Importing the package costs nothing.
"""
