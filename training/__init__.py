"""Training side of Endo-CLIP: records, stages, export and evaluation."""
