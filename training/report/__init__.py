"""One page per run that a person can look at: ``python -m training report RUN``."""
