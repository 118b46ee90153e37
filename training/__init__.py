"""Training side of Endo-CLIP: records, stages, export and evaluation."""

import os

# As in model_store, for the modules here that import the runtime themselves.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
