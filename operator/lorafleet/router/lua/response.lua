-- Answers of engines: the client's name for the model put back, tokens added up, everything else passed on as it comes.

local NOT_LOADED = '{"error":{"message":"No engine has this model loaded at the moment. Try again soon.",'
  .. '"type":"server_error","param":"model","code":"model_not_ready"}}'
-- Answers up to this size are held back until they are whole, so that their length can be given.
local WHOLE = 1048576

local function substitute(text, needle, name)
  local at = find(text, needle, 1, true)
  if not at then
    return text
  end
  local parts, from = {}, 1
  while at do
    parts[#parts + 1] = sub(text, from, at - 1)
    parts[#parts + 1] = name
    from = at + #needle
    at = find(text, needle, from, true)
  end
  parts[#parts + 1] = sub(text, from)
  return concat(parts)
end

-- How many bytes at the end of `text` may be the beginning of `needle`.
local function begun(text, needle)
  if byte(text, -1) == 10 then
    return 0
  end
  local from = math.max(#text - #needle + 2, 1)
  while true do
    local at = find(text, '"', from, true)
    if not at then
      return 0
    end
    if sub(text, at) == sub(needle, 1, #text - at + 1) then
      return #text - at + 1
    end
    from = at + 1
  end
end

-- Chat and completions say prompt_tokens and completion_tokens, responses and messages input_tokens and output_tokens.
local function tokens(text)
  local at = find(text, '"usage":{', 1, true)
  if not at then
    return nil
  end
  local prompt = text:match('"prompt_tokens":(%d+)', at) or text:match('"input_tokens":(%d+)', at)
  if not prompt then
    return nil
  end
  return tonumber(prompt), tonumber(text:match('"completion_tokens":(%d+)', at) or text:match('"output_tokens":(%d+)', at))
end

local function count(handle, prompt, completion)
  if prompt then
    local metadata = handle:streamInfo():dynamicMetadata()
    metadata:set('lorafleet', 'used', true)
    metadata:set('lorafleet', 'prompt', prompt)
    metadata:set('lorafleet', 'completion', completion or 0)
  end
end

local function stream(handle, needle, name)
  local held, prompt, completion = '', nil, nil
  for chunk in handle:bodyChunks() do
    local size = chunk:length()
    if size > 0 then
      local came = chunk:getBytes(0, size)
      local text = held ~= '' and held .. came or came
      if SETTINGS.count_tokens then
        local found, more = tokens(text)
        if found then
          prompt, completion = found, more
        end
      end
      if SETTINGS.restore_model then
        text = substitute(text, needle, name)
        local open = begun(text, needle)
        if open > 0 then
          held = sub(text, -open)
          text = sub(text, 1, -open - 1)
        else
          held = ''
        end
        if text ~= came then
          chunk:setBytes(text)
        end
      end
    end
  end
  count(handle, prompt, completion)
end

function envoy_on_response(handle)
  local found = handle:streamInfo():dynamicMetadata():get('lorafleet')
  local names = found and found.names
  if not names then
    return
  end
  local headers = handle:headers()
  local kind = headers:get('content-type') or ''
  local at = find(names, '\n', 1, true)
  local served, asked = sub(names, 1, at - 1), sub(names, at + 1)
  local needle, name = '"model":"' .. served .. '"', '"model":"' .. asked .. '"'
  if find(kind, 'text/event-stream', 1, true) == 1 then
    handle:streamInfo():dynamicMetadata():set('lorafleet', 'stream', true)
    if SETTINGS.restore_model or SETTINGS.count_tokens then
      stream(handle, needle, name)
    end
    return
  end
  if find(kind, 'application/json', 1, true) ~= 1 then
    return
  end
  local length = tonumber(headers:get('content-length') or '')
  if not length or length > WHOLE then
    headers:remove('content-length')
    stream(handle, needle, name)
    return
  end
  local status = headers:get(':status')
  local body = handle:body()
  if not body then
    return
  end
  local text = body:getBytes(0, body:length())
  if status == '404' then
    -- vLLM 0.32.0 says "The model `x` does not exist."; other 404s are about the request.
    if find(text, 'does not exist', 1, true) and find(text, served, 1, true) then
      headers = handle:headers()
      headers:replace(':status', '503')
      headers:replace('retry-after', '1')
      body:setBytes(NOT_LOADED)
    end
    return
  end
  if SETTINGS.count_tokens then
    count(handle, tokens(text))
  end
  if SETTINGS.restore_model then
    local changed = substitute(text, needle, name)
    if changed ~= text then
      body:setBytes(changed)
    end
  end
end
