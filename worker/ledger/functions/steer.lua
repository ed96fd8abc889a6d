-- cancelq_steer: what an operator does with the whole ledger: pause (nothing is POSTed, reads and proofs go on),
-- drain (new requests are refused, open ones finished), resume (ends both).
-- Keys: prefix. Arguments: pause|drain|resume, id of the action, who, why (may be ""). Reply: JSON, see "survey".
-- The action is kept until the audit has it. It is written first: an effect without a name must not be.

local ACTIONS_CAP = 1000 -- actions that no worker has recorded yet; more is a loop

local function survey(prefix, now)
  local paused, locked = meta(prefix, 'paused_at'), lockout_until(prefix)
  local exchange = meta(prefix, 'exchange')
  return '{"paused":' .. tostring(paused and true or false)
    .. ',"pausedAt":' .. (paused and '"' .. iso_of_micros(tonumber(paused)) .. '"' or 'null')
    .. ',"draining":' .. tostring(meta(prefix, 'draining') and true or false)
    .. ',"open":' .. text_of(count_open(prefix))
    .. ',"lockedOutUntil":' .. (locked > now and '"' .. iso_of_micros(locked) .. '"' or 'null')
    .. ',"exchange":' .. (exchange and cjson.encode(exchange) or 'null') .. '}'
end

local EFFECTS = {
  pause = function(prefix, now)
    local locked = stood_still(prefix) - math.max(0, lockout_until(prefix) - now)
    if not is_paused(prefix) then
      write('HSET', prefix .. ':meta', 'paused_at', text_of(now), 'locked_before', text_of(locked))
    end
  end,
  drain = function(prefix)
    write('HSET', prefix .. ':meta', 'draining', '1')
  end,
  resume = function(prefix, now)
    write('HSET', prefix .. ':meta', 'held_back', text_of(held_back(prefix, now)))
    write('HDEL', prefix .. ':meta', 'paused_at', 'locked_before', 'draining')
    ring(prefix, now)
  end,
}

local function steer(keys, args)
  local prefix, now, action = keys[1], micros(), args[1]
  if not is_ledger(prefix) then
    return refused(NO_LEDGER)
  elseif not EFFECTS[action] then
    return refused('action: must be pause, drain or resume, got ' .. cjson.encode(cut(action or '')))
  elseif action == 'drain' and is_paused(prefix) then
    return refused('the ledger is paused, so nothing would get finished; `cancelq resume` first')
  elseif redis.call('HLEN', prefix .. ':actions') >= ACTIONS_CAP then
    return refused(ACTIONS_CAP .. ' actions wait to be recorded; start a worker')
  end
  write('HSET', prefix .. ':actions', args[2], '{"kind":"' .. action .. '","by":' .. cjson.encode(args[3])
    .. ',"because":' .. (args[4] ~= '' and cjson.encode(args[4]) or 'null') .. ',"at":' .. text_of(now) .. '}')
  EFFECTS[action](prefix, now)
  return survey(prefix, now)
end

-- cancelq_survey: how the ledger stands. Keys: prefix. Reply: JSON.
local function look(keys)
  return survey(keys[1], micros())
end

-- cancelq_actions: actions that the audit may not know yet. Keys: prefix. Reply: {id, JSON, ...}.
local function actions(keys)
  return redis.call('HGETALL', keys[1] .. ':actions')
end

-- cancelq_actions_recorded: the audit has these. Keys: prefix. Arguments: id, ...
local function actions_recorded(keys, args)
  return write('HDEL', keys[1] .. ':actions', unpack(args))
end

redis.register_function{function_name = 'cancelq_steer', callback = steer, flags = {'allow-oom'}}
redis.register_function{function_name = 'cancelq_survey', callback = look, flags = {'no-writes'}}
redis.register_function{function_name = 'cancelq_actions', callback = actions, flags = {'no-writes'}}
redis.register_function{
  function_name = 'cancelq_actions_recorded', callback = actions_recorded, flags = {'allow-oom'},
}
