"""Synthetic cases and phrases, as the cloud model writes them and reads them back."""
