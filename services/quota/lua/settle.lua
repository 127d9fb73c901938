-- Makes charges final, then clears what is due; KEYS are the users' bases.
-- ARGV: now (0: this server's clock), generation, watermark, then one blob of
--   a user: count of charges;   a charge: id, units committed (0: all that is left)
-- Reply: of each user: charges that became final, units taken back, 1 if the counters must be loaded.
--
-- A charge that nobody knows was made before these counters were (or is final and forgotten): its
-- units may be missing from them. They are loaded anew, from the database where it is committed.

local now, generation, watermark = clock(tonumber(ARGV[1])), tonumber(ARGV[2]), tonumber(ARGV[3])
local blob, at = ARGV[4], 1
local out = {}

for n = 1, #KEYS do
  local user = read_user(KEYS[n], now, generation)
  local open = user.base .. ':o'
  local count
  count, at = unpack_blob('<I2', blob, at)
  though_full(open)
  local ids, units = {}, {}
  for i = 1, count do
    ids[i], units[i], at = unpack_blob('<c16I4', blob, at)
  end
  local known = call('HMGET', open, unpack(ids))
  local stale, changed, settled, done, records = false, false, 0, {}, {}
  for i = 1, count do
    local id, text = ids[i], known[i]
    if not text then
      stale = true
    elseif not is_final(text) and not done[id] then
      done[id] = true
      local r = unpack_record(text)
      local committed = units[i] == 0 and r.left or units[i]
      if committed > r.left then
        -- Refunded, and yet its event is there: what is committed counts.
        give_back(user, r, r.left - committed, now)
        r.left, changed = committed, true
      end
      r.settled = max(r.settled, committed)
      records[#records + 1] = id
      if r.settled == r.left then
        settled = settled + 1
        records[#records + 1] = pack(FINAL, r.granted, r.day, r.lease)
      else -- the rest is abandoned or about to be refunded: due with its lease
        records[#records + 1] = pack_record(r)
      end
    end
  end
  if #records > 0 then
    call('HSET', open, unpack(records))
  end
  if stale then
    user.mark = MISSING
  end
  if user.mark ~= EXACT then
    -- Whoever is loading the counters now read them before this: they begin again (load.lua).
    user.version, changed = user.version + 1, true
  end
  local cleared, released = clear(user, now, watermark)
  if changed or cleared then
    write_user(user)
  end
  out[#out + 1] = settled
  out[#out + 1] = released
  out[#out + 1] = stale and 1 or 0
end
return out
