-- What the edge answers by itself: redirects to the console, and security.txt (RFC 9116).
-- A redirect names no host: the one that a caller claims to have reached is not ours to repeat.
local REDIRECTS = { ["/"] = "302", ["/console"] = "301" }

-- Read once, when Envoy starts: a file about contacts is good for a year at most.
local contact = os.getenv("SIGNGATE_SECURITY_CONTACT")
if contact == nil or contact == "" then
  contact = "{{ security_contact }}"
end
local SECURITY = ([[
{{ security_txt }}]]):gsub("{(%w+)}", {
  contact = contact,
  expires = os.date("!%Y-%m-%dT%H:%M:%SZ", os.time() + 364 * 24 * 60 * 60),
})

function envoy_on_request(handle)
  local path, query = handle:headers():get(":path"):match("^([^?]*)(.*)$")
  local status = REDIRECTS[path]
  if status ~= nil then
    handle:respond({ [":status"] = status, ["location"] = "/console/" .. query }, "")
  else
    handle:respond({ [":status"] = "200", ["content-type"] = "text/plain; charset=utf-8" }, SECURITY)
  end
end
