"""What tests and benchmarks share: surroundings of services in memory, and makers of records."""
