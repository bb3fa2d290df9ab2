-- Requests of a thousand tenants in turn, each written beforehand.
local requests, at = {}, 0

function init(args)
  for i = 1, 1000 do
    requests[i] = wrk.format(nil, nil, { ["X-Tenant"] = string.format("tenant-%04d", i) })
  end
end

function request()
  at = at % #requests + 1
  return requests[at]
end
