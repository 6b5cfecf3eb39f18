-- Requests: what is let through, which model is meant, and what is sent on instead of its name.

-- The paths of vLLM's API that take one JSON object with a `model`. Nothing else reaches an engine.
local PATHS = {}
for path in gmatch(SETTINGS.paths, '%S+') do
  PATHS[path] = true
end

local LOADING = '5'

-- What engines are to be given as `authorization`; a change of it comes with a new program.
local ENGINE_KEY
if KEY_FILE then
  local file = assert(io.open(KEY_FILE))
  ENGINE_KEY = file:read('*a')
  file:close()
end

-- What keeps a client at one version, if anything does. Some clients send empty ones, all of them the same.
local function key_of(headers, user)
  local key
  if SETTINGS.session_header ~= '' then
    key = headers:get(SETTINGS.session_header)
  end
  if (not key or key == '') and SETTINGS.sticky_user then
    key = user
  end
  return key ~= '' and key or nil
end

-- What engines call the version for the name that a client gave, whether the client named the version, and whether versions
-- share the requests of its adapter. Answers when there is none, and does not return then.
local function resolve(handle, headers, asked, user)
  local at = find(asked, '@', 1, true)
  local name = at and sub(asked, 1, at - 1) or asked
  local entry = entry_of(name)
  if not entry then
    return unknown(handle, asked, near(name))
  end
  local shared = entry < 0
  if at then
    local served = pinned_at(asked, name)
    if not served then
      local names = pinned_names(name)
      return unknown(handle, asked, { names[#names], names[#names - 1], names[#names - 2] })
    end
    return served, true, shared
  elseif entry > 0 then
    return served_at(entry)
  elseif entry == 0 then
    return fail(handle, '503', 'server_error', 'model_not_ready',
      'No version of the model `' .. name .. '` is loaded yet. Try again soon.', 'model', LOADING)
  end
  return choose(-entry, key_of(headers, user)), false, shared
end

local function get(handle, path)
  if path == '/v1/models' then
    return respond(handle, '200', models())
  elseif path == '/health' then
    return respond(handle, '200', '')
  end
  local name = path:match('^/v1/models/(.+)$')
  if name then
    name = name:gsub('%%(%x%x)', function(digits) return char(tonumber(digits, 16)) end)
    if base[name] then
      return respond(handle, '200', card(name, name, nil))
    end
    local at = find(name, '@', 1, true)
    local adapter = at and sub(name, 1, at - 1) or name
    local entry = entry_of(adapter)
    if entry and (not at and entry ~= 0 or at and pinned_at(name, adapter)) then
      return respond(handle, '200', card(name, adapter, base_list[1]))
    end
    return unknown(handle, name, near(adapter))
  end
  return nil
end

-- What clients of the OpenAI API may look for here, by the beginning of its path, and why it is not.
local UNROUTED = {
  ['/v1/responses/'] = 'What an engine has stored is with that engine alone, and no router can tell with which.',
  ['/v1/audio/'] = 'Audio comes as a form.',
  ['/v1/realtime'] = 'It is a WebSocket.',
}

local function unrouted(handle, method, path)
  local parts = { 'There is no ' .. method .. ' ' .. sub(path, 1, 200) .. ' here.' }
  for prefix, why in pairs(UNROUTED) do
    if find(path, prefix, 1, true) == 1 then
      parts[2] = why
    end
  end
  parts[#parts + 1] = 'Routed are GET /v1/models, and POST of a JSON object with a `model` to '
    .. SETTINGS.paths:gsub(' ', ', ') .. '.'
  fail(handle, '404', 'invalid_request_error', 'unknown_url', concat(parts, ' '))
end

-- Every call of Envoy's interface costs about a quarter of a microsecond, so none is made before it is needed.
function envoy_on_request(handle)
  local body = handle:body()
  local headers = handle:headers()
  local path = headers:get(':path')
  if not PATHS[path] then
    local query = find(path, '?', 1, true)
    path = query and sub(path, 1, query - 1) or path
  end
  local method = headers:get(':method')
  if method ~= 'POST' or not PATHS[path] then
    if method == 'GET' then
      get(handle, path)
    end
    if PATHS[path] then
      return fail(handle, '405', 'invalid_request_error', 'method_not_allowed', path .. ' takes POST only.')
    end
    return unrouted(handle, method, path)
  end
  local size = body and body:length() or 0
  if size == 0 then
    return refuse(handle, 'The request has no body; a JSON object with a `model` is expected.')
  elseif size > SETTINGS.max_body then
    return fail(handle, '413', 'invalid_request_error', 'request_too_large', TOO_LARGE)
  end
  local text = body:getBytes(0, size)
  local spans, asked, present, user = scan(text)
  if not spans then
    return refuse(handle, 'The body is not a JSON object in UTF-8.')
  elseif not present then
    return refuse(handle, 'The body names no model; GET /v1/models lists them.', 'model')
  elseif not asked then
    return refuse(handle, '`model` must be a string; GET /v1/models lists them.', 'model')
  end
  if ENGINE_KEY then
    headers:replace('authorization', ENGINE_KEY)
  else
    headers:remove('authorization')
  end
  if base[asked] then
    return headers:replace('x-lorafleet-base', '1')
  end
  local served, pinned, shared = resolve(handle, headers, asked, user)
  headers:replace('x-lorafleet-served', served)
  if pinned then
    headers:replace('x-lorafleet-pinned', '1')
  end
  if SETTINGS.measure_all or shared then
    headers:replace('x-lorafleet-measured', '1')
  end
  local hosts = hosts_of(served)
  if hosts then
    handle:streamInfo():dynamicMetadata():set('lorafleet', 'hosts', draw(hosts))
  end
  body:setBytes(replace(text, spans, served))
end
