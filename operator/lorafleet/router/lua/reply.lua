-- What the router answers by itself, in the shapes of the OpenAI API.

local ESCAPES = { ['"'] = '\\"', ['\\'] = '\\\\' }

local function quoted(text)
  return '"' .. text:gsub('["\\]', ESCAPES):gsub('%c', ' '):gsub('[\128-\255]', '?') .. '"'
end

local function respond(handle, status, body, retry)
  local headers = { [':status'] = status, ['content-type'] = 'application/json' }
  if retry then
    headers['retry-after'] = retry
  end
  handle:respond(headers, body)
end

local function fail(handle, status, kind, code, message, param, retry)
  local body = '{"error":{"message":' .. quoted(message) .. ',"type":"' .. kind .. '","param":'
    .. (param and quoted(param) or 'null') .. ',"code":"' .. code .. '"}}'
  respond(handle, status, body, retry)
end

local function refuse(handle, message, param)
  fail(handle, '400', 'invalid_request_error', 'invalid_request', message, param)
end

local function unknown(handle, asked, names)
  local message = 'The model `' .. sub(asked, 1, 200) .. '` does not exist.'
  if #names > 0 then
    message = message .. ' Did you mean `' .. concat(names, '`, `') .. '`?'
  else
    message = message .. ' GET /v1/models lists those that do.'
  end
  fail(handle, '404', 'invalid_request_error', 'model_not_found', message, 'model')
end

local function card(name, root, parent)
  return '{"id":' .. quoted(name) .. ',"object":"model","created":' .. LOADED .. ',"owned_by":"lorafleet","root":'
    .. quoted(root) .. ',"parent":' .. (parent and quoted(parent) or 'null') .. '}'
end

local listing

-- The answer to GET /v1/models, made once for a table.
local function models()
  if not listing then
    local cards, parent = {}, base_list[1]
    for _, name in ipairs(base_list) do
      cards[#cards + 1] = card(name, name, nil)
    end
    for _, name in ipairs(adapters()) do
      cards[#cards + 1] = card(name, name, parent)
      if SETTINGS.list_pinned then
        for _, pinned in ipairs(pinned_names(name)) do
          cards[#cards + 1] = card(pinned, name, parent)
        end
      end
    end
    listing = '{"object":"list","data":[' .. concat(cards, ',') .. ']}'
  end
  return listing
end
