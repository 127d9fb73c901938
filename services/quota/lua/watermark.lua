-- Raises the watermark KEYS[1] to ARGV[1], never lowers it. Reply: the watermark, as text.

local found = tonumber(redis.call('GET', KEYS[1]) or 0)
local given = tonumber(ARGV[1])
if given > found then
  -- Also when Redis is full (see though_full in state.lua): what is behind the watermark can be forgotten.
  redis.call('PERSIST', KEYS[1])
  redis.call('SET', KEYS[1], string.format('%.0f', given))
  found = given
end
return string.format('%.0f', found)
