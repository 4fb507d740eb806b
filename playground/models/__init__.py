"""A name becomes a local folder: hub, folder, gguf, offline default, shape."""
