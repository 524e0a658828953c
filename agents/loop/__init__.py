"""A team that keeps learning from those it serves: log, learning from it, estimate, gate, swap."""
