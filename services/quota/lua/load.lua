-- Sets users' counters from what the database has committed; KEYS are the users' bases.
-- ARGV: now (0: this server's clock), generation, then one blob of
--   a user: day, version, pool `free`, pool `api_key`, count of keys;   a key: id, count
-- Reply: of each user 0 (loaded, or nothing to do), or 1: something was settled since the version was
-- seen, so the counts may lack it; look again.
--
-- What is reserved and not settled is added to what is committed. The moment between commit and
-- settlement counts twice then, so such counters are provisional: good for granting, but a denial by
-- the day's limit is not believed before they were loaded again.

local now, generation = clock(tonumber(ARGV[1])), tonumber(ARGV[2])
local blob, at = ARGV[3], 1
local out = {}

for n = 1, #KEYS do
  local user = read_user(KEYS[n], now, generation)
  local day, version, free, keyed, count
  day, version, free, keyed, count, at = unpack_blob('<I4I8I4I4I2', blob, at)
  local counts = {}
  for _ = 1, count do
    local id, used
    id, used, at = unpack_blob('<c16I4', blob, at)
    counts[id] = used
  end
  out[n] = 0
  if user.mark ~= EXACT and (user.version ~= version or user.day ~= day) then
    out[n] = 1
  elseif user.mark ~= EXACT then
    user.mark, user.generation = EXACT, generation
    local open = call('HVALS', user.base .. ':o')
    for i = 1, #open do
      local r = not is_final(open[i]) and unpack_record(open[i])
      if r and r.day == day then
        user.mark = PROVISIONAL
        local left = r.left - r.settled
        if has(r.flags, API_KEY) then
          keyed = keyed + left
        else
          free = free + left
        end
        if has(r.flags, KEYED) then
          counts[r.key] = (counts[r.key] or 0) + left
        end
      end
    end
    user.f, user.k = free, keyed
    for place = 1, #user.tail, KEY_SIZE do -- a key without a row was charged nothing
      local id = unpack_blob(KEY, user.tail, place)
      counts[id] = counts[id] or 0
    end
    for id, used in pairs(counts) do
      key_of(user, id).count = used
    end
    write_user(user)
  end
end
return out
