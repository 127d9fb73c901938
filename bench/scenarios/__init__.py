"""What is measured, one module a kind of load. Each takes a `World` and adds to `Results`."""
