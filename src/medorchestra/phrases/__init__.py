"""Phrase banks and the labelled reports composed from them; known to both sides."""
