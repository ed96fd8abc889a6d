-- A strict reader of one flat JSON object. cjson is too lax (hex, repeated keys, invalid UTF-8) and
-- turns numbers into doubles; here a number stays the text that was sent.

local CONTROL = 'control characters are not allowed'
local CONTROL_ESCAPES = {b = true, f = true, n = true, r = true, t = true}
local UTF8 = { -- Unicode's table of well-formed sequences; surrogates and overlong forms are not in it
  '^[\194-\223][\128-\191]',
  '^\224[\160-\191][\128-\191]',
  '^[\225-\236\238\239][\128-\191][\128-\191]',
  '^\237[\128-\159][\128-\191]',
  '^\240[\144-\191][\128-\191][\128-\191]',
  '^[\241-\243][\128-\191][\128-\191][\128-\191]',
  '^\244[\128-\143][\128-\191][\128-\191]',
}

-- A text as an error may show it: short, and still valid UTF-8 where it was cut.
local function cut(text)
  return #text <= 40 and text or text:sub(1, 40):gsub('[\194-\244][\128-\191]*$', '') .. '...'
end

local function sequence_end(text, at)
  for _, pattern in ipairs(UTF8) do
    local _, stop = text:find(pattern, at)
    if stop then
      return stop
    end
  end
end

local function is_utf8(text)
  local at = text:find('[\128-\255]')
  while at do
    local stop = sequence_end(text, at)
    if not stop then
      return false
    end
    at = text:find('[\128-\255]', stop + 1)
  end
  return true
end

local function encode_utf8(code)
  if code < 0x80 then
    return string.char(code)
  elseif code < 0x800 then
    return string.char(0xC0 + math.floor(code / 0x40), 0x80 + code % 0x40)
  elseif code < 0x10000 then
    return string.char(0xE0 + math.floor(code / 0x1000), 0x80 + math.floor(code / 0x40) % 0x40,
      0x80 + code % 0x40)
  end
  return string.char(0xF0 + math.floor(code / 0x40000), 0x80 + math.floor(code / 0x1000) % 0x40,
    0x80 + math.floor(code / 0x40) % 0x40, 0x80 + code % 0x40)
end

-- Both halves of a surrogate pair as one code point, from the backslash of the first half.
local function surrogate_pair(text, at, high)
  local low = tonumber(text:match('^\\u(%x%x%x%x)', at + 6) or '0', 16)
  if high >= 0xDC00 or low < 0xDC00 or low > 0xDFFF then
    return nil, 'a lone surrogate is not allowed'
  end
  return encode_utf8(0x10000 + (high - 0xD800) * 0x400 + (low - 0xDC00)), at + 12
end

-- The character behind a backslash and the position after it; nil and why not.
local function unescape(text, at)
  local letter = text:sub(at + 1, at + 1)
  if letter == '"' or letter == '\\' or letter == '/' then
    return letter, at + 2
  elseif CONTROL_ESCAPES[letter] then
    return nil, CONTROL
  end
  local code = tonumber(text:match('^\\u(%x%x%x%x)', at) or '', 16)
  if not code then
    return nil, 'an unknown escape'
  elseif code >= 0xD800 and code <= 0xDFFF then
    return surrogate_pair(text, at, code)
  end
  return encode_utf8(code), at + 6
end

-- The text of the string that opens at `at` and the position after it; nil and why not.
local function read_string(text, at)
  local plain = text:match('^"([^"\\%c\128-\255]*)"', at) -- as nearly all are
  if plain then
    return plain, at + #plain + 2
  end
  local parts, from = {}, at + 1
  while true do
    local stop = text:find('["\\%c]', from)
    if not stop then
      return nil, 'the text has no end'
    end
    parts[#parts + 1] = text:sub(from, stop - 1)
    local char = text:sub(stop, stop)
    if char == '"' then
      local whole = table.concat(parts)
      if whole:find('%c') or whole:find('\194[\128-\159]') then
        return nil, CONTROL
      end
      return whole, stop + 1
    elseif char ~= '\\' then
      return nil, CONTROL
    end
    parts[#parts + 1], from = unescape(text, stop)
    if type(from) == 'string' then
      return nil, from
    end
  end
end

local function is_number(token)
  local whole, rest = token:match('^%-?(%d+)(.*)$')
  if not whole or (#whole > 1 and whole:sub(1, 1) == '0') then
    return false
  end
  return rest:gsub('^%.%d+', ''):gsub('^[eE][+-]?%d+', '') == ''
end

-- One value as {kind, text} and the position after it; nil and why not.
local function read_value(text, at)
  local first = text:sub(at, at)
  if first == '"' then
    local whole, after = read_string(text, at)
    return whole and {kind = 'string', text = whole}, after
  elseif first == '{' or first == '[' then
    return nil, 'must be a plain value, got a nested one'
  end
  local token = text:match('^[%w+.-]+', at)
  if token == 'true' or token == 'false' then
    return {kind = 'boolean', text = token}, at + #token
  elseif token == 'null' then
    return nil, 'must not be null: leave the field out'
  elseif token and is_number(token) then
    return {kind = 'number', text = token}, at + #token
  end
  return nil, 'is not a JSON value' .. (token and ', got ' .. cut(token) or '')
end

local function skip_space(text, at)
  return select(2, text:find('^[ \t\r\n]*', at)) + 1
end

-- Read one `"name": value` into `values`; gives the position after it, or nil and why not.
local function read_field(text, at, values)
  if text:sub(at, at) ~= '"' then
    return nil, 'the request is not a JSON object: a field name is missing'
  end
  local name, after = read_string(text, at)
  if not name then
    return nil, 'a field name: ' .. after
  elseif values[name] then
    return nil, cut(name) .. ': is given twice'
  end
  local colon = skip_space(text, after)
  if text:sub(colon, colon) ~= ':' then
    return nil, 'the request is not a JSON object: a colon is missing'
  end
  local value, next_at = read_value(text, skip_space(text, colon + 1))
  if not value then
    return nil, cut(name) .. ': ' .. next_at
  end
  values[name] = value
  return skip_space(text, next_at)
end

-- All values of a flat object by name, and why the text is not one (the values read until then stay).
local function read_object(text)
  local values = {}
  local at = skip_space(text, 1)
  if text:sub(at, at) ~= '{' then
    return values, 'the request is not a JSON object'
  end
  at = skip_space(text, at + 1)
  local mark, why = ',', nil
  if text:sub(at, at) == '}' then
    mark = '}'
  end
  while mark == ',' do
    at, why = read_field(text, at, values)
    if not at then
      return values, why
    end
    mark = text:sub(at, at)
    if mark == ',' then
      at = skip_space(text, at + 1)
    end
  end
  if mark ~= '}' or skip_space(text, at + 1) <= #text then
    return values, 'the request is not a JSON object: it does not end with one closing brace'
  end
  return values
end
