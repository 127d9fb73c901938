"""What tests of every service build on. Never imported by the product.

clock      ManualClock, SequentialIds, CountingEntropy
network    free_port, serving (a real gRPC server in process), redis_server
tokens     TokenMint, FakeSessions, FakeKeys
postgres   a real PostgreSQL with the schema
"""
