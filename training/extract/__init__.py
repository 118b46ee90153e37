"""Attributes of reports into a ledger: by the rules, or by any OpenAI-compatible model.

python -m training extract --archive A
python -m training extract --archive A --llm http://127.0.0.1:8080/v1 --model NAME
python -m training extract --evaluate

What a model answers is checked against the report and replaced by the rules where it fails; how
well both read is measured on labelled texts. See docs/extraction.md.
"""
