"""What others would serve the same weights with; each server in an environment of its own."""

__all__: list[str] = []
