"""A trained team at work: bundles, sessions in batches, and the service over HTTP."""
