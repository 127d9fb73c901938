"""Administration of limits: plans, and what single users have instead of them.

What is written here is read by `services.quota.plans` within its interval, like what anybody else writes.
"""
