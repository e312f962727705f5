"""What may leave: identifier scan, gate, hash-chained log."""
