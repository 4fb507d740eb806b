"""Execution: a spec becomes events, in a worker process, watched by a runner."""
