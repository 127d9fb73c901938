"""Keys owns API keys: `signgate.keys.v1.KeysService` for their owners, `KeysAdminService` for operators,
`KeyValidationService` for Signgate's own services, the tables `api_keys`, `key_audit` and `key_answers`, and
the Redis channel `keys:invalidate`. It reads `users` (tier, whether active) and `plans` (what a key's limits
may be).
"""
