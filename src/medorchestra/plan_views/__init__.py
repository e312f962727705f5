"""A plan as a clinician reads it: terminal, page for sign-off, rules in words."""
