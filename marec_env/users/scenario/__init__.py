"""What users of shops, streaming services, social feeds, advertisements and brokers add."""
