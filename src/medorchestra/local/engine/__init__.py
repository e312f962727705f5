"""Engines: the models that read. `protocol` says what one must do; `llama_cpp` and `scripted` do it."""
