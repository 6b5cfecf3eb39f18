-- Finds top-level fields of a JSON object without parsing it: every byte of a body is looked at once and nothing is
-- copied. What is inside strings is skipped with a plain find, which is memchr. Not a validator: engines are.

local find, byte, sub, char, concat = string.find, string.byte, string.sub, string.char, table.concat
local bit = require('bit')

local BACKSLASH, QUOTE, COLON = 92, 34, 58
local BRACE, BRACKET, END_BRACE, END_BRACKET = 123, 91, 125, 93

-- The closing quote of the string whose first byte is at `start`.
local function string_end(text, start)
  local from = start
  while true do
    local close = find(text, '"', from, true)
    if not close then
      return nil
    end
    if byte(text, close - 1) ~= BACKSLASH then
      return close
    end
    local before = close - 2
    while byte(text, before) == BACKSLASH do
      before = before - 1
    end
    if (close - before) % 2 == 1 then
      return close
    end
    from = close + 1
  end
end

-- The first byte at or after `at` that is not white space, and where it is.
local function skip_space(text, at)
  local code = byte(text, at)
  while code == 32 or code == 10 or code == 13 or code == 9 do
    at = at + 1
    code = byte(text, at)
  end
  return code, at
end

local SHORT = { b = '\b', f = '\f', n = '\n', r = '\r', t = '\t' }

local function utf8(code)
  if code < 0x80 then
    return char(code)
  elseif code < 0x800 then
    return char(0xC0 + bit.rshift(code, 6), 0x80 + code % 64)
  end
  return char(0xE0 + bit.rshift(code, 12), 0x80 + bit.rshift(code, 6) % 64, 0x80 + code % 64)
end

-- What a JSON string means, given the bytes between its quotes.
local function unescape(raw)
  if not find(raw, '\\', 1, true) then
    return raw
  end
  raw = raw:gsub('\\(.)(%x?%x?%x?%x?)', function(kind, digits)
    if kind == 'u' and #digits == 4 then
      return utf8(tonumber(digits, 16))
    end
    return (SHORT[kind] or kind) .. digits
  end)
  return raw
end

-- Names of fields are short: the longest that can mean "model" is six bytes for each of its letters.
local function field(text, first, last)
  local size = last - first + 1
  if size > 30 then
    return nil
  end
  return unescape(sub(text, first, last))
end

-- The fields `model` and `user` of the object in `text`:
--   model: its value or nil; `present` tells a value that is no string from none. Of repeated fields the last counts.
--   spans: {first, last, first, last, ...}, the bytes between the quotes of every string given as `model`.
-- nil when the text is no object.
local function scan(text)
  local code, at = skip_space(text, 1)
  if code ~= BRACE then
    return nil
  end
  local depth, size = 1, #text
  local model, user, present
  local spans = {}
  at = at + 1
  while at <= size do
    code = byte(text, at)
    if code == QUOTE then
      local close = string_end(text, at + 1)
      if not close then
        return nil
      end
      if depth == 1 then
        local next_code, next_at = skip_space(text, close + 1)
        if next_code == COLON then
          local name = field(text, at + 1, close - 1)
          next_code, next_at = skip_space(text, next_at + 1)
          if name == 'model' or name == 'user' then
            local value
            if next_code == QUOTE then
              close = string_end(text, next_at + 1)
              if not close then
                return nil
              end
              value = unescape(sub(text, next_at + 1, close - 1))
              if name == 'model' then
                spans[#spans + 1] = next_at + 1
                spans[#spans + 1] = close - 1
              end
              next_at = close + 1
            end
            if name == 'model' then
              model, present = value, true
            else
              user = value
            end
          end
        end
        at = next_at
      else
        at = close + 1
      end
    elseif code == BRACE or code == BRACKET then
      depth = depth + 1
      at = at + 1
    elseif code == END_BRACE or code == END_BRACKET then
      depth = depth - 1
      at = at + 1
      if depth == 0 then
        code = skip_space(text, at)
        if code then
          return nil
        end
        return spans, model, present, user
      end
    else
      -- Numbers, commas, white space: all below the brackets, and most of a body of token ids.
      repeat
        at = at + 1
        code = byte(text, at) or BRACE
      until code >= BRACKET or code == QUOTE
    end
  end
  return nil
end

-- `text` with every span replaced by `name`.
local function replace(text, spans, name)
  local parts, from = {}, 1
  for at = 1, #spans, 2 do
    parts[#parts + 1] = sub(text, from, spans[at] - 1)
    parts[#parts + 1] = name
    from = spans[at + 1] + 1
  end
  parts[#parts + 1] = sub(text, from)
  return concat(parts)
end
