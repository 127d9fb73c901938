-- Takes charges back, in whole or in part, at most once each; KEYS are the users' bases.
-- ARGV: now (0: this server's clock), generation, then one blob of
--   a user: count of charges;   a charge: id, units (0: all that is left)
-- Reply: the units taken back of each charge, in order. What is unknown or settled gives 0.

local now, generation = clock(tonumber(ARGV[1])), tonumber(ARGV[2])
local blob, at = ARGV[3], 1
local out = {}

local function refund(user, id, units)
  local open = user.base .. ':o'
  local text = call('HGET', open, id)
  local r = text and not is_final(text) and unpack_record(text)
  if not r or has(r.flags, REFUNDED) then
    return 0
  end
  local back = r.left - r.settled
  if units > 0 then
    back = min(units, back)
  end
  give_back(user, r, back, now)
  r.left = r.left - back
  r.flags = r.flags + REFUNDED
  if r.left > 0 then
    call('HSET', open, id, pack_record(r))
  else
    call('HDEL', open, id)
  end
  return back
end

for n = 1, #KEYS do
  local user = read_user(KEYS[n], now, generation)
  though_full(user.base .. ':o')
  local count, total
  count, at = unpack_blob('<I2', blob, at)
  total = 0
  for _ = 1, count do
    local id, units
    id, units, at = unpack_blob('<c16I4', blob, at)
    local back = refund(user, id, units)
    total = total + back
    out[#out + 1] = back
  end
  if total > 0 then
    write_user(user)
  end
end
return out
