"""The side that sees patients and has no network: reads reports, runs a plan on them, decides."""
