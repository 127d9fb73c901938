-- Puts the two things a REST caller decides by at the top of an error's body: the name of the status, and
-- the reason (from ErrorInfo). The rest is google.rpc.Status as the transcoder writes it, so that a client
-- that parses that message finds it unchanged:
--   {"status":"PERMISSION_DENIED","reason":"KEY_REVOKED","code":7,"message":"...","details":[...]}
local NAMES = {
  ["1"] = "CANCELLED", ["2"] = "UNKNOWN", ["3"] = "INVALID_ARGUMENT", ["4"] = "DEADLINE_EXCEEDED",
  ["5"] = "NOT_FOUND", ["6"] = "ALREADY_EXISTS", ["7"] = "PERMISSION_DENIED", ["8"] = "RESOURCE_EXHAUSTED",
  ["9"] = "FAILED_PRECONDITION", ["10"] = "ABORTED", ["11"] = "OUT_OF_RANGE", ["12"] = "UNIMPLEMENTED",
  ["13"] = "INTERNAL", ["14"] = "UNAVAILABLE", ["15"] = "DATA_LOSS", ["16"] = "UNAUTHENTICATED",
}

function envoy_on_response(handle)
  local headers = handle:headers()
  if tonumber(headers:get(":status")) < 400 or headers:get("content-type") ~= "application/json" then
    return
  end
  local body = handle:body() -- waits, and makes `headers` unusable
  if body == nil then
    return
  end
  local text = body:getBytes(0, body:length())
  -- Only google.rpc.Status. The HTTP faces' own errors begin otherwise, or with an HTTP status.
  local name = NAMES[text:match('^{"code":(%d+),"message":"') or text:match('^{"code":(%d+),"details":')]
  if name == nil or text:find('"status":"' .. name .. '"', 1, true) then
    return
  end
  local head = '{"status":"' .. name .. '",'
  -- A quote inside a JSON string is escaped, so this never matches inside a message.
  local reason = text:match('"reason":"([A-Z0-9_]+)"')
  if reason ~= nil then
    head = head .. '"reason":"' .. reason .. '",'
  end
  handle:headers():replace("content-length", body:setBytes(head .. text:sub(2)))
end
