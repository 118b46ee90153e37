"""A bundle beside other CLIP models: a torch handle, a WebDataset, LAION's `clip_benchmark`."""
