-- Answers of engines: the client's name for the model put back, tokens added up, everything else passed on as it comes.

local NOT_LOADED = '{"error":{"message":"No engine has this model loaded at the moment. Try again soon.",'
  .. '"type":"server_error","param":"model","code":"model_not_ready"}}'
-- Answers up to this size are held back until they are whole, so that their length can be given.
local WHOLE = 1048576
local WATCHED = SETTINGS.restore_model or SETTINGS.count_tokens

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

-- Where the end of `text` may be the beginning of `needle`, or nil. Events end with a line, which is in no needle.
local function begun(text, needle)
  if byte(text, -1) == 10 then
    return nil
  end
  local at = find(text, '"', math.max(#text - #needle + 2, 1), true)
  while at do
    if sub(text, at) == sub(needle, 1, #text - at + 1) then
      return at
    end
    at = find(text, '"', at + 1, true)
  end
  return nil
end

local USAGE = '"usage":{'
-- The numbers of a usage are within so many bytes.
local USAGE_SIZE = 1000

-- What the last usage in the text says, and where it begins. Chat and completions say prompt_tokens and
-- completion_tokens, responses and messages input_tokens and output_tokens.
local function tokens(text)
  local at, after = nil, find(text, USAGE, 1, true)
  if not after then
    return nil
  end
  repeat
    at, after = after, find(text, USAGE, after + #USAGE, true)
  until not after
  local prompt = text:match('"prompt_tokens":(%d+)', at) or text:match('"input_tokens":(%d+)', at)
  local completion = text:match('"completion_tokens":(%d+)', at) or text:match('"output_tokens":(%d+)', at)
  return tonumber(prompt), tonumber(completion), at
end

-- The end of `text` that may be the beginning of a usage, or of what is not known of the one at `at`.
local function unfinished(text, at)
  if byte(text, -1) == 10 then
    return ''
  end
  return sub(text, at and #text - at < USAGE_SIZE and at or 1 - #USAGE)
end

local function count(handle, prompt, completion)
  if prompt then
    handle:streamInfo():dynamicMetadata():set('lorafleet', 'used', { prompt = prompt, completion = completion or 0 })
  end
end

local MODEL = '"model":"'

-- What to look for and what to put in its place; nil when the text names no version of ours, with the place of a name that
-- is not whole yet. The answer itself says which version it is of: that costs less than to remember it.
local function naming(text, pinned)
  local at = find(text, MODEL, 1, true)
  while at do
    local from = at + #MODEL
    local close = find(text, '"', from, true)
    if not close then
      return nil, nil, at
    end
    local served = sub(text, from, close - 1)
    local name = owner[served]
    if name then
      name = pinned and pin_of[served] or name
      return MODEL .. served .. '"', MODEL .. name .. '"'
    end
    at = find(text, MODEL, close, true)
  end
  return nil
end

-- A stream names its model in the first event; until then nothing is known to look for. Of `events` it is noted that they
-- began: an engine answers with the headers before it knows the first token.
local function stream(handle, pinned, events)
  local needle, name
  local held, rest, prompt, completion = '', '', nil, nil
  for chunk in handle:bodyChunks() do
    local size = chunk:length()
    if size > 0 then
      if events then
        handle:streamInfo():dynamicMetadata():set('lorafleet', 'stream', true)
        events = false
      end
      if not WATCHED then
        return
      end
      local came = chunk:getBytes(0, size)
      if SETTINGS.count_tokens then
        local text = rest ~= '' and rest .. came or came
        local found, more, at = tokens(text)
        if found then
          prompt, completion = found, more
        end
        rest = unfinished(text, at)
      end
      if SETTINGS.restore_model then
        local text, open = held ~= '' and held .. came or came, nil
        held = ''
        if not needle then
          needle, name, open = naming(text, pinned)
        end
        if needle then
          text = substitute(text, needle, name)
        end
        open = open or begun(text, needle or MODEL)
        if open then
          held = sub(text, open)
          text = sub(text, 1, open - 1)
        end
        if text ~= came then
          chunk:setBytes(text)
        end
      end
    elseif held ~= '' then
      -- The end. It was not the beginning of a name.
      chunk:setBytes(held)
      held = ''
    end
  end
  count(handle, prompt, completion)
end

local UNLOADABLE = '{"error":{"message":"LoRA adapter \''

-- The status with which vLLM 0.32.0 answers so when it does not have the model: its other 404s are about the request, and
-- the router's own say no such type. Its resolver answers 400 when it finds files that do not load. nil for other texts.
local function unloaded(text)
  if find(text, '"NotFoundError"', 1, true) and find(text, '` does not exist', 1, true) then
    return '404'
  elseif find(text, UNLOADABLE, 1, true) == 1 and find(text, "' was found but could not be loaded", 1, true) then
    return '400'
  end
  return nil
end

local function whole(handle, pinned)
  local body = handle:body()
  if not body then
    return
  end
  local text = body:getBytes(0, body:length())
  if SETTINGS.count_tokens then
    count(handle, tokens(text))
  end
  local needle, name
  if SETTINGS.restore_model then
    needle, name = naming(text, pinned)
  end
  if needle then
    return body:setBytes(substitute(text, needle, name))
  end
  local status = unloaded(text)
  local headers = status and handle:headers()
  if status and headers:get(':status') == status then
    headers:replace(':status', '503')
    headers:replace('retry-after', '1')
    body:setBytes(NOT_LOADED)
  end
end

function envoy_on_response(handle)
  local headers = handle:headers()
  local kind = headers:get('content-type') or ''
  local pinned = headers:get('x-lorafleet-pinned')
  if pinned then
    headers:remove('x-lorafleet-pinned')
  end
  if find(kind, 'text/event-stream', 1, true) == 1 then
    stream(handle, pinned, true)
  elseif find(kind, 'application/json', 1, true) == 1 then
    local length = tonumber(headers:get('content-length') or '')
    if length and length <= WHOLE then
      whole(handle, pinned)
    elseif WATCHED then
      headers:remove('content-length')
      stream(handle, pinned, false)
    end
  end
end
