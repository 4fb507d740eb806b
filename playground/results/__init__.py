"""What is kept and shown of runs: store, result documents, charts."""
