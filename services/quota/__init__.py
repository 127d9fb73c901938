"""Quota: decides who may sign how much, and counts it.

Owns the Redis keys `q:{user}:*`, `q:epoch:*` and `q:watermark`, and `plans` and `user_plan_overrides`, which
it keeps in memory too. Reads `quota_usage` and `api_key_quota_usage`. Serves `QuotaEnforcementService`
(internal), `QuotaService` and `QuotaAdminService`.
"""
