-- What every script shares; it stands before each of them. Times are epoch microseconds.
--
-- Keys of a user, all under the hash tag {user id}, so that a cluster keeps them on one node:
--   <base>:u  string: the counters (HEAD), then each key's (KEY). One packed value is read and written
--             several times as fast as a hash's fields.
--   <base>:o  hash: charge id -> open reservation (RECORD) or final charge (FINAL).
--   <base>:l  list: the leases (LEASE) in the order of their ends. A charge is cleared once the
--             watermark has passed the end of its lease.

local DAY = 86400000000
local TTL = 2678400000 -- ms: 31 days after the last change
local OPEN_TTL = 93600000 -- ms: 26 hours: what is open for longer is another day's, and counts nowhere
local DUE = 500 -- how many leases one call clears at most

-- mark, generation (see epoch.lua) of the server that it was loaded on, day of the counts, version, end
-- of the earliest lease in <base>:l (0: there is none), counts of the pools `free` and `api_key`, their
-- rates as the theoretical arrival times of GCRA.
local HEAD = '<BI8I4I8I8I4I4I8I8'
local HEAD_SIZE = 53
-- Marks: counters to be loaded; exact; provisional (see load.lua).
local MISSING, EXACT, PROVISIONAL = 0, 1, 2
local KEY = '<c16I4I4I8' -- id, day of the count, count, rate
local KEY_SIZE = 32

-- day, granted, units still counted, units settled, flags, interval of the pool's rate, of the key's
-- rate, moment of the charge, end of the lease, key id. The padding makes it longer than what Redis
-- keeps in a hash's compact form, which is searched from its beginning each time.
local RECORD = '<I4I4I4I4BI4I4I8I8c16xxxxxxxx'
local FINAL = '<I4I4I8' -- granted, day, end of the lease
local FINAL_SIZE = 16
local LEASE = '<I8c16' -- end, charge id
local API_KEY, KEYED, REFUNDED = 1, 2, 4 -- flags

local floor, max, min = math.floor, math.max, math.min
local find, sub = string.find, string.sub
local call, pack, unpack_blob = redis.call, struct.pack, struct.unpack

local function has(flags, bit)
  return flags % (bit * 2) >= bit
end

local function clock(given)
  if given > 0 then
    return given
  end
  local time = call('TIME')
  return time[1] * 1000000 + time[2]
end

-- What gives memory back must go on when Redis is full: else nothing is acknowledged, so nothing is trimmed,
-- and it stays full. Redis lets a script end what it has begun, so a write that needs no memory comes first.
local function though_full(key)
  call('HDEL', key, '')
end

local function is_final(text)
  return #text == FINAL_SIZE
end

local function unpack_record(text)
  local r = {}
  r.day, r.granted, r.left, r.settled, r.flags, r.interval, r.key_interval, r.at, r.lease, r.key =
    unpack_blob(RECORD, text)
  return r
end

local function pack_record(r)
  return pack(
    RECORD, r.day, r.granted, r.left, r.settled, r.flags, r.interval, r.key_interval, r.at, r.lease, r.key
  )
end

-- A key's counters in a user's. Kept packed until asked for: a user may have many keys.
local function key_of(user, id)
  local key = user.keys[id]
  if key then
    return key
  end
  local place, from = nil, 1
  repeat
    place = find(user.tail, id, from, true)
    from = place and place + 1
  until not place or (place - 1) % KEY_SIZE == 0
  local _, day, count, tat
  if place then
    _, day, count, tat = unpack_blob(KEY, user.tail, place)
  end
  key = {place = place, count = day == user.day and count or 0, tat = tat or 0}
  user.keys[id] = key
  return key
end

-- Yesterday's counts go; of the keys only those stay whose rate still holds somebody back.
local function roll_over(user, today, now)
  user.day, user.f, user.k, user.rolled = today, 0, 0, true
  local kept = {}
  for place = 1, #user.tail, KEY_SIZE do
    local id, _, _, tat = unpack_blob(KEY, user.tail, place)
    if tat > now then
      kept[#kept + 1] = pack(KEY, id, today, 0, tat)
    end
  end
  user.tail = table.concat(kept)
end

-- Counters of an earlier generation count as missing: a server that was started anew, or took over, may
-- lack the last moments. Days never go back, even when the clock does: a day that was used up is not
-- opened again.
local function read_user(base, now, generation)
  local text = call('GET', base .. ':u')
  local mark, loaded_on, day, version, earliest, f, k, F, K = MISSING, generation, 0, 0, 0, 0, 0, 0, 0
  if text then
    mark, loaded_on, day, version, earliest, f, k, F, K = unpack_blob(HEAD, text)
  end
  -- Made whole at once: Lua allocates a table anew each time it grows.
  local user = {
    base = base, mark = loaded_on == generation and mark or MISSING, generation = loaded_on, day = day,
    version = version, earliest = earliest, f = f, k = k, F = F, K = K, rolled = false, keys = {},
    tail = text and #text > HEAD_SIZE and sub(text, HEAD_SIZE + 1) or '',
  }
  local today = floor(now / DAY)
  if today > user.day then
    roll_over(user, today, now)
  end
  return user
end

local function write_user(user)
  for id, key in pairs(user.keys) do
    local text = pack(KEY, id, user.day, key.count, key.tat)
    if key.place then
      user.tail = sub(user.tail, 1, key.place - 1) .. text .. sub(user.tail, key.place + KEY_SIZE)
    elseif key.count > 0 or key.tat > 0 then
      key.place = #user.tail + 1
      user.tail = user.tail .. text
    end
  end
  local head = pack(
    HEAD, user.mark, user.generation, user.day, user.version, user.earliest, user.f, user.k, user.F, user.K
  )
  call('SET', user.base .. ':u', head .. user.tail, 'PX', TTL)
end

-- A rate less the part of n units that it has not refilled by itself since the charge: never more
-- than that, so a refund can't open a larger burst than if the charge had not been made.
local function credited(tat, n, interval, at, now)
  return tat - min(max(tat - now, 0), max(n * interval - (now - at), 0))
end

-- Takes n units of a charge off the counters it was charged to. Another day's counts are gone.
local function give_back(user, r, n, now)
  local count, rate = 'f', 'F'
  if has(r.flags, API_KEY) then
    count, rate = 'k', 'K'
  end
  if r.day == user.day then
    user[count] = user[count] - n
  end
  user[rate] = credited(user[rate], n, r.interval, r.at, now)
  if has(r.flags, KEYED) then
    local key = key_of(user, r.key)
    if r.day == user.day then
      key.count = key.count - n
    end
    key.tat = credited(key.tat, n, r.key_interval, r.at, now)
  end
end

-- Clears the charges whose lease ended by the watermark: every event published before it is committed
-- and settled. Final charges are forgotten; reservations are taken back, for what is not settled by
-- then never will be. Returns whether the user changed, and the units taken back.
local function clear(user, now, watermark)
  -- A watermark from the future would take back what is still held.
  watermark = min(watermark, now)
  if user.earliest == 0 or user.earliest > watermark then
    return false, 0
  end
  local list, open = user.base .. ':l', user.base .. ':o'
  local leases = call('LRANGE', list, 0, DUE - 1)
  local ids, due, next_end = {}, 0, 0
  for i = 1, #leases do
    local lease_end, id = unpack_blob(LEASE, leases[i])
    next_end = lease_end
    if lease_end > watermark then
      break
    end
    due, ids[i] = i, id
  end
  local released, gone, seen = 0, {}, {}
  if due > 0 then
    local records = call('HMGET', open, unpack(ids))
    for i = 1, due do
      local text = records[i]
      local r, held, _
      if text and is_final(text) then
        _, _, held = unpack_blob(FINAL, text)
      elseif text then
        r = unpack_record(text)
        held = r.lease
      end
      -- A charge that was repeated is in the list more than once: its last lease is the one that holds,
      -- and it is cleared once.
      if text and held <= watermark and not seen[ids[i]] then
        seen[ids[i]] = true
        gone[#gone + 1] = ids[i]
        if r then
          give_back(user, r, r.left - r.settled, now)
          released = released + r.left - r.settled
        end
      end
    end
    call('LTRIM', list, due, -1)
    if #gone > 0 then
      call('HDEL', open, unpack(gone))
    end
  end
  -- When all were due there may be more behind: the last one's end is a bound for them too.
  user.earliest = due == #leases and due < DUE and 0 or next_end
  return true, released
end

-- How many a rate admits now: GCRA with a tolerance of `burst` intervals (ITU-T I.371, annex A, as
-- the virtual scheduling algorithm). An interval of 0 is no limit.
local function rate_room(interval, burst, tat, now)
  return max(0, floor((burst * interval - max(tat - now, 0)) / interval))
end
