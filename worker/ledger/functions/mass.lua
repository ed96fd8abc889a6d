-- A mass cancel under way: the wish to cancel all orders of one scope (an account, perhaps one contract), and every
-- order that was seen open since. {..}:mass:SCOPE is a hash: id, by, at, and "order ID" → what was first seen of it.
-- It fades a week after its last change, should nobody ever come back to it.

local MASS_LIFE_MS = 7 * 24 * 3600000

local function mass_key(prefix, scope)
  return prefix .. ':mass:' .. scope
end

-- The action goes on record like a pause: kept until the audit has it.
local function note_action(prefix, now, id, kind, by, because)
  write('HSET', prefix .. ':actions', id, '{"kind":"' .. kind .. '","by":' .. cjson.encode(by)
    .. ',"because":' .. (because ~= '' and cjson.encode(because) or 'null') .. ',"at":' .. text_of(now) .. '}')
end

-- cancelq_mass_begin: begin a mass cancel, or find the one of this scope that has not ended.
-- Keys: prefix. Arguments: scope, id of a new one, who, what and why (for the audit). Reply: {field, value, ...}.
local function mass_begin(keys, args)
  local prefix, now = keys[1], micros()
  local key = mass_key(prefix, args[1])
  if not redis.call('HGET', key, 'id') then
    note_action(prefix, now, args[2], 'cancel_all', args[3], args[4])
    write('HSET', key, 'id', args[2], 'by', args[3], 'at', text_of(now))
  end
  write('PEXPIRE', key, MASS_LIFE_MS)
  return redis.call('HGETALL', key)
end

-- cancelq_mass_note: orders that were seen open; what was seen first stays.
-- Keys: prefix. Arguments: scope, id, then order, text, ... Reply: 1; 0 if it has ended.
local function mass_note(keys, args)
  local key = mass_key(keys[1], args[1])
  if redis.call('HGET', key, 'id') ~= args[2] then
    return 0
  end
  for i = 3, #args, 2 do
    write('HSETNX', key, 'order ' .. args[i], args[i + 1])
  end
  write('PEXPIRE', key, MASS_LIFE_MS)
  return 1
end

-- cancelq_mass_end: it has come to an end that was told. Keys: prefix. Arguments: scope, id, who, how it ended.
-- Reply: 1; 0 if it has ended before.
local function mass_end(keys, args)
  local prefix = keys[1]
  local key = mass_key(prefix, args[1])
  if redis.call('HGET', key, 'id') ~= args[2] then
    return 0
  end
  note_action(prefix, micros(), args[2] .. ' end', 'cancel_all_end', args[3], args[4])
  local flat = redis.call('HGETALL', key)
  write('HDEL', key, 'id') -- from here on it has ended; the rest is room
  for i = 1, #flat, 2 do
    write('HDEL', key, flat[i])
  end
  return 1
end

redis.register_function{function_name = 'cancelq_mass_begin', callback = mass_begin, flags = {'allow-oom'}}
redis.register_function{function_name = 'cancelq_mass_note', callback = mass_note, flags = {'allow-oom'}}
redis.register_function{function_name = 'cancelq_mass_end', callback = mass_end, flags = {'allow-oom'}}
