"""From a hospital's raw data to an archive of records: read, de-identified, checked, listed.

`python -m training ingest --config hospital.toml --out runs/hospital/archive`. `pipeline.ingest` is
the way in from other code; docs/ingestion.md is the reference.
"""

__all__: list[str] = []
