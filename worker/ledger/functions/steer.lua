-- cancelq_steer: what an operator does with the whole ledger: pause (nothing is POSTed, reads and proofs go on),
-- drain (new requests are refused, open ones finished), resume (ends both).
-- Keys: prefix. Arguments: pause|drain|resume, id of the action, who, why (may be ""). Reply: JSON, see "survey".
-- The action is kept until the audit has it. It is written first: an effect without a name must not be.

local ACTIONS_CAP = 1000 -- actions that no worker has recorded yet; more is a loop

-- How many jobs are in hand for a POST, up to a bound.
local function count_posting(prefix)
  local posting = 0
  for _, id in ipairs(redis.call('ZRANGE', prefix .. ':leases', 0, SWEEP_BATCH)) do
    if redis.call('HGET', job_key(prefix, id), 'step') == 'post' then
      posting = posting + 1
    end
  end
  return posting
end

local function survey(prefix, now)
  local paused, locked = meta(prefix, 'paused_at'), lockout_until(prefix)
  local exchange = meta(prefix, 'exchange')
  return '{"paused":' .. tostring(paused and true or false)
    .. ',"pausedAt":' .. (paused and '"' .. iso_of_micros(tonumber(paused)) .. '"' or 'null')
    .. ',"draining":' .. tostring(meta(prefix, 'draining') and true or false)
    .. ',"open":' .. text_of(count_open(prefix)) .. ',"posting":' .. text_of(count_posting(prefix))
    .. ',"lockedOutUntil":' .. (locked > now and '"' .. iso_of_micros(locked) .. '"' or 'null')
    .. ',"workers":' .. text_of(redis.call('ZCOUNT', prefix .. ':workers', text_of(now), '+inf'))
    .. ',"exchange":' .. (exchange and cjson.encode(exchange) or 'null') .. '}'
end

local EFFECTS = {
  pause = function(prefix, now)
    write('HSET', prefix .. ':meta', 'paused_at', text_of(now))
    count_holds(prefix, now, true)
  end,
  drain = function(prefix)
    write('HSET', prefix .. ':meta', 'draining', '1')
  end,
  resume = function(prefix, now)
    write('HDEL', prefix .. ':meta', 'paused_at', 'draining')
    count_holds(prefix, now, not is_compared(prefix))
    ring(prefix, now)
  end,
}

-- Whether an action would change anything.
local CHANGES = {
  pause = function(prefix) return not is_paused(prefix) end,
  drain = function(prefix) return not is_draining(prefix) end,
  resume = function(prefix) return is_paused(prefix) or is_draining(prefix) end,
}

local function steer(keys, args)
  local prefix, now, action = keys[1], micros(), args[1]
  if not is_ledger(prefix) then
    return refused(NO_LEDGER)
  elseif not EFFECTS[action] then
    return refused('action: must be pause, drain or resume, got ' .. cjson.encode(cut(action or '')))
  elseif #args[3] < 1 or #args[3] > 128 or #args[4] > 1024 then
    return refused('who does this must be said in 1 to 128 bytes, and why in at most 1024')
  elseif action == 'drain' and is_paused(prefix) then
    return refused('the ledger is paused, so nothing would get finished; `cancelq resume` first')
  elseif not CHANGES[action](prefix) and is_compared(prefix) then -- it stands so already: nothing to do, or to record
    return survey(prefix, now) -- (what Redis lost might be put back: then this is the newer word)
  elseif action ~= 'resume' and redis.call('HLEN', prefix .. ':actions') >= ACTIONS_CAP then
    return refused(ACTIONS_CAP .. ' actions wait to be recorded; start a worker')
  end
  write('HSET', prefix .. ':actions', args[2], '{"kind":"' .. action .. '","by":' .. cjson.encode(args[3])
    .. ',"because":' .. (args[4] ~= '' and cjson.encode(args[4]) or 'null') .. ',"at":' .. text_of(now) .. '}')
  write('HSET', prefix .. ':meta', 'steered_at', text_of(now))
  EFFECTS[action](prefix, now)
  return survey(prefix, now)
end

local function put(key, name, text)
  if text ~= '' then
    write('HSET', key, name, text)
  else
    write('HDEL', key, name)
  end
end

-- cancelq_steer_again: what the audit knows of pause, drain and resume, where its newest is newer than the ledger's own.
-- Keys: prefix. Arguments: time of the newest, time of the pause in force or "", "1" or "": whether it drains. Reply: 1 if that
-- changed anything.
local function steer_again(keys, args)
  local prefix, now, at, key = keys[1], micros(), args[1], keys[1] .. ':meta'
  local own = meta(prefix, 'steered_at') or meta(prefix, 'paused_at') or '0'
  local as_it_is = is_paused(prefix) == (args[2] ~= '') and is_draining(prefix) == (args[3] == '1')
  if tonumber(own) >= tonumber(at) or as_it_is then
    return 0
  end
  put(key, 'paused_at', args[2])
  put(key, 'draining', args[3])
  write('HSET', key, 'steered_at', at)
  count_holds(prefix, now, is_held(prefix))
  ring(prefix, now)
  return 1
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
redis.register_function{function_name = 'cancelq_steer_again', callback = steer_again, flags = {'allow-oom'}}
redis.register_function{function_name = 'cancelq_survey', callback = look, flags = {'no-writes'}}
redis.register_function{function_name = 'cancelq_actions', callback = actions, flags = {'no-writes'}}
redis.register_function{
  function_name = 'cancelq_actions_recorded', callback = actions_recorded, flags = {'allow-oom'},
}
