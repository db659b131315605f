"""The commands, a module for each subject: `ingest`, `pql`, `job` and `export`, `audience` and what else there is."""
