-- Appends one entry to each usage stream and counts its events, unless the lease of its charges has
-- ended or a stream is full.
--
-- KEYS    of each stream: the stream, then its hash of published counts. On a cluster: of one stream,
--         for each is in a slot of its own.
-- ARGV[1] end of the lease, in milliseconds since 1970 by this server's clock; 0: no lease
-- ARGV[2] bytes that a stream may take up in memory; 0: no bound
-- ARGV[3] … of each stream: the serialised UsageEvents; then `day:count` of each UTC day that its events
--         arrived on, with spaces between. A count is events + 2^32 * signatures.
--
-- Returns 1: appended to all; 0: the lease has ended; -1: a stream is full. Unless 1, nothing changed.
--
-- The look at the clock and the append are one step, so a signer that was paused between signing
-- and publishing can't append what quota has meanwhile taken back. The count is one step with the
-- append as well: reconciliation holds it against what became of the entries.
if ARGV[1] ~= "0" then
  local now = redis.call("TIME")
  if now[1] * 1000 + math.floor(now[2] / 1000) >= tonumber(ARGV[1]) then
    return 0
  end
end
local most = tonumber(ARGV[2])
if most > 0 then
  for i = 1, #KEYS, 2 do
    -- An estimate from a sample of its nodes: a few microseconds, however long the stream is.
    if (redis.call("MEMORY", "USAGE", KEYS[i]) or 0) >= most then
      return -1
    end
  end
end
for i = 1, #KEYS, 2 do
  redis.call("XADD", KEYS[i], "*", "e", ARGV[i + 2])
  for day, count in string.gmatch(ARGV[i + 3], "(%d+):(%d+)") do
    redis.call("HINCRBY", KEYS[i + 1], day, count)
  end
end
return 1
