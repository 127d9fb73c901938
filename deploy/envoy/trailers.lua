-- A REST caller sees headers only. What a service says in trailing metadata (the state of the limits, its
-- request id) becomes headers of the JSON answer, which is complete before its headers leave.
-- Turned off on the routes of streaming methods, whose headers can't wait for the end.
function envoy_on_request(handle)
  -- Set by the transcoder, which stands before this filter.
  if handle:headers():get("x-envoy-original-path") ~= nil then
    handle:streamInfo():dynamicMetadata():set("signgate.edge", "rest", true)
  end
end

function envoy_on_response(handle)
  if handle:streamInfo():dynamicMetadata():get("signgate.edge") == nil then
    return
  end
  handle:body() -- waits for the end, and holds the headers back until then
  local trailers = handle:trailers()
  if trailers == nil then
    return
  end
  local headers = handle:headers()
  for name, value in pairs(trailers) do
    if name:sub(1, 5) ~= "grpc-" then
      headers:replace(name, value)
    end
  end
end
