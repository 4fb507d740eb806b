"""The parts of the graph engine: cache, attention, linear layers and their kernels, the decode step. Imported inside functions only."""
