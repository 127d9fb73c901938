"""The logger: from the usage stream to `usage_logs`, once each, and back out as lists and statistics.

Owns
- tables: `usage_logs` and its partitions, `usage_hours`, `usage_days`, `quota_usage`, `api_key_quota_usage`,
  `alert_settings`, `quota_alerts` (it is their only writer);
- streams: the consumer group `logger` on `usage:{0}` … `usage:{N-1}`, and the dead letters `usage:dead`;
- RPCs: `signgate.usage.v1.UsageService` and `AlertService`.

What holds, whatever dies: an entry is acknowledged only after its rows are committed and its charges
settled; a redelivered entry changes nothing. So no acknowledged signature is lost, and none counts twice.
"""
