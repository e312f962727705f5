"""Sources of reports: tables (CSV, Parquet, JSONL) and folders of text files."""
