-- Decides charges of one or more users, in order; KEYS are the users' bases.
-- ARGV: now (0: this server's clock), generation, lease, watermark, then one blob of
--   a user:   count of charges; of each pool: day's limit (-1: none), interval, burst, shadow
--   a charge: id, cost, flags, key id, the key's day limit (-1: none), interval, burst
-- Reply, one blob: now, end of the lease; a user: status (0 decided, 1 to be loaded), day, version,
-- abandoned units taken back, and when decided, for each charge the fields of DECISION.

local USER = '<I2i8I4I4Bi8I4I4B'
local CHARGE = '<c16I4Bc16i8I4I4'
local ANSWER = '<BI4I8I4'
-- granted, day, denied by, denied by in shadow, undecided, wait, limit's kind, limit, remaining, reset
local DECISION = '<I4I4BBBI8Bi8i8I8'
local PARTIAL = 4 -- flag of a charge
local USER_DAY, USER_MINUTE, KEY_DAY, KEY_MINUTE = 1, 2, 3, 4
local HUGE = math.huge

local now = clock(tonumber(ARGV[1]))
local generation = tonumber(ARGV[2])
local lease_end = now + tonumber(ARGV[3])
local watermark = tonumber(ARGV[4])
local blob, at = ARGV[5], 1
local out = {pack('<I8I8', now, lease_end)}

-- Which limit stops a charge for the longest, and how long: of those with less room than it needs.
local function strictest(user, c, pool, granted, day, minute, key_day, key_minute)
  local need = c.partial and granted + 1 or c.cost
  local denied, wait = 0, 0
  local function look(kind, room, this)
    if room < need and (denied == 0 or this > wait) then
      denied, wait = kind, this
    end
  end
  -- Until `need` have room again, or, of more than fit, until the burst is whole.
  local function refill(interval, burst, tat)
    return max(0, max(tat, now) - now + (min(need, granted + burst) - burst) * interval)
  end
  local midnight = (user.day + 1) * DAY - now
  look(USER_DAY, day, midnight)
  look(USER_MINUTE, minute, refill(pool.interval, pool.burst, user[c.rate]))
  if c.own then
    look(KEY_DAY, key_day, midnight)
    look(KEY_MINUTE, key_minute, refill(c.interval, c.burst, c.own.tat))
  end
  return denied, wait
end

-- Adds to a rate; what shadow mode let through must not lock the user out for hours once it ends.
local function arrive(tat, n, interval, burst, shadow)
  tat = max(tat, now) + n * interval
  return shadow > 0 and min(tat, now + burst * interval) or tat
end

local function decide(user, c, pool)
  local own = c.own
  local day, minute, key_day, key_minute = HUGE, HUGE, HUGE, HUGE
  if pool.daily >= 0 then
    day = max(0, pool.daily - user[c.count])
  end
  if pool.interval > 0 then
    minute = rate_room(pool.interval, pool.burst, user[c.rate], now)
  end
  if own and c.daily >= 0 then
    key_day = max(0, c.daily - own.count)
  end
  if own and c.interval > 0 then
    key_minute = rate_room(c.interval, c.burst, own.tat, now)
  end

  local granted, denied, wait, shadow = c.cost, 0, 0, 0
  local least = min(day, minute, key_day, key_minute)
  if least < granted then
    granted = c.partial and least or 0
    denied, wait = strictest(user, c, pool, granted, day, minute, key_day, key_minute)
    if user.mark == PROVISIONAL and (denied == USER_DAY or denied == KEY_DAY) then
      -- Provisional counts may be too high by what was committed and not yet settled.
      return 0, 0, 0, 0, 1
    end
    if pool.shadow == 1 then
      granted, shadow, denied, wait = c.cost, denied, 0, 0
    end
  end

  if granted > 0 then
    user[c.count] = user[c.count] + granted
    if pool.interval > 0 then
      user[c.rate] = arrive(user[c.rate], granted, pool.interval, pool.burst, shadow)
    end
    if own then
      own.count = own.count + granted
      if c.interval > 0 then
        own.tat = arrive(own.tat, granted, c.interval, c.burst, shadow)
      end
    end
  end
  return granted, denied, wait, shadow, 0
end

-- The limit to show: kind, limit, remaining, when it is whole.
local function state(user, c, pool, denied)
  if denied == USER_MINUTE then
    local tat = user[c.rate]
    return denied, pool.burst, rate_room(pool.interval, pool.burst, tat, now), max(tat, now)
  elseif denied == KEY_MINUTE then
    local tat = c.own.tat
    return denied, c.burst, rate_room(c.interval, c.burst, tat, now), max(tat, now)
  elseif denied == KEY_DAY then
    return denied, c.daily, max(0, c.daily - c.own.count), (user.day + 1) * DAY
  elseif pool.daily >= 0 then
    return USER_DAY, pool.daily, max(0, pool.daily - user[c.count]), (user.day + 1) * DAY
  end
  return 0, 0, 0, 0
end

-- Reads the next charge of a user from the blob.
local function next_charge(user, free, keyed)
  local id, cost, flags, key, daily, interval, burst
  id, cost, flags, key, daily, interval, burst, at = unpack_blob(CHARGE, blob, at)
  local of_key = has(flags, API_KEY)
  return {
    id = id, cost = cost, flags = flags % PARTIAL, partial = flags >= PARTIAL, key = key, daily = daily,
    interval = interval, burst = burst, pool = of_key and keyed or free, count = of_key and 'k' or 'f',
    rate = of_key and 'K' or 'F', own = has(flags, KEYED) and key_of(user, key),
  }
end

-- Reads how many charges the next user has, and the limits of both pools.
local function next_user()
  local count, daily, interval, burst, shadow, key_daily, key_interval, key_burst, key_shadow
  count, daily, interval, burst, shadow, key_daily, key_interval, key_burst, key_shadow, at =
    unpack_blob(USER, blob, at)
  return count, {daily = daily, interval = interval, burst = burst, shadow = shadow},
    {daily = key_daily, interval = key_interval, burst = key_burst, shadow = key_shadow}
end

for n = 1, #KEYS do
  local base = KEYS[n]
  local count, free, keyed = next_user()
  local user = read_user(base, now, generation)
  local changed, released = clear(user, now, watermark)
  local charges, ids = {}, {}
  for i = 1, count do
    charges[i] = next_charge(user, free, keyed)
    ids[i] = charges[i].id
  end
  if user.mark == MISSING then
    out[#out + 1] = pack(ANSWER, 1, user.day, user.version, released)
  else
    out[#out + 1] = pack(ANSWER, 0, user.day, user.version, released)
    local records, leases, known = {}, {}, {}
    -- Without a lease there is nothing to repeat.
    local open = user.earliest > 0 and call('HMGET', base .. ':o', unpack(ids)) or {}
    for i = 1, count do
      local c = charges[i]
      local text = known[c.id] or open[i]
      local granted, day, denied, wait, shadow, undecided = 0, 0, 0, 0, 0, 0
      local held = false
      if not text then
        granted, denied, wait, shadow, undecided = decide(user, c, c.pool)
        if granted > 0 then
          day, held = user.day, true
          text = pack(
            RECORD, day, granted, granted, 0, c.flags, c.pool.interval, c.own and c.interval or 0,
            now, lease_end, c.key
          )
        end
      elseif is_final(text) then
        granted, day = unpack_blob(FINAL, text)
      else
        local r = unpack_record(text)
        granted, day = r.granted, r.day
        if not known[c.id] then
          -- Whoever repeats a charge holds it for as long as the others of the list.
          r.lease, held = lease_end, true
          text = pack_record(r)
        end
      end
      if held then
        known[c.id] = text
        records[#records + 1] = c.id
        records[#records + 1] = text
        leases[#leases + 1] = pack(LEASE, lease_end, c.id)
      end
      out[#out + 1] =
        pack(DECISION, granted, day, denied, shadow, undecided, wait, state(user, c, c.pool, denied))
    end
    if #leases > 0 then
      changed = true
      call('HSET', base .. ':o', unpack(records))
      call('RPUSH', base .. ':l', unpack(leases))
      if user.rolled or user.earliest == 0 then
        -- Whenever they may have been made just now, and once a day: a call each time is dear.
        call('PEXPIRE', base .. ':o', OPEN_TTL)
        call('PEXPIRE', base .. ':l', OPEN_TTL)
      end
      if user.earliest == 0 then
        user.earliest = lease_end
      end
    end
  end
  if changed then
    write_user(user)
  end
end
return table.concat(out)
