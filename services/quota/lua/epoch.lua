-- When this server's data began, and its generation; KEYS[1] holds both, and the server's run id.
-- ARGV: now (0: this server's clock); what to do when there is none: "" nothing, "0" begin now, "1" begin
-- as a new installation, where nothing was ever counted.
-- Reply: moment (0 for a new installation) and generation, as text; nothing when there is none.
--
-- The key is gone exactly when the server lost everything. It names another run id when the server was
-- started anew or took over from one that failed: it may then lack the last moments, so a new generation
-- begins and all counters are loaded once more.

local run = string.match(call('INFO', 'server'), 'run_id:(%x+)')
local found = call('GET', KEYS[1])
local began, generation, known
if found then
  began, generation, known = string.match(found, '^(%d+) (%d+) (%x+)$')
elseif ARGV[2] == '' then
  return false
end
if known ~= run then
  local now = string.format('%.0f', clock(tonumber(ARGV[1])))
  began = began or (ARGV[2] == '1' and '0' or now)
  generation = now
  call('SET', KEYS[1], began .. ' ' .. generation .. ' ' .. run)
end
return {began, generation}
