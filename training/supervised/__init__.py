"""The tower fine-tuned on the data's own labels: a ceiling to hold zero-shot against."""
