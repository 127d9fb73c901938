"""The edge: one Envoy configuration for every way of running the product."""
