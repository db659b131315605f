"""The commands, one module per subject: `ingest`, `pql`, `job` and `export`, `audience` and others."""
