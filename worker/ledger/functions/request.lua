-- What a request may say, field by field: a check gives the value to store, or nil and what would be right.

local DEDUPE_LIFE_MS = '86400000' -- until a worker has said what CANCELQ_DEDUPE_LIFE is
local LONGEST_REQUEST = 16384 -- bytes; the longest valid one, fully escaped, has a quarter of that
local LARGEST_ORDER_ID = '9223372036854775807'
local LONGEST_DEADLINE = 3653 * 86400 * 1000000 -- ten years
local DEADLINE_GRACE = 1000000 -- clocks differ a little: a second in the past is still "now"
local INFO_LIFE = 1000 -- microseconds
local info = {asked_at = 0}

local function shown(value)
  return value.kind == 'string' and cjson.encode(cut(value.text)) or cut(value.text)
end

local function text_up_to(limit)
  return function(value)
    if value.kind == 'string' and #value.text >= 1 and #value.text <= limit then
      return value.text
    end
    return nil, 'must be a text of 1 to ' .. limit .. ' bytes'
  end
end

local function order_id(value)
  local digits = value.kind ~= 'boolean' and value.text:match('^[1-9]%d*$')
  if digits and (#digits < 19 or (#digits == 19 and digits <= LARGEST_ORDER_ID)) then
    return digits
  end
  return nil, 'must be an integer from 1 to ' .. LARGEST_ORDER_ID .. ' in plain digits'
end

local function boolean(value)
  if value.kind == 'boolean' then
    return value.text == 'true' and '1' or '0'
  end
  return nil, 'must be true or false'
end

local function priority(value)
  if value.kind == 'string' and (value.text == 'urgent' or value.text == 'normal') then
    return value.text
  end
  return nil, 'must be "urgent" or "normal"'
end

local function moment(value)
  local at = value.kind == 'string' and micros_of_iso(value.text)
  if at then
    return at
  end
  return nil, 'must be an ISO 8601 time such as "2026-11-23T20:00:00Z", from 1970 to ' .. LATEST_YEAR
end

local function deadline(value, now)
  local at
  if value.kind == 'number' then
    at = math.floor(now + tonumber(value.text) * 1000000)
  else
    at = moment(value)
  end
  if not at then
    return nil, 'must be a number of seconds from now or an ISO 8601 time'
  elseif at < now - DEADLINE_GRACE then
    return nil, 'must not lie in the past'
  elseif at > now + LONGEST_DEADLINE then
    return nil, 'must be at most ten years ahead'
  end
  return at
end

local REQUEST_FIELDS = {
  orderId = order_id, account = text_up_to(64), clOrdId = text_up_to(64), activationTime = moment,
  customTag50 = text_up_to(64), isAutomated = boolean, requestId = text_up_to(128),
  requestedBy = text_up_to(128), priority = priority, deadline = deadline,
}

local NO_LEDGER = 'the key must be the name of the ledger in braces, such as {cancelq}'

-- A key space without a worker would take wishes for ever: the braces are what people forget.
local function is_ledger(prefix)
  return prefix ~= nil and prefix:find('^{[%w_.-]+}$') ~= nil
end

-- What is wrong with a call itself, or nil: what nobody reads would be lost and called accepted.
local function misuse(keys, args, most)
  if #keys > 1 then
    return 'keys: must be one, the name of the ledger in braces, got ' .. #keys
  elseif not is_ledger(keys[1]) then
    return NO_LEDGER
  elseif #args > most then
    return 'arguments: must be one JSON object, got ' .. #args
  end
end

-- The checked fields of a flat object; nil, why not, and the request id where one could be read.
local function read_fields(text, allowed, now)
  if #text > LONGEST_REQUEST then
    return nil, 'the request is longer than ' .. LONGEST_REQUEST .. ' bytes'
  elseif not is_utf8(text) then
    return nil, 'the request is not valid UTF-8'
  end
  local values, why = read_object(text)
  local request_id = values.requestId and allowed.requestId and allowed.requestId(values.requestId) or nil
  if why then
    return nil, why, request_id
  end
  local fields = {}
  for name, value in pairs(values) do
    if not allowed[name] then
      return nil, cut(name) .. ': is not a field of a request', request_id
    end
    fields[name], why = allowed[name](value, now)
    if not fields[name] then
      return nil, name .. ': ' .. why .. ', got ' .. shown(value), request_id
    end
  end
  return fields
end

local function read_request(text, now)
  local request, why, request_id = read_fields(text, REQUEST_FIELDS, now)
  if request and not request.orderId then
    return nil, 'orderId: is required', request.requestId
  elseif not request then
    return nil, why, request_id
  end
  request.account = request.account or 'default'
  request.isAutomated = request.isAutomated or '1'
  request.priority = request.priority or 'normal'
  return request
end

local function refused(why, request_id)
  return '{"status":"refused","error":' .. cjson.encode(why)
    .. ',"requestId":' .. (request_id and cjson.encode(request_id) or 'null') .. '}'
end

-- Whether a line of INFO says this. Without patterns: they are tried at each of its three thousand bytes.
local function says(info, text)
  return info:find(text, 1, true) ~= nil
end

-- What this server says of itself, at most a millisecond old: to ask for each of many pipelined requests took a sixth
-- of their time. Nil where a caller without the right to ask would have to.
local function server_info(now)
  if now < info.asked_at or now - info.asked_at >= INFO_LIFE then
    local text = redis.pcall('INFO', 'server', 'persistence', 'replication')
    info = type(text) == 'string' and {text = text, asked_at = now} or {asked_at = 0}
  end
  return info.text
end

-- "fsynced" only if a worker saw, on this very server process, that every reply waits for its fsync, and the file
-- is still written. Replicas are counted for the client: it may ask them, which no function can.
local function durability(prefix, now)
  local seen = meta(prefix, 'fsync_seen')
  local text = seen and server_info(now)
  if text and not says(text, '\naof_enabled:1\r') then
    write('HDEL', prefix .. ':meta', 'fsync_seen') -- switched on again, it is another file
    text = nil
  end
  if not text then
    return '"durability":"memory"'
  end
  local run_id = seen:match('^(%x+) always$')
  local proved = run_id and says(text, '\nrun_id:' .. run_id .. '\r') and says(text, '\naof_last_write_status:ok\r')
  local replicas = proved and select(2, text:find('\nconnected_slaves:', 1, true))
  local count = replicas and text:match('^[1-9]%d*', replicas + 1)
  return '"durability":"' .. (proved and 'fsynced' or 'memory') .. '"'
    .. (count and ',"replicas":' .. count or '')
end

local function receipt(prefix, status, request, job_id, now)
  return '{"jobId":' .. cjson.encode(job_id) .. ',"requestId":' .. cjson.encode(request.requestId)
    .. ',"status":"' .. status .. '","account":' .. cjson.encode(request.account)
    .. ',"orderId":' .. request.orderId .. ',' .. durability(prefix, now) .. '}'
end

local function remember(prefix, request, job_id)
  local life = redis.call('HGET', prefix .. ':meta', 'dedupe_life_ms') or DEDUPE_LIFE_MS
  write('SET', prefix .. ':request:' .. request.requestId,
    job_id .. ' ' .. request.orderId .. ' ' .. request.account, 'PX', life)
end
