-- One caller's limits, charging nothing; KEYS[1] is the user's base.
-- ARGV: now (0: this server's clock), generation, watermark, then one blob of
--   flags, key id; day's limit (-1: none), interval, burst; the key's day limit, interval, burst
-- Reply, one blob: now, status (0, or 1 to be loaded), day, version, used today in the pool, of it what is
-- reserved and not final (0 unless the flag OPEN asks for it), and of each limit in the order of kinds: kind (0: no such limit), limit, remaining, reset.

local LIMIT = '<Bi8i8I8'
local OPEN = 8

local now = clock(tonumber(ARGV[1]))
local flags, id, daily, interval, burst, key_daily, key_interval, key_burst =
  unpack_blob('<Bc16i8I4I4i8I4I4', ARGV[4])

local user = read_user(KEYS[1], now, tonumber(ARGV[2]))
if clear(user, now, tonumber(ARGV[3])) then
  write_user(user)
end
local count, rate = user.f, user.F
if has(flags, API_KEY) then
  count, rate = user.k, user.K
end
local own = {count = 0, tat = 0}
if has(flags, KEYED) then
  own = key_of(user, id)
else
  key_daily, key_interval = -1, 0
end

local reserved = 0
if has(flags, OPEN) then
  local records = call('HVALS', user.base .. ':o')
  for i = 1, #records do
    local r = not is_final(records[i]) and unpack_record(records[i])
    if r and r.day == user.day and has(r.flags, API_KEY) == has(flags, API_KEY) then
      reserved = reserved + r.left - r.settled
    end
  end
end

local function day_limit(kind, limit, used)
  return pack(LIMIT, limit < 0 and 0 or kind, max(0, limit), max(0, limit - used), (user.day + 1) * DAY)
end

local function rate_limit(kind, every, size, tat)
  if every == 0 then
    return pack(LIMIT, 0, 0, 0, 0)
  end
  return pack(LIMIT, kind, size, rate_room(every, size, tat, now), max(tat, now))
end

-- Counts that may be too high are loaded again once nothing is open that could be counted twice.
local doubtful = user.mark == MISSING or user.mark == PROVISIONAL and user.earliest == 0

return pack('<I8BI4I8I8I8', now, doubtful and 1 or 0, user.day, user.version, count, reserved)
  .. day_limit(1, daily, count)
  .. rate_limit(2, interval, burst, rate)
  .. day_limit(3, key_daily, own.count)
  .. rate_limit(4, key_interval, key_burst, own.tat)
