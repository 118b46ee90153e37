"""The HTTP service: whole colonoscopies in, calibrated answers with their provenance out.

Start it with `python -m service`; the contract is shown at `/docs`. Knows HTTP and JSON; what a
pixel or a score means is `model_store`'s business.
"""

__all__ = ["__version__"]

__version__ = "0.1.0"
